"""What is open in one viewer: the slide, its features and the present query."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal
from weakref import WeakKeyDictionary, WeakValueDictionary

from psygnal import Signal

from napari_mcm.core.grid import GridConfig
from napari_mcm.viewer.background import Background
from napari_mcm.viewer.clicks import ClickListener
from napari_mcm.viewer.jobs import JobRunner
from napari_mcm.viewer.layers import LayerBoard
from napari_mcm.viewer.remembered import remember_mpp
from napari_mcm.viewer.slide_facts import SlideFacts, slide_of
from napari_mcm.viewer.tissue import TissueDesk

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_mcm.core.heatmaps import Heatmap
    from napari_mcm.core.jobs import Job
    from napari_mcm.viewer.tasks import Loaded

SLOTS = ("first", "second")
"""Places for encoders that are compared; the same query is asked of each."""

Limits = Literal["encoder", "map", "fixed"]
"""Colours run over the encoder's usual range, over each map's own, or from -1 to 1."""


@dataclass(frozen=True)
class Query:
    """A point that was asked for, and what each slot answered.

    Attributes
    ----------
    xy : tuple of float
        Level-0 pixels.
    um : tuple of float or None
        The same in microns, where the slide's resolution is known.
    maps : mapping
        Slot to heatmap; None where the slot has no features at that point.
    """

    xy: tuple[float, float]
    um: tuple[float, float] | None
    maps: Mapping[str, Heatmap | None]


class Session:
    """Slide ↔ features ↔ layers of one viewer, shared by the widgets docked in it.

    Widgets call :meth:`enter` when they are docked and :meth:`leave` when they are
    closed; the last one to leave stops the job and the listening to clicks.

    Attributes
    ----------
    slide_changed, features_changed, query_changed, missed : Signal
        Another slide, or more known of it; a slot has other features; maps show
        another query; a click met no patch.
    patches_changed, complained : Signal
        Patches are to be laid in another way; one line about what went wrong.
    """

    slide_changed = Signal()
    features_changed = Signal(str)
    query_changed = Signal()
    missed = Signal()
    patches_changed = Signal()
    complained = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer
        self.jobs = JobRunner()
        self.layers = LayerBoard(viewer)
        self.disk = Background()
        self.tissue = TissueDesk(viewer, self.disk, self.complain)
        self.patches = GridConfig()
        self.problem = ""
        self.slide: Layer | None = None
        self.query: Query | None = None
        self.limits: Limits = "encoder"
        self._clicks = ClickListener(viewer, lambda: self.slide, self.ask)
        self._loaded: WeakKeyDictionary[Layer, dict[str, Loaded]] = WeakKeyDictionary()
        self._users: set[int] = set()
        self._seen: set[Layer] = set()
        self.layers.slides_changed.connect(self._slides_changed)
        self._slides_changed()

    def enter(self, user: int) -> None:
        """Count a widget in, by its ``id``."""
        self._users.add(user)
        self._clicks.attach()

    def leave(self, user: int) -> None:
        """Count a widget out."""
        self._users.discard(user)
        if not self._users:
            self._clicks.detach()
            self.jobs.close()
            self.tissue.flush()

    @property
    def facts(self) -> SlideFacts | None:
        """What is known of the present slide."""
        return None if self.slide is None else SlideFacts.of_layer(self.slide)

    def choose_slide(self, slide: Layer | None) -> None:
        """Make a slide layer the one that is worked on."""
        if slide is not self.slide:
            self.slide, self.query = slide, None
            self.slide_changed.emit()

    def state_mpp(self, mpp: float) -> None:
        """Give the present slide the resolution that the user knows."""
        if (slide := self.slide) is None or (opened := slide_of(slide)) is None:
            return
        self.disk.submit(
            "mpp",
            lambda: remember_mpp(opened.fingerprint, mpp),
            lambda _: None,
            self.complain,
        )
        self.layers.state_mpp(slide, mpp)
        self.tissue.place(slide)
        self.tissue.take_up(slide)

    def use_patches(self, patches: GridConfig) -> None:
        """Choose how patches are laid."""
        if patches != self.patches:
            self.patches = patches
            self.patches_changed.emit()

    def complain(self, problem: str) -> None:
        """Have the widgets say what went wrong."""
        self.problem = problem
        self.complained.emit()

    def open(self, path: str, ended: Callable[[], None]) -> None:
        """Open a slide in the background, as a new layer.

        Parameters
        ----------
        path : str
            The file or folder.
        ended : callable
            Called when that failed, after the reason was told.
        """
        from napari_mcm.viewer.reader import read_slide

        def failed(problem: str) -> None:
            self.complain(problem)
            ended()

        self.disk.submit(
            f"open {path}", lambda: read_slide(path), self.layers.add_slide, failed
        )

    def features(self, slot: str) -> Loaded | None:
        """Give the features of a slot for the present slide."""
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
        self.take_features(slide, slot, loaded)
        self.jobs.status.message = f"{loaded.describe()}, in {loaded.path}"

    def take_features(self, slide: Layer, slot: str, loaded: Loaded) -> None:
        """Put features in a slot; the present query is asked of them at once."""
        self._loaded.setdefault(slide, {})[slot] = loaded
        if slide is self.slide:
            self.features_changed.emit(slot)
            if self.query is not None:
                self.ask(*self.query.xy)
                self.layers.show_only(slide, slot)

    def use_limits(self, limits: Limits) -> None:
        """Choose what the colours run over."""
        self.limits = limits
        if self.query is not None:
            self.ask(*self.query.xy)

    def ask(self, x: float, y: float) -> None:
        """Show how like the patch at a point all others are, in every slot.

        Parameters
        ----------
        x, y : float
            Level-0 pixels from the slide's upper left corner.
        """
        slide, facts = self.slide, self.facts
        if slide is None or facts is None:
            return
        asked = {slot: self.features(slot) for slot in SLOTS}
        maps = {
            slot: _answer(loaded, x, y, self.limits)
            for slot, loaded in asked.items()
            if loaded is not None
        }
        if not any(maps.values()):
            self.missed.emit()
            return
        for slot, heatmap in maps.items():
            self._draw(slide, slot, heatmap)
        um = (x * facts.mpp[0], y * facts.mpp[1]) if facts.mpp else None
        self.query = Query((x, y), um, maps)
        self.query_changed.emit()

    def _draw(self, slide: Layer, slot: str, heatmap: Heatmap | None) -> None:
        loaded = self.features(slot)
        if heatmap is None or heatmap.query is None or loaded is None:
            # An old map beside a new query would be taken for its answer.
            self.layers.empty_map(slide, slot)
            return
        self.layers.show_map(slide, slot, f"similarity: {loaded.label}", heatmap)
        self.layers.mark(slide, heatmap.grid, heatmap.query)

    def _slides_changed(self) -> None:
        """Follow the layer list: a slide that was just opened is the one meant."""
        slides = self.layers.slides()
        fresh = [slide for slide in slides if slide not in self._seen]
        self._seen = set(slides)
        wanted = (fresh or slides or [None])[-1]
        if fresh or self.slide not in slides:
            self.slide, self.query = wanted, None
        self.slide_changed.emit()
        for slide in fresh:
            self.tissue.take_up(slide)


def _answer(loaded: Loaded, x: float, y: float, limits: Limits) -> Heatmap | None:
    from napari_mcm.core.heatmaps import similarity

    index = loaded.index
    patch = index.features.grid.index_at(x, y)
    if patch is None or not index.valid[patch]:
        return None
    heatmap = similarity(index, patch, limits="robust" if limits == "map" else "fixed")
    ends = loaded.limits if limits == "encoder" else heatmap.limits
    return replace(heatmap, limits=_rounded(*ends))


def _rounded(low: float, high: float) -> tuple[float, float]:
    """Widen limits to round numbers, which can be read off a colour bar."""
    step = 20 if high - low > 0.25 else 100
    low, high = math.floor(low * step) / step, math.ceil(high * step) / step
    return max(low, -1.0), min(high, 1.0)


_sessions: WeakValueDictionary[int, Session] = WeakValueDictionary()


def session_of(viewer: ViewerModel) -> Session:
    """Give the session of a viewer; all its widgets share one."""
    # Widgets are given a proxy that hands out a new wrapper at each access.
    viewer = getattr(viewer, "__wrapped__", viewer)
    session = _sessions.get(id(viewer))
    # An old viewer's number may have been given to a new one.
    if session is None or session.viewer is not viewer:
        session = _sessions[id(viewer)] = Session(viewer)
    return session
