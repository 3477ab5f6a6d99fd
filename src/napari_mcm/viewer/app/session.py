"""The state of one viewer that all docks share: slide, features, layers and jobs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

from psygnal import Signal

from napari_mcm.core.grid import GridConfig
from napari_mcm.viewer.app.background import BackgroundWorker
from napari_mcm.viewer.app.imports import collect_all_again
from napari_mcm.viewer.app.jobs import JobRunner, Timing
from napari_mcm.viewer.app.labels import SlideLabels
from napari_mcm.viewer.app.persistence import RecentFiles, note_opened, remember_mpp
from napari_mcm.viewer.app.registrations import Registrations
from napari_mcm.viewer.app.settings import LookSettings, preferences
from napari_mcm.viewer.app.tissue import TissueController
from napari_mcm.viewer.app.undo import UndoOrder
from napari_mcm.viewer.layers.manager import LayerManager
from napari_mcm.viewer.layers.metadata import SlideMetadata, slide_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_mcm.core.runtime.jobs import Job
    from napari_mcm.viewer.app.features import LoadedFeatures
    from napari_mcm.viewer.layers.metadata import LayerData

T = TypeVar("T")


class Session:
    """The active slide, its features, layers and jobs in one viewer.

    All widgets docked in the viewer share it. They call :meth:`enter` when they are
    docked and :meth:`leave` when they are closed; the last one to leave cancels the job
    and stops listening to clicks.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer.

    Attributes
    ----------
    jobs : JobRunner
        Runs long jobs.
    layers : LayerManager
        Adds and updates the layers of the viewer.
    disk : BackgroundWorker
        Thread for short tasks that read and write files.
    tissue : TissueController
        Tissue masks of the open slides.
    registrations : Registrations
        Registrations of the open slides.
    recent : RecentFiles
        Recent runs and feature files.
    order : UndoOrder
        What was changed last, for the keys of undo and redo.
    labels : SlideLabels
        Classes, and which patches of which slides have them.
    patches : GridConfig
        Options of patches, the same in all widgets.
    problem : str
        Latest error message.
    slide : Layer or None
        Layer of the active slide.
    has_query : bool
        Whether similarity maps show a query.
    is_closing : bool
        Whether the window is being closed: what happens then is no change by the user.
    slide_changed : Signal
        Emitted when another slide is active, or when its metadata changed.
    slide_chosen : Signal
        Emitted when another slide is active, before `slide_changed`.
    features_changed : Signal
        Emitted with the slot whose features changed.
    entered, left : Signal
        Emitted when a widget was docked, and when the last one was closed.
    closing : Signal
        Emitted when the window is closed, before its layers are removed.
    patches_changed : Signal
        Emitted when the options of patches changed.
    error_reported : Signal
        Emitted when `problem` has a new message.
    side_by_side_changed : Signal
        Emitted when all slides are shown, or the current one alone.
    map_asked : Signal
        Emitted with the kind of map that the user asked for: ``"similarity"`` or
        ``"classes"``; only that kind is shown.
    neighbour_changed : Signal
        Emitted when another slide than the current one, which is seen beside it, has new
        features.
    """

    slide_changed = Signal()
    features_changed = Signal(str)
    slide_chosen = Signal()
    entered = Signal()
    left = Signal()
    closing = Signal()
    patches_changed = Signal()
    error_reported = Signal()
    side_by_side_changed = Signal()
    neighbour_changed = Signal()
    map_asked = Signal(str)

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer
        self.jobs = JobRunner()
        # First, so that the docks ask after it has changed.
        self.jobs.status.events.state.connect(self._job_changed)
        self.layers = LayerManager(viewer)
        viewer.layers.events.removing.connect(lambda _event: collect_all_again())
        self._look_settings = LookSettings(self.layers.look)
        self.layers.caption.switch(preferences().caption)
        self.disk = BackgroundWorker()
        self.tissue = TissueController(self.layers, self.disk, self.report_error)
        self.registrations = Registrations(self.disk, self.report_error)
        self.recent = RecentFiles(self.disk, self.report_error)
        self.order = UndoOrder()
        self.labels = SlideLabels(self.order)
        self.labels.class_needed.connect(self._class_needed)
        self.patches = GridConfig()
        self.problem = ""
        self.slide: Layer | None = None
        self.has_query = self.is_closing = False
        self._parts: dict[Callable[..., Any], Any] = {}
        self._loaded: WeakKeyDictionary[Layer, dict[str, LoadedFeatures]] = (
            WeakKeyDictionary()
        )
        self._doing: tuple[Layer, str, str] | None = None
        self._users: set[int] = set()
        self._known_slides: set[Layer] = set()
        self.layers.slides_changed.connect(self._slides_changed)
        self.layers.view.chosen.connect(self.choose_slide)
        self._slides_changed()

    def enter(self, user: int) -> None:
        """Register a widget that was docked.

        Parameters
        ----------
        user : int
            The widget's ``id()``.
        """
        self._users.add(user)
        self.entered.emit()

    def leave(self, user: int) -> None:
        """Unregister a widget that was closed; the last one cancels the job."""
        self._users.discard(user)
        if not self._users:
            self.left.emit()
            self.jobs.close()
            # When the application ends, Qt may have deleted the timers already.
            with suppress(RuntimeError):
                self.tissue.flush()

    def set_closing(self, is_closing: bool) -> None:
        """Note that the window is being closed, or is shown again."""
        if is_closing and not self.is_closing:
            self.closing.emit()
        self.is_closing = is_closing

    def is_last(self, user: int) -> bool:
        """Return whether no other widget is docked."""
        return self._users <= {user}

    @property
    def metadata(self) -> SlideMetadata | None:
        """Metadata of the active slide; None if no slide is open."""
        return None if self.slide is None else SlideMetadata.of_layer(self.slide)

    def choose_slide(self, slide: Layer | None) -> None:
        """Make a slide the current one: show it, and hide the layers of all others.

        This is the only way to another slide, whatever the reason: opening it, a list, a
        layer that was selected or shown, a search.

        Parameters
        ----------
        slide : Layer or None
            Layer of the slide; None for no slide.
        """
        if slide is self.slide:
            # Its eye may be closed.
            self.layers.view.show(slide)
            return
        self._activate(slide)
        self.slide_changed.emit()

    @property
    def side_by_side(self) -> bool:
        """Whether all slides are shown next to each other; a click chooses one."""
        return self.layers.view.side_by_side

    def show_side_by_side(self, on: bool) -> None:
        """Show all slides next to each other, or the current one alone."""
        if on != self.side_by_side:
            self.layers.view.set_side_by_side(on)
            self.side_by_side_changed.emit()

    def slide_at(self, position: Any) -> Layer | None:
        """Return the slide that is seen at a place of the canvas.

        Parameters
        ----------
        position : sequence of float
            World position; the last two values are y and x.
        """
        return self.layers.view.slide_at(position)

    def set_mpp(self, mpp: float) -> None:
        """Set and remember the resolution of the active slide.

        Parameters
        ----------
        mpp : float
            Microns per level-0 pixel.
        """
        if (slide := self.slide) is None or (opened := slide_of(slide)) is None:
            return
        self.disk.submit(
            "mpp",
            lambda: remember_mpp(opened.fingerprint, mpp),
            lambda _: None,
            self.report_error,
        )
        self.layers.set_mpp(slide, mpp)
        self.tissue.place(slide)
        self.tissue.load_saved(slide)

    def use_patches(self, patches: GridConfig) -> None:
        """Set the options of patches for all widgets."""
        if patches != self.patches:
            self.patches = patches
            self.patches_changed.emit()

    def report_error(self, problem: str) -> None:
        """Show an error message in all widgets."""
        self.problem = problem
        self.error_reported.emit()

    def open(self, path: str, ended: Callable[[], None]) -> None:
        """Open a slide in the background, as a new layer.

        Parameters
        ----------
        path : str
            File or folder of the slide.
        ended : callable
            Called if opening failed, after the error was reported.
        """
        from napari_mcm.viewer.reader import read_slide

        def failed(problem: str) -> None:
            self.report_error(problem)
            ended()

        def opened(read: list[LayerData]) -> None:
            self.layers.add_slide(read)
            note_opened(path)

        self.disk.submit(f"open {path}", lambda: read_slide(path), opened, failed)

    def features(self, slot: str) -> LoadedFeatures | None:
        """Return the features of the active slide in a slot; None if there are none."""
        return None if self.slide is None else self.features_of(self.slide).get(slot)

    def features_of(self, slide: Layer) -> dict[str, LoadedFeatures]:
        """Return the features of a slide by slot.

        Parameters
        ----------
        slide : Layer
            Layer of the slide.
        """
        return dict(self._loaded.get(slide, {}))

    def all_features(self) -> list[LoadedFeatures]:
        """Return the features of all open slides, those of the active one first."""
        slides = sorted(self.layers.slides(), key=lambda one: one is not self.slide)
        return [one for s in slides for one in self._loaded.get(s, {}).values()]

    def run_features(
        self,
        title: str,
        slot: str,
        make_job: Callable[[], Job[LoadedFeatures]],
        timing: Timing | None = None,
        doing: str = "",
    ) -> None:
        """Run a job that returns features, and put them in a slot of the active slide.

        Parameters
        ----------
        title : str
            Display name of the job.
        slot : str
            One of :data:`~napari_mcm.viewer.app.features.SLOTS`.
        make_job : callable
            Returns the job; called in the worker thread.
        timing : Timing, optional
            States how long the job should take, and learns how long it takes.
        doing : str, optional
            What the docks of the slide say meanwhile, see :meth:`doing`.
        """
        slide = self.slide
        if slide is not None:
            if not self.jobs.status.busy:
                self._doing = slide, slot, doing
            self.jobs.start(
                title,
                make_job,
                lambda loaded: self._arrived(slide, slot, loaded),
                timing=timing,
            )

    def doing(self, slot: str) -> str:
        """Return what the running job does for the features of the active slide.

        Parameters
        ----------
        slot : str
            One of :data:`~napari_mcm.viewer.app.features.SLOTS`.

        Returns
        -------
        str
            Such as ``Computing the features of a…``; empty if no job does anything.
        """
        if self._doing is None or self._doing[:2] != (self.slide, slot):
            return ""
        return self._doing[2]

    def _job_changed(self) -> None:
        """Forget what a job did when it has ended."""
        if not self.jobs.status.busy:
            self._doing = None

    def _class_needed(self, key: int) -> None:
        self.report_error(f"No class has the key {key}: add one in the dock Classes")

    def _arrived(self, slide: Layer, slot: str, loaded: LoadedFeatures) -> None:
        self.set_features(slide, slot, loaded)
        self.recent.add_features(loaded.path)
        self.jobs.status.message = f"{loaded.describe()}, in {loaded.path}"

    def set_features(self, slide: Layer, slot: str, loaded: LoadedFeatures) -> None:
        """Put features in a slot of a slide.

        Parameters
        ----------
        slide : Layer
            Layer of the slide.
        slot : str
            One of :data:`~napari_mcm.viewer.app.features.SLOTS`.
        loaded : LoadedFeatures
            The features.
        """
        self._loaded.setdefault(slide, {})[slot] = loaded
        if slide is self.slide:
            self.features_changed.emit(slot)
        elif self.side_by_side:
            self.neighbour_changed.emit()

    def part(self, kind: Callable[[Session], T]) -> T:
        """Return a dock's extension of the session, and create it on first use.

        Parameters
        ----------
        kind : type
            Called with the session; the result lives as long as the session.
        """
        if kind not in self._parts:
            self._parts[kind] = kind(self)
        return self._parts[kind]

    def _activate(self, slide: Layer | None) -> None:
        self.slide = slide
        self.layers.view.show(slide)
        self.layers.caption.switch(preferences().caption)
        self.layers.show_bars_of(slide)
        self.slide_chosen.emit()

    def _slides_changed(self) -> None:
        """Follow the layer list: a slide that was just opened becomes the active one."""
        slides = self.layers.slides()
        added = [slide for slide in slides if slide not in self._known_slides]
        gone = self._known_slides - set(slides)
        self._known_slides = set(slides)
        newest = (added or slides or [None])[-1]
        if self.side_by_side and (added or gone):
            self.layers.view.lay_out()
        if added or self.slide not in slides:
            self._activate(newest)
        self.slide_changed.emit()
        for slide in added:
            self.tissue.load_saved(slide)


_sessions: WeakValueDictionary[int, Session] = WeakValueDictionary()


def session_of(viewer: ViewerModel) -> Session:
    """Return the session of a viewer, which all its widgets share."""
    # napari passes widgets a proxy of the viewer, which is another object each time.
    viewer = getattr(viewer, "__wrapped__", viewer)
    session = _sessions.get(id(viewer))
    # Python may reuse the id of a viewer that was deleted.
    if session is None or session.viewer is not viewer:
        session = _sessions[id(viewer)] = Session(viewer)
    return session
