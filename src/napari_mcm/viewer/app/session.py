"""What is open in one viewer: the slide, its features and the present query."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

from psygnal import Signal

from napari_mcm.core.grid import GridConfig
from napari_mcm.viewer.app.background import Background
from napari_mcm.viewer.app.jobs import JobRunner
from napari_mcm.viewer.app.persistence import RecentFiles, note_opened, remember_mpp
from napari_mcm.viewer.app.tissue import TissueController
from napari_mcm.viewer.layers.manager import LayerManager
from napari_mcm.viewer.layers.metadata import SlideMetadata, slide_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_mcm.core.runtime.jobs import Job
    from napari_mcm.viewer.app.features import Loaded
    from napari_mcm.viewer.layers.metadata import LayerData

T = TypeVar("T")


class Session:
    """Slide ↔ features ↔ layers of one viewer, shared by the widgets docked in it.

    Widgets call :meth:`enter` when they are docked and :meth:`leave` when they are
    closed; the last one to leave stops the job and the listening to clicks.

    Attributes
    ----------
    slide_changed, features_changed : Signal
        Another slide, or more known of it; a slot has other features.
    slide_chosen : Signal
        Another slide is worked on; emitted before `slide_changed`.
    entered, left : Signal
        A widget was docked; the last one was closed.
    has_query : bool
        Whether maps show a query.
    patches_changed, error_reported : Signal
        Other options for patches; one line about what went wrong.
    """

    slide_changed = Signal()
    features_changed = Signal(str)
    slide_chosen = Signal()
    entered = Signal()
    left = Signal()
    patches_changed = Signal()
    error_reported = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer
        self.jobs = JobRunner()
        self.layers = LayerManager(viewer)
        self.disk = Background()
        self.tissue = TissueController(self.layers, self.disk, self.report_error)
        self.recent = RecentFiles(self.disk, self.report_error)
        self.patches = GridConfig()
        self.problem = ""
        self.slide: Layer | None = None
        self.has_query = False
        self._parts: dict[Callable[..., Any], Any] = {}
        self._loaded: WeakKeyDictionary[Layer, dict[str, Loaded]] = WeakKeyDictionary()
        self._users: set[int] = set()
        self._seen: set[Layer] = set()
        self.layers.slides_changed.connect(self._slides_changed)
        self._slides_changed()

    def enter(self, user: int) -> None:
        """Count a widget in, by its ``id``."""
        self._users.add(user)
        self.entered.emit()

    def leave(self, user: int) -> None:
        """Count a widget out."""
        self._users.discard(user)
        if not self._users:
            self.left.emit()
            self.jobs.close()
            # At the very end Qt may have taken the timers away already.
            with suppress(RuntimeError):
                self.tissue.flush()

    def is_last(self, user: int) -> bool:
        """Return whether all other widgets are closed."""
        return self._users <= {user}

    @property
    def metadata(self) -> SlideMetadata | None:
        """What is known of the present slide."""
        return None if self.slide is None else SlideMetadata.of_layer(self.slide)

    def choose_slide(self, slide: Layer | None) -> None:
        """Make a slide layer the one that is worked on."""
        if slide is not self.slide:
            self._choose(slide)
            self.slide_changed.emit()

    def state_mpp(self, mpp: float) -> None:
        """Return the present slide the resolution that the user knows."""
        if (slide := self.slide) is None or (opened := slide_of(slide)) is None:
            return
        self.disk.submit(
            "mpp",
            lambda: remember_mpp(opened.fingerprint, mpp),
            lambda _: None,
            self.report_error,
        )
        self.layers.state_mpp(slide, mpp)
        self.tissue.place(slide)
        self.tissue.take_up(slide)

    def use_patches(self, patches: GridConfig) -> None:
        """Choose how patches are laid."""
        if patches != self.patches:
            self.patches = patches
            self.patches_changed.emit()

    def report_error(self, problem: str) -> None:
        """Have the widgets say what went wrong."""
        self.problem = problem
        self.error_reported.emit()

    def open(self, path: str, ended: Callable[[], None]) -> None:
        """Open a slide in the background, as a new layer.

        Parameters
        ----------
        path : str
            The file or folder.
        ended : callable
            Called when that failed, after the reason was reported.
        """
        from napari_mcm.viewer.reader import read_slide

        def failed(problem: str) -> None:
            self.report_error(problem)
            ended()

        def opened(read: list[LayerData]) -> None:
            self.layers.add_slide(read)
            note_opened(path)

        self.disk.submit(f"open {path}", lambda: read_slide(path), opened, failed)

    def features(self, slot: str) -> Loaded | None:
        """Return the features of a slot for the present slide."""
        if self.slide is None:
            return None
        return self._loaded.get(self.slide, {}).get(slot)

    def run_features(
        self, title: str, slot: str, make_job: Callable[[], Job[Loaded]]
    ) -> None:
        """Run a job that gives features, and put them in a slot of the present slide.

        Parameters
        ----------
        title : str
            What the job is, for people.
        slot : str
            Where its result goes.
        make_job : callable
            Makes the job, in the worker's thread.
        """
        slide = self.slide
        if slide is not None:
            self.jobs.start(
                title, make_job, lambda loaded: self._arrived(slide, slot, loaded)
            )

    def _arrived(self, slide: Layer, slot: str, loaded: Loaded) -> None:
        self.set_features(slide, slot, loaded)
        self.recent.keep_features(loaded.path)
        self.jobs.status.message = f"{loaded.describe()}, in {loaded.path}"

    def set_features(self, slide: Layer, slot: str, loaded: Loaded) -> None:
        """Put features in a slot."""
        self._loaded.setdefault(slide, {})[slot] = loaded
        if slide is self.slide:
            self.features_changed.emit(slot)

    def part(self, kind: Callable[[Session], T]) -> T:
        """Return what a dock adds to the session; made when it is first asked for.

        Parameters
        ----------
        kind : type
            Made with the session, and kept as long as it lives.
        """
        if kind not in self._parts:
            self._parts[kind] = kind(self)
        return self._parts[kind]

    def _choose(self, slide: Layer | None) -> None:
        self.slide = slide
        self.layers.show_bars_of(slide)
        self.slide_chosen.emit()

    def _slides_changed(self) -> None:
        """Follow the layer list: a slide that was just opened is the one meant."""
        slides = self.layers.slides()
        fresh = [slide for slide in slides if slide not in self._seen]
        self._seen = set(slides)
        wanted = (fresh or slides or [None])[-1]
        if fresh or self.slide not in slides:
            self._choose(wanted)
        self.slide_changed.emit()
        for slide in fresh:
            self.tissue.take_up(slide)


_sessions: WeakValueDictionary[int, Session] = WeakValueDictionary()


def session_of(viewer: ViewerModel) -> Session:
    """Return the session of a viewer; all its widgets share one."""
    # Widgets are given a proxy that hands out a new wrapper at each access.
    viewer = getattr(viewer, "__wrapped__", viewer)
    session = _sessions.get(id(viewer))
    # An old viewer's number may have been given to a new one.
    if session is None or session.viewer is not viewer:
        session = _sessions[id(viewer)] = Session(viewer)
    return session
