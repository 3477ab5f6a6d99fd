"""What a run makes of a slide: predicted, drawn over it, and its top patches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_mcm.core.mil.cohort import slide_key
from napari_mcm.viewer.app.settings import preferences
from napari_mcm.viewer.layers.metadata import SlideMetadata, slide_of
from napari_mcm.viewer.layers.thumbnails import TopPatch, go_to
from napari_mcm.viewer.mil.controller import find_slide
from napari_mcm.viewer.mil.prediction import (
    PredictionRequest,
    SlidePrediction,
    predict_slide,
    top_patches,
)

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.core.heatmaps import Heatmap
    from napari_mcm.core.mil.attention_maps import Scaling
    from napari_mcm.viewer.mil.controller import MilController

SLOT = "attention"
TOP = 16
_SCALED: dict[Scaling, str] = {"rank": "rank", "minmax": "min-max", "raw": "raw"}


@dataclass(frozen=True, eq=False)
class ShownAttention:
    """Attention as it is drawn now."""

    layer: Layer
    prediction: SlidePrediction
    number: int
    heatmap: Heatmap
    effective: float


class AttentionController:
    """Asks the run of a :class:`MilController` about slides, and draws what it says.

    Parameters
    ----------
    controller : MilController
        Which has the run, and the folders of features and slides.

    Attributes
    ----------
    shown_changed, tops_changed : Signal
        Other attention is drawn, or none; its top patches were read.
    """

    shown_changed = Signal()
    tops_changed = Signal()

    def __init__(self, controller: MilController) -> None:
        self._controller, self.session = controller, controller.session
        self.shown: ShownAttention | None = None
        self.tops: list[TopPatch] = []
        self.scaling: Scaling = "rank"
        self._awaited: str | None = None
        self.session.slide_changed.connect(self._slide_changed)

    def open_slide(self, name: str) -> None:
        """Show a slide of the run with its attention; it is opened if it is not yet."""
        if self._controller.run is None or self._controller.is_busy():
            return
        layer = self._layer_of(name)
        if layer is not None:
            self.session.choose_slide(layer)
            self._look(layer, name)
            return
        known, folder = self._controller.run.slides.get(name), self._controller.slides
        self._awaited = name
        self.session.disk.submit(
            "mil slide",
            lambda: find_slide(name, known, folder),
            self._open,
            self._forget,
        )

    def predict(self) -> None:
        """Ask the run about the slide that is worked on."""
        slide, metadata = self.session.slide, self.session.metadata
        if self._controller.run is None:
            self.session.report_error("Choose a trained run first")
        elif (
            slide is not None
            and metadata is not None
            and not self._controller.is_busy()
        ):
            self._look(slide, slide_key(metadata.name))

    def use_scaling(self, scaling: Scaling) -> None:
        """Draw the attention with other colours."""
        self.scaling = scaling
        if self.shown is not None:
            self._draw(self.shown.layer, self.shown.prediction, self.shown.number)

    def use_class(self, number: int) -> None:
        """Draw the attention to another class."""
        if self.shown is not None:
            self._draw(self.shown.layer, self.shown.prediction, number)

    def go_to(self, patch: TopPatch) -> None:
        """Have the viewer look at a patch, and frame it."""
        if self.shown is None:
            return
        shown = self.shown
        go_to(
            self.session.layers, shown.layer, shown.prediction.features.grid, patch.row
        )

    def _layer_of(self, name: str) -> Layer | None:
        for layer in reversed(self.session.layers.slides()):
            metadata = SlideMetadata.of_layer(layer)
            if metadata and name in (
                slide_key(metadata.name),
                slide_key(metadata.path),
            ):
                return layer
        return None

    def _open(self, path: Path) -> None:
        self.session.open(str(path), lambda: self._forget(""))

    def _forget(self, problem: str) -> None:
        self._awaited = None
        if problem:
            self.session.report_error(problem)

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
        metadata, run = SlideMetadata.of_layer(slide), self._controller.run
        assert metadata is not None and run is not None
        folders = tuple(
            dict.fromkeys(f for f in (self._controller.features, run.features) if f)
        )
        request = PredictionRequest(
            run.path,
            name,
            Path(metadata.path),
            metadata.mpp_override,
            folders,
            preferences().compute,
        )
        self.session.jobs.start(
            f"Attention on {name}",
            lambda: predict_slide(request),
            lambda found: self._looked(slide, found),
        )

    def _looked(self, slide: Layer, found: SlidePrediction) -> None:
        if slide in self.session.layers.slides():
            self.session.choose_slide(slide)
            self._draw(slide, found, found.winner)

    def _draw(self, slide: Layer, found: SlidePrediction, number: int) -> None:
        scaling = self.scaling

        def drawn(made: tuple[Heatmap, float]) -> None:
            self._show(ShownAttention(slide, found, number, *made))

        self.session.disk.submit(
            "mil map",
            lambda: (found.heatmap(scaling, number), found.effective(number)),
            drawn,
            self.session.report_error,
        )

    def _show(self, shown: ShownAttention) -> None:
        slide, layers = shown.layer, self.session.layers
        if slide not in layers.slides() or slide is not self.session.slide:
            return
        layers.bring_up(slide)
        # Its scaling must be told wherever the map is seen.
        name = f"{shown.prediction.name(shown.number)} ({_SCALED[self.scaling]})"
        layer = layers.show_map(slide, SLOT, name, shown.heatmap)
        layer.name = name
        layers.show_only(slide, SLOT)
        before, self.shown = self.shown, shown
        if before is None or (before.prediction, before.number) != (
            shown.prediction,
            shown.number,
        ):
            self.tops = []
            self._read_tops(shown)
        self.shown_changed.emit()

    def _read_tops(self, shown: ShownAttention) -> None:
        opened = slide_of(shown.layer)
        if opened is None:
            return

        def arrived(tops: list[TopPatch]) -> None:
            if self.shown is not None and self.shown.prediction is shown.prediction:
                self.tops = tops
                self.tops_changed.emit()

        self.session.disk.submit(
            "mil tops",
            partial(top_patches, shown.prediction, shown.number, TOP, opened),
            arrived,
            self.session.report_error,
        )
