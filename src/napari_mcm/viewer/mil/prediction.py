"""Asking a trained run about a slide: its classes, and what it looks at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.encoders.compute import ComputeConfig
from napari_mcm.core.errors import ConfigError, FeatureError
from napari_mcm.core.runtime.jobs import Job, Note, Progress
from napari_mcm.core.runtime.threads import run_in_thread
from napari_mcm.viewer.app.features import _read
from napari_mcm.viewer.app.out_of_memory import LOOKED_AT, explain_out_of_memory
from napari_mcm.viewer.layers.thumbnails import TopPatch, read_thumbnails
from napari_mcm.viewer.training.imports import import_modules

if TYPE_CHECKING:
    from napari_mcm.core.features.feature_set import FeatureSet
    from napari_mcm.core.heatmaps import Heatmap
    from napari_mcm.core.mil.attention_maps import Scaling
    from napari_mcm.core.slides import Slide

_MODULES = (
    "torch",
    "napari_mcm.core.features.interchange",
    "napari_mcm.core.mil.attention_maps",
)


@dataclass(frozen=True)
class PredictionRequest:
    """A slide that a run is asked about.

    Attributes
    ----------
    run : Path
        Finished.
    name : str
        The slide's, as feature files have it.
    slide : Path
        Its pixels.
    mpp : float or None
        What the user stated of its resolution.
    folders : tuple of Path
        Of feature files, the first that has the slide counts.
    compute : ComputeConfig
        Where the models compute.
    """

    run: Path
    name: str
    slide: Path
    mpp: float | None
    folders: tuple[Path, ...]
    compute: ComputeConfig = ComputeConfig()


@dataclass(frozen=True, eq=False)
class SlidePrediction:
    """What a run makes of a slide.

    Attributes
    ----------
    request : PredictionRequest
        What was asked.
    features : FeatureSet
        Of the slide, P patches.
    weights : ndarray of float64, shape (N,) or (C, N)
        Of the patches that have features; rows sum to 1.
    probabilities : ndarray of float64, shape (C,)
        Mean of the models.
    classes : tuple of str
        Names.
    models : int
        How many were averaged.
    shown, caveat : str
        What the weights are; what must be said of them.
    unseen : bool
        Whether none of the models has learned from the slide.
    """

    request: PredictionRequest
    features: FeatureSet
    weights: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    classes: tuple[str, ...]
    models: int
    shown: str
    caveat: str
    unseen: bool

    @property
    def per_class(self) -> bool:
        """Whether each class has weights of its own."""
        return self.weights.ndim == 2

    @property
    def winner(self) -> int:
        """Number of the most probable class."""
        return int(self.probabilities.argmax())

    def weights_of(self, number: int) -> NDArray[np.float64]:
        """Give the weights (N,) of a class."""
        return self.weights[number] if self.per_class else self.weights

    def heatmap(self, scaling: Scaling, number: int) -> Heatmap:
        """Give the map of a class."""
        from napari_mcm.core.mil.attention_maps import attention_map

        weights = self.weights_of(number)
        return attention_map(self.features, weights, scaling, self.name(number))

    def name(self, number: int) -> str:
        """Say what the weights of a class are."""
        if not self.per_class:
            return self.shown
        return f"{self.shown} to {self.classes[number]}"

    def effective(self, number: int) -> float:
        """Give the number of patches that as many equal weights would be spread over."""
        from napari_mcm.core.mil.attention_maps import effective_number

        return effective_number(self.weights_of(number))


def predict_slide(request: PredictionRequest) -> Job[SlidePrediction]:
    """Predict a slide, and see what the models look at.

    Models that have not learned from the slide are taken, where there are any.

    Raises
    ------
    FeatureError
        If there are no features of the slide, or of another slide or encoder.
    RunError
        If the run cannot be used.
    """
    maps = yield from import_modules(_MODULES)
    from napari_mcm.core.mil.bags import source_of
    from napari_mcm.core.mil.ensemble import load_ensemble, was_trained_on
    from napari_mcm.core.runtime.threads import report_while_running

    file = yield from run_in_thread("Looking for features", features_of, request)
    features = yield from run_in_thread(
        "Reading features", _read, file, request.slide, request.mpp
    )
    ensemble = yield from run_in_thread(
        "Reading the run",
        load_ensemble,
        request.run,
        None,
        request.name,
        request.compute,
    )
    ensemble.check(source_of(features.dim, features.encoder), file)
    unseen = request.name not in was_trained_on(request.run, ensemble.folds)
    if not unseen:
        yield Note(f"{request.name} was learned from: what is predicted of it flatters")
    vectors = features.features[maps.usable(features)]
    if not len(vectors):
        raise ConfigError("holds no patch with features", file)
    progress = Progress(f"Looking at {request.name}", 0, None)
    with explain_out_of_memory(LOOKED_AT, where=file):
        looked = yield from report_while_running(
            ensemble.predict_with_attention(vectors), progress
        )
    return SlidePrediction(
        request,
        features,
        looked.attention,
        looked.probabilities,
        ensemble.classes,
        len(ensemble.models),
        ensemble.models[0].shown,
        ensemble.models[0].caveat,
        unseen,
    )


def top_patches(
    prediction: SlidePrediction, number: int, count: int, slide: Slide
) -> list[TopPatch]:
    """Read the patches of greatest weight, best first, as thumbnails."""
    from napari_mcm.core.mil.attention_maps import usable

    rows = np.flatnonzero(usable(prediction.features))
    weights = prediction.weights_of(number)
    best = np.argsort(-weights, kind="stable")[:count]
    grid = prediction.features.grid
    return read_thumbnails(slide, grid, rows[best].tolist(), weights[best].tolist())


def features_of(request: PredictionRequest) -> Path:
    """Find the feature file of a slide.

    Raises
    ------
    FeatureError
        If no folder has one.
    """
    from napari_mcm.core.mil.bags import find_files

    for folder in request.folders:
        files = find_files(folder) if folder.is_dir() else {}
        if request.name in files:
            return files[request.name]
    where = request.folders[0] if request.folders else None
    raise FeatureError(
        f"there are no features of slide {request.name}",
        where,
        "Compute them in the Similarity widget, or choose the folder that has them",
    )
