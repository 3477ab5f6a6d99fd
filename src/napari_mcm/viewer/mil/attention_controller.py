"""Predict slides with a trained run, and draw the attention on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.mil.cohort import slide_key
from napari_mcm.viewer.app.settings import preferences
from napari_mcm.viewer.layers.metadata import SlideMetadata, slide_of
from napari_mcm.viewer.layers.thumbnails import TopPatch, go_to
from napari_mcm.viewer.mil.prediction import (
    PredictionRequest,
    predict_slide,
    top_patches,
)
from napari_mcm.viewer.training.controller import report_busy

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.core.heatmaps import Heatmap
    from napari_mcm.core.mil.attention_maps import Scaling
    from napari_mcm.core.mil.slide_prediction import SlidePrediction
    from napari_mcm.viewer.app.session import Session
    from napari_mcm.viewer.mil.run import MilRun

SLOT = "attention"
TOP = 16
_SCALED: dict[Scaling, str] = {"rank": "rank", "minmax": "min-max", "raw": "raw"}


@dataclass(frozen=True, eq=False)
class ShownAttention:
    """Hold the attention that is drawn now, and what it was computed from."""

    layer: Layer
    request: PredictionRequest
    prediction: SlidePrediction
    number: int
    heatmap: Heatmap
    effective: float


class AttentionController:
    """Predict slides with a run, and draw the attention on them.

    Parameters
    ----------
    session : Session
        Session of the viewer.

    Attributes
    ----------
    shown_changed, tops_changed : Signal
        Other attention is drawn, or none; its top patches were read.
    run : MilRun or None
        The run that predicts.
    features, slides : Path or None
        Folders of feature files and of slides.
    shown : ShownAttention or None
        The attention that is drawn.
    tops : list of TopPatch
        The patches with the greatest attention, best first.
    """

    shown_changed = Signal()
    tops_changed = Signal()

    def __init__(self, session: Session) -> None:
        self.session = session
        self.run: MilRun | None = None
        self.features: Path | None = None
        self.slides: Path | None = None
        self.shown: ShownAttention | None = None
        self.tops: list[TopPatch] = []
        self.scaling: Scaling = "rank"
        self._awaited: str | None = None
        self.session.slide_changed.connect(self._slide_changed)

    def use_run(self, run: MilRun) -> None:
        """Predict with this run, on the features that it was trained on."""
        self.run = run
        if run.features is not None:
            self.features = run.features

    def open_slide(self, name: str) -> None:
        """Show a slide of the run with its attention, and open it where needed."""
        if self.run is None or report_busy(self.session):
            return
        layer = self._layer_of(name)
        if layer is not None:
            self.session.choose_slide(layer)
            self._predict(layer, name)
            return
        known, folder = self.run.slides.get(name), self.slides
        self._awaited = name
        self.session.disk.submit(
            "mil slide",
            lambda: find_slide(name, known, folder),
            self._open,
            self._forget,
        )

    def predict(self) -> None:
        """Predict the open slide."""
        slide, metadata = self.session.slide, self.session.metadata
        if self.run is None:
            self.session.report_error("Choose a trained run first")
        elif slide and metadata and not report_busy(self.session):
            self._predict(slide, slide_key(metadata.name))

    def use_scaling(self, scaling: Scaling) -> None:
        """Draw the attention with another scaling."""
        self.scaling = scaling
        if (shown := self.shown) is not None:
            self._draw(shown.layer, shown.request, shown.prediction, shown.number)

    def use_class(self, number: int) -> None:
        """Draw the attention to another class."""
        if (shown := self.shown) is not None:
            self._draw(shown.layer, shown.request, shown.prediction, number)

    def go_to(self, patch: TopPatch) -> None:
        """Center the view on a patch, and frame it."""
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
                self._predict(layer, name)
        shown = self.shown
        if shown is not None and shown.layer is not self.session.slide:
            self.shown, self.tops = None, []
            self.shown_changed.emit()

    def _predict(self, slide: Layer, name: str) -> None:
        metadata, run = SlideMetadata.of_layer(slide), self.run
        assert metadata is not None and run is not None
        folders = tuple(dict.fromkeys(f for f in (self.features, run.features) if f))
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
            lambda found: self._predicted(slide, request, found),
        )

    def _predicted(
        self, slide: Layer, request: PredictionRequest, found: SlidePrediction
    ) -> None:
        if slide in self.session.layers.slides():
            self.session.choose_slide(slide)
            self._draw(slide, request, found, found.winner)

    def _draw(
        self,
        slide: Layer,
        request: PredictionRequest,
        found: SlidePrediction,
        number: int,
    ) -> None:
        scaling = self.scaling

        def drawn(made: tuple[Heatmap, float]) -> None:
            self._show(ShownAttention(slide, request, found, number, *made))

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
        # The name of the layer must state the scaling.
        name = f"{shown.prediction.title(shown.number)} ({_SCALED[self.scaling]})"
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


def find_slide(name: str, known: Path | None, folder: Path | None) -> Path:
    """Find the file of a slide: in the cohort's table, or by name in a folder.

    Parameters
    ----------
    name : str
        Name of the slide.
    known : Path or None
        File that the cohort's table names.
    folder : Path or None
        Folder of slides; it and the folders in it are searched.

    Returns
    -------
    Path

    Raises
    ------
    ConfigError
        If there is none.
    """
    if known is not None and known.exists():
        return known
    if folder is None:
        raise ConfigError(f"where is slide {name}? Choose the folder of slides below")
    outer = _listed(folder)
    inner = [file for place in outer if place.is_dir() for file in _listed(place)]
    found = [file for file in (*outer, *inner) if slide_key(file.name) == name]
    if not found:
        hint = "Choose another folder"
        raise ConfigError(f"holds no slide called {name}", folder, hint)
    # A folder of that name may be a slide (DICOM), or hold the slide's file.
    return min(found, key=Path.is_dir)


def _listed(folder: Path) -> Sequence[Path]:
    try:
        return sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    except OSError:
        return []
