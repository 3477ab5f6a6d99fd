"""Registers two open slides, links their views, and shows how far off they are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary, ref

from psygnal import Signal

from napari_mcm.core.errors import RegistrationError
from napari_mcm.viewer.app.background import BackgroundWorker
from napari_mcm.viewer.app.imports import import_modules
from napari_mcm.viewer.app.jobs import JobState
from napari_mcm.viewer.app.registrations import KnownRegistration
from napari_mcm.viewer.layers.linked import LinkedSections
from napari_mcm.viewer.layers.metadata import SlideMetadata, slide_of
from napari_mcm.viewer.layers.outlines import OutlineLayers

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.core.registration import Registration, SectionMap
    from napari_mcm.core.runtime.jobs import Job
    from napari_mcm.core.slides import Slide
    from napari_mcm.core.tissue import TissueMask
    from napari_mcm.viewer.app.session import Session

EDGE_COLOURS = ((0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.75), (0.2, 0.9, 1.0, 1.0))
"""RGBA of nothing, casing and line of the edges of another section's tissue."""

NEEDS = ("skimage.feature", "napari_mcm.core.registration.register")
"""Modules of a registration."""

Pair = frozenset[str]


class _Made(NamedTuple):
    registration: Registration
    mapping: SectionMap


class SectionsController:
    """The registration of the current slide and one other.

    Parameters
    ----------
    session : Session
        Session of the viewer.

    Attributes
    ----------
    changed : Signal
        Emitted when the slides, their registration or what is shown of it changed.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        self.session = session
        self._other: ref[Layer] | None = None
        self._before: ref[Layer] | None = None
        self._refused: dict[Pair, str] = {}
        self._running: tuple[Layer, Layer] | None = None
        self._refusal = ""
        self._tissues: WeakKeyDictionary[Layer, TissueMask] = WeakKeyDictionary()
        self._edges = OutlineLayers(session.layers, "neighbour's edges", EDGE_COLOURS)
        self.shows_edges, self._had_side_by_side = False, False
        self.worker = BackgroundWorker("sections")
        session.slide_changed.connect(self._slide_changed)
        session.registrations.changed.connect(self._registered)
        session.side_by_side_changed.connect(self.changed.emit)
        session.jobs.status.events.state.connect(self._job_changed)
        session.left.connect(self._left)
        self._slide_changed()

    @property
    def current(self) -> Layer | None:
        """The slide that is worked on: what is carried over comes from it."""
        return self.session.slide

    @property
    def other(self) -> Layer | None:
        """The other slide; None while only one is open."""
        chosen, others = _alive(self._other), self.others()
        return chosen if chosen in others else (others or [None])[0]

    def others(self) -> list[Layer]:
        """Return the open slides but the current one."""
        slides = self.session.layers.slides()
        return [slide for slide in slides if slide is not self.current]

    def choose_other(self, slide: Layer) -> None:
        """Choose the other slide."""
        self._other = ref(slide)
        self._look()

    @property
    def known(self) -> KnownRegistration | None:
        """The registration of both slides; None without one."""
        return self.session.registrations.of(self.current, self.other)

    @property
    def refused(self) -> str:
        """Why both slides do not register, in one line; empty if that is not known."""
        return self._refused.get(self._pair(), "")

    def missing(self) -> str:
        """Return why the slides cannot be registered now; empty if they can."""
        if self.current is None:
            return "no slide is open"
        if self.other is None:
            return "open another section of the block"
        for layer in (self.current, self.other):
            metadata = SlideMetadata.of_layer(layer)
            if metadata is None or metadata.mpp is None:
                return f"the resolution of {layer.name} is unknown: enter it"
        return ""

    def register(self) -> None:
        """Register the current slide to the other one, as a job."""
        one, other = self.current, self.other
        slides = slide_of(one), slide_of(other)
        jobs = self.session.jobs
        if one is None or other is None or self.missing() or jobs.status.busy:
            return
        if slides[0] is None or slides[1] is None:
            return
        self._refused.pop(self._pair(), None)
        self._running, self._refusal = (one, other), ""
        masks = self._mask_of(one), self._mask_of(other)
        jobs.start(
            f"Registering {one.name} and {other.name}",
            partial(_register, slides[0], slides[1], masks, self._note_refusal),
            partial(self._arrived, one, other),
        )

    def load(self, path: Path) -> None:
        """Use a registration file of both slides."""
        if self.current is not None and self.other is not None:
            self.session.registrations.load(self.current, self.other, path)

    def save(self, path: Path) -> None:
        """Write a copy of the registration to a file."""
        if self.current is not None and self.other is not None:
            self.session.registrations.save(self.current, self.other, path)

    @property
    def is_linked(self) -> bool:
        """Whether the views of both slides move together."""
        link = self.session.layers.view.link
        both = {self.current, self.other}
        return link is not None and set(link.pair) == both and self.session.side_by_side

    def link(self, on: bool) -> None:
        """Let the views of both slides move together, each in a half of the canvas."""
        session, view = self.session, self.session.layers.view
        one, other = self.current, self.other
        mapping = session.registrations.map(one, other)
        if on and one is not None and other is not None and mapping is not None:
            self._had_side_by_side = session.side_by_side
            view.use_link(LinkedSections(session.layers, one, other, mapping))
            session.show_side_by_side(True)
        elif view.link is not None:
            view.use_link(None)
            session.show_side_by_side(self._had_side_by_side)
        self.changed.emit()

    def show_edges(self, on: bool) -> None:
        """Draw the edges of each section's tissue on the other one, or hide them."""
        self.shows_edges = on
        self._draw_edges()
        self.changed.emit()

    def with_tissue(
        self, slides: tuple[Layer, ...], then: Callable[[list[TissueMask]], None]
    ) -> None:
        """Call a function with the tissue of slides, which is found first if needed.

        Parameters
        ----------
        slides : tuple of Layer
            Layers of slides.
        then : callable
            Called in the viewer's thread with their masks.
        """
        known = [self._mask_of(slide) for slide in slides]
        opened = [slide_of(slide) for slide in slides]

        def find() -> list[TissueMask]:
            from napari_mcm.core.tissue import find_tissue

            return [
                mask or find_tissue(slide)
                for mask, slide in zip(known, opened, strict=True)
                if slide is not None
            ]

        def found(masks: list[TissueMask]) -> None:
            for layer, mask in zip(slides, masks, strict=False):
                if layer in self.session.layers:
                    self._tissues[layer] = mask
            then(masks)

        self.worker.submit(f"tissue {id(then)}", find, found, self.session.report_error)

    def _mask_of(self, slide: Layer) -> TissueMask | None:
        """Return the mask that is shown on a slide, or else one that was found here."""
        shown = self.session.tissue.mask_of(slide)
        return shown.mask if shown is not None else self._tissues.get(slide)

    def _pair(self) -> Pair:
        both = (self.current, self.other)
        return frozenset(str(one.unique_id) for one in both if one is not None)

    def _slide_changed(self) -> None:
        """Keep the pair if its other slide was chosen; else the slide before is the other."""
        current, before, other = self.current, _alive(self._before), _alive(self._other)
        if current is not before:
            if current is other and before is not None:
                self._other = ref(before)
            self._before = None if current is None else ref(current)
        self._look()

    def _look(self) -> None:
        """Look for a stored registration of both slides."""
        if self.other is not None:
            self._other = ref(self.other)
        self._find()
        self._draw_edges()
        self.changed.emit()

    def _find(self) -> None:
        if self.current is not None and self.other is not None:
            self.session.registrations.find(self.current, self.other)

    def _arrived(self, one: Layer, other: Layer, made: _Made) -> None:
        session = self.session
        if one not in session.layers or other not in session.layers:
            return
        session.registrations.add(one, other, *made)
        session.jobs.status.message = (
            f"{one.name} and {other.name} are registered: "
            f"{made.registration.residual.describe()}"
        )

    def _registered(self) -> None:
        """Link the views by a new registration, if they were linked by an earlier one."""
        link = self.session.layers.view.link
        if link is not None:
            mapping = self.session.registrations.map(*link.pair)
            if mapping is None:
                self.session.layers.view.use_link(None)
            elif mapping is not link.mapping:
                made = LinkedSections(self.session.layers, *link.pair, mapping)
                self.session.layers.view.use_link(made)
        self._find()
        self._draw_edges()
        self.changed.emit()

    def _note_refusal(self, reason: str) -> None:
        # Called in the job's thread; taken over when the job has ended.
        self._refusal = reason

    def _job_changed(self) -> None:
        running, state = self._running, self.session.jobs.status.state
        if running is None or self.session.jobs.status.busy:
            return
        self._running = None
        if state is JobState.FAILED and self._refusal:
            one, other = running
            pair = frozenset((str(one.unique_id), str(other.unique_id)))
            self._refused[pair] = f"{one.name} {self._refusal}"
            # An earlier map of these slides would contradict what is said now.
            self.session.registrations.forget(one, other)
        self.changed.emit()

    def _left(self) -> None:
        """Give the whole canvas back when the last dock is closed."""
        if self.is_linked and not self.session.is_closing:
            self.link(False)

    def _draw_edges(self) -> None:
        """Draw the edges of each section on the other, of the pair that is chosen."""
        one, other, known = self.current, self.other, self.known
        pair = {one, other} if self.shows_edges and known is not None else set()
        for slide in self.session.layers.slides():
            if slide not in pair:
                self._edges.hide(slide)
        if known is None or one is None or other is None or not pair:
            return
        maps = known.maps[str(one.unique_id)], known.maps[str(other.unique_id)]

        def carry(masks: list[TissueMask]) -> None:
            self.worker.submit("edges", partial(_carried, maps, masks), draw, report)

        def draw(carried: tuple[TissueMask, TissueMask]) -> None:
            if self.shows_edges and self.known is known:
                for slide, mask in zip((other, one), carried, strict=True):
                    if slide in self.session.layers:
                        step = mask.downsample
                        self._edges.draw(slide, mask.mask, (0.0, 0.0), step)

        report = self.session.report_error
        self.with_tissue((one, other), carry)


def _alive(reference: ref[Layer] | None) -> Layer | None:
    return None if reference is None else reference()


def _register(
    one: Slide,
    other: Slide,
    masks: tuple[TissueMask | None, TissueMask | None],
    note_refusal: Callable[[str], None],
) -> Job[_Made]:
    """Register two slides; what is refused is noted, and fails like any other job."""
    # Here and not at once: SciPy takes a second to import.
    yield from import_modules(NEEDS, "Starting")
    from napari_mcm.core.registration import register_sections, section_map

    try:
        made = yield from register_sections(one, other, masks=masks)
    except RegistrationError as error:
        note_refusal(error.what)
        raise
    return _Made(made, section_map(made, one, other))


def _carried(
    maps: tuple[SectionMap, SectionMap], masks: list[TissueMask]
) -> tuple[TissueMask, TissueMask]:
    from napari_mcm.core.registration.carry import carry_mask

    return carry_mask(maps[0], masks[0]), carry_mask(maps[1], masks[1])


def sections_of(session: Session) -> SectionsController:
    """Return the controller of a session, and create it on first use."""
    return session.part(SectionsController)
