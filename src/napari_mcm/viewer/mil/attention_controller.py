"""Predict slides with a trained run, and draw the attention on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_mcm.core.errors import ConfigError, SlideError
from napari_mcm.core.mil.cohort import slide_key
from napari_mcm.viewer.app.settings import preferences
from napari_mcm.viewer.layers.metadata import SlideMetadata, layer_with, slide_of
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
        self._awaited: tuple[str, Path] | None = None
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
        known, folder = self.run.slides.get(name), self.slides
        layers, features = self.session.layers.slides(), self._folders()
        self.session.disk.submit(
            "mil slide",
            lambda: locate_slide(name, layers, features, known, folder),
            partial(self._located, name),
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

    def _folders(self) -> tuple[Path, ...]:
        chosen = (self.features, self.run.features if self.run else None)
        return tuple(dict.fromkeys(folder for folder in chosen if folder))

    def _located(self, name: str, where: Layer | Path) -> None:
        """Predict a slide that is open, or open its file first."""
        if isinstance(where, Path):
            self._awaited = name, where.absolute()
            self.session.open(str(where), lambda: self._forget(""))
        elif where in self.session.layers.slides() and not report_busy(self.session):
            self.session.choose_slide(where)
            self._predict(where, name)

    def _forget(self, problem: str) -> None:
        self._awaited = None
        if problem:
            self.session.report_error(problem)

    def _slide_changed(self) -> None:
        layer, metadata = self.session.slide, self.session.metadata
        if self._awaited and layer and metadata:
            name, path = self._awaited
            if Path(metadata.path) == path:
                self._awaited = None
                if not self.session.jobs.status.busy:
                    self._predict(layer, name)
        shown = self.shown
        if shown is not None and shown.layer is not self.session.slide:
            self.shown, self.tops = None, []
            self.shown_changed.emit()

    def _predict(self, slide: Layer, name: str) -> None:
        metadata, run = SlideMetadata.of_layer(slide), self.run
        assert metadata is not None and run is not None
        request = PredictionRequest(
            run.path,
            name,
            Path(metadata.path),
            metadata.mpp_override,
            self._folders(),
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
        self.session.choose_slide(slide)
        # The name of the layer must state the scaling.
        name = f"{shown.prediction.title(shown.number)} ({_SCALED[self.scaling]})"
        layers.show_map(slide, SLOT, name, shown.heatmap)
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


def locate_slide(
    name: str,
    layers: Sequence[Layer],
    features: Sequence[Path],
    known: Path | None,
    folder: Path | None,
) -> Layer | Path:
    """Find the layer of a run's slide, or its file where it is not open.

    Parameters
    ----------
    name : str
        Name of the slide. Another slide may have the same name: which one is meant, its
        feature file says. Files of other tools do not; then the cohort's table counts,
        and last the name.
    layers : sequence of Layer
        Slides that are open, the uppermost last.
    features : sequence of Path
        Folders of feature files.
    known, folder : Path or None
        As for :func:`find_slide`.

    Returns
    -------
    Layer or Path

    Raises
    ------
    ConfigError
        If the slide is neither open nor found.
    """
    fingerprint = _slide_fingerprint(name, features)
    named = [layer for layer in layers if _has_name(layer, name)]
    if fingerprint:
        # The last one first: of copies, one of that name.
        shown = layer_with(fingerprint, [*layers, *named])
    elif known is not None and known.exists():
        shown = next((layer for layer in layers if _is_of(layer, known)), None)
    else:
        shown = named[-1] if named else None
    return shown or find_slide(name, known, folder, fingerprint)


def _slide_fingerprint(name: str, folders: Sequence[Path]) -> str:
    from napari_mcm.core.features.format import SUFFIX, attributes_of
    from napari_mcm.core.mil.bags import find_files

    for folder in folders:
        file = find_files(folder).get(name) if folder.is_dir() else None
        if file is not None and file.name.endswith(SUFFIX):
            try:
                return str(attributes_of(file)["grid"]["slide"]["fingerprint"])
            except (KeyError, TypeError):
                return ""
    return ""


def _has_name(layer: Layer, name: str) -> bool:
    metadata = SlideMetadata.of_layer(layer)
    return metadata is not None and name in (
        slide_key(metadata.name),
        slide_key(metadata.path),
    )


def _is_of(layer: Layer, file: Path) -> bool:
    metadata = SlideMetadata.of_layer(layer)
    return metadata is not None and Path(metadata.path) == file.absolute()


def find_slide(
    name: str, known: Path | None, folder: Path | None, fingerprint: str = ""
) -> Path:
    """Find the file of a slide: in the cohort's table, or by name in a folder.

    Parameters
    ----------
    name : str
        Name of the slide.
    known : Path or None
        File that the cohort's table names.
    folder : Path or None
        Folder of slides; it and the folders in it are searched.
    fingerprint : str, optional
        The slide's fingerprint. Without it, the first file of that name is taken.

    Returns
    -------
    Path

    Raises
    ------
    ConfigError
        If there is none.
    """
    if known is not None and known.exists() and _is_slide(known, fingerprint):
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
    for file in sorted(found, key=Path.is_dir):
        if _is_slide(file, fingerprint):
            return file
    raise ConfigError(
        f"holds another slide called {name} than the one the features are of",
        folder,
        "Choose the folder of the slides that the features were computed from",
    )


def _is_slide(path: Path, fingerprint: str) -> bool:
    from napari_mcm.core.slides import open_slide

    if not fingerprint:
        return True
    try:
        with open_slide(path) as slide:
            return slide.fingerprint == fingerprint
    except SlideError:
        return False


def _listed(folder: Path) -> Sequence[Path]:
    try:
        return sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    except OSError:
        return []
