"""What a run makes of a slide: predicted, drawn over it, and its top patches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_mcm.core.mil.cohort import slide_key
from napari_mcm.viewer.app.settings import preferences
from napari_mcm.viewer.layers.metadata import SlideFacts, slide_of
from napari_mcm.viewer.layers.thumbnails import TopPatch, go_to
from napari_mcm.viewer.mil.controller import find_slide
from napari_mcm.viewer.mil.prediction import LookRequest, SlideLook, look, top_patches

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.core.heatmaps import Heatmap
    from napari_mcm.core.mil.attention_maps import Scaling
    from napari_mcm.viewer.mil.controller import MilDesk

SLOT = "attention"
TOP = 16
_SCALED: dict[Scaling, str] = {"rank": "rank", "minmax": "min-max", "raw": "raw"}


@dataclass(frozen=True, eq=False)
class Shown:
    """Attention as it is drawn now."""

    layer: Layer
    look: SlideLook
    number: int
    heatmap: Heatmap
    effective: float


class AttentionDesk:
    """Asks the run of a :class:`MilDesk` about slides, and draws what it says.

    Parameters
    ----------
    desk : MilDesk
        Which has the run, and the folders of features and slides.

    Attributes
    ----------
    shown_changed, tops_changed : Signal
        Other attention is drawn, or none; its top patches were read.
    """

    shown_changed = Signal()
    tops_changed = Signal()

    def __init__(self, desk: MilDesk) -> None:
        self._desk, self.session = desk, desk.session
        self.shown: Shown | None = None
        self.tops: list[TopPatch] = []
        self.scaling: Scaling = "rank"
        self._awaited: str | None = None
        self.session.slide_changed.connect(self._slide_changed)

    def open_slide(self, name: str) -> None:
        """Show a slide of the run with its attention; it is opened if it is not yet."""
        if self._desk.run is None or self._desk.is_busy():
            return
        layer = self._layer_of(name)
        if layer is not None:
            self.session.choose_slide(layer)
            self._look(layer, name)
            return
        known, folder = self._desk.run.slides.get(name), self._desk.slides
        self._awaited = name
        self.session.disk.submit(
            "mil slide",
            lambda: find_slide(name, known, folder),
            self._open,
            self._forget,
        )

    def predict(self) -> None:
        """Ask the run about the slide that is worked on."""
        slide, facts = self.session.slide, self.session.facts
        if self._desk.run is None:
            self.session.complain("Choose a trained run first")
        elif slide is not None and facts is not None and not self._desk.is_busy():
            self._look(slide, slide_key(facts.name))

    def use_scaling(self, scaling: Scaling) -> None:
        """Draw the attention with other colours."""
        self.scaling = scaling
        if self.shown is not None:
            self._draw(self.shown.layer, self.shown.look, self.shown.number)

    def use_class(self, number: int) -> None:
        """Draw the attention to another class."""
        if self.shown is not None:
            self._draw(self.shown.layer, self.shown.look, number)

    def go_to(self, patch: TopPatch) -> None:
        """Have the viewer look at a patch, and frame it."""
        if self.shown is None:
            return
        shown = self.shown
        go_to(self.session.layers, shown.layer, shown.look.features.grid, patch.row)

    def _layer_of(self, name: str) -> Layer | None:
        for layer in reversed(self.session.layers.slides()):
            facts = SlideFacts.of_layer(layer)
            if facts and name in (slide_key(facts.name), slide_key(facts.path)):
                return layer
        return None

    def _open(self, path: Path) -> None:
        self.session.open(str(path), lambda: self._forget(""))

    def _forget(self, problem: str) -> None:
        self._awaited = None
        if problem:
            self.session.complain(problem)

    def _slide_changed(self) -> None:
        if self._awaited and (layer := self._layer_of(self._awaited)) is not None:
            name, self._awaited = self._awaited, None
            if not self.session.jobs.status.busy:
                self._look(layer, name)
        shown = self.shown
        if shown is not None and shown.layer is not self.session.slide:
            self.shown, self.tops = None, []
            self.shown_changed.emit()

    def _look(self, slide: Layer, name: str) -> None:
        facts, run = SlideFacts.of_layer(slide), self._desk.run
        assert facts is not None and run is not None
        folders = tuple(
            dict.fromkeys(f for f in (self._desk.features, run.features) if f)
        )
        request = LookRequest(
            run.path,
            name,
            Path(facts.path),
            facts.mpp_override,
            folders,
            preferences().compute,
        )
        self.session.jobs.start(
            f"Attention on {name}",
            lambda: look(request),
            lambda found: self._looked(slide, found),
        )

    def _looked(self, slide: Layer, found: SlideLook) -> None:
        if slide in self.session.layers.slides():
            self.session.choose_slide(slide)
            self._draw(slide, found, found.winner)

    def _draw(self, slide: Layer, found: SlideLook, number: int) -> None:
        scaling = self.scaling

        def drawn(made: tuple[Heatmap, float]) -> None:
            self._show(Shown(slide, found, number, *made))

        self.session.disk.submit(
            "mil map",
            lambda: (found.heatmap(scaling, number), found.effective(number)),
            drawn,
            self.session.complain,
        )

    def _show(self, shown: Shown) -> None:
        slide, layers = shown.layer, self.session.layers
        if slide not in layers.slides() or slide is not self.session.slide:
            return
        layers.bring_up(slide)
        # Its scaling must be told wherever the map is seen.
        name = f"{shown.look.name(shown.number)} ({_SCALED[self.scaling]})"
        layer = layers.show_map(slide, SLOT, name, shown.heatmap)
        layer.name = name
        layers.show_only(slide, SLOT)
        before, self.shown = self.shown, shown
        if before is None or (before.look, before.number) != (shown.look, shown.number):
            self.tops = []
            self._read_tops(shown)
        self.shown_changed.emit()

    def _read_tops(self, shown: Shown) -> None:
        opened = slide_of(shown.layer)
        if opened is None:
            return

        def arrived(tops: list[TopPatch]) -> None:
            if self.shown is not None and self.shown.look is shown.look:
                self.tops = tops
                self.tops_changed.emit()

        self.session.disk.submit(
            "mil tops",
            partial(top_patches, shown.look, shown.number, TOP, opened),
            arrived,
            self.session.complain,
        )
