"""Predict a slide with a trained run, as a job of the viewer.

The computation is :func:`napari_mcm.core.mil.slide_prediction.predict_slide`, which
`napari-mcm mil attention` calls too. Here the features are found and checked against the
open slide.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_mcm.core.encoders.compute import ComputeConfig
from napari_mcm.core.errors import FeatureError
from napari_mcm.core.runtime.jobs import Job
from napari_mcm.core.runtime.threads import run_in_thread
from napari_mcm.viewer.app.features import _read
from napari_mcm.viewer.app.imports import import_modules
from napari_mcm.viewer.app.out_of_memory import ATTENTION, explain_out_of_memory
from napari_mcm.viewer.layers.thumbnails import TopPatch, read_thumbnails

if TYPE_CHECKING:
    from napari_mcm.core.mil.slide_prediction import SlidePrediction
    from napari_mcm.core.slides import Slide

_MODULES = (
    "torch",
    "napari_mcm.core.features.interchange",
    "napari_mcm.core.mil.slide_prediction",
)


@dataclass(frozen=True)
class PredictionRequest:
    """A slide to predict, and the run that predicts it.

    Attributes
    ----------
    run : Path
        Folder of a finished run.
    name : str
        Name of the slide, as feature files have it.
    slide : Path
        File of the slide.
    mpp : float or None
        Resolution that the user gave, in µm per level-0 pixel.
    folders : tuple of Path
        Folders of feature files. The first one that has the slide is used.
    compute : ComputeConfig
        Device and precision.
    """

    run: Path
    name: str
    slide: Path
    mpp: float | None
    folders: tuple[Path, ...]
    compute: ComputeConfig = ComputeConfig()


def predict_slide(request: PredictionRequest) -> Job[SlidePrediction]:
    """Predict a slide, and see which patches the models attend to.

    Models that have not seen the slide in training are used, where there are any.

    Parameters
    ----------
    request : PredictionRequest
        The slide, its features and the run.

    Returns
    -------
    SlidePrediction

    Raises
    ------
    ConfigError
        If no patch of the slide has features.
    FeatureError
        If there are no features of the slide, or of another slide or encoder.
    RunError
        If the run cannot be used.
    """
    engine = yield from import_modules(_MODULES)
    file = yield from run_in_thread("Looking for features", features_of, request)
    features = yield from run_in_thread(
        "Reading features", _read, file, request.slide, request.mpp
    )
    with explain_out_of_memory(ATTENTION, where=file):
        prediction: SlidePrediction
        prediction, _ = yield from engine.predict_slide(
            request.run, request.name, features, file, compute=request.compute
        )
    return prediction


def top_patches(
    prediction: SlidePrediction, number: int, count: int, slide: Slide
) -> list[TopPatch]:
    """Read the patches with the greatest attention to a class, best first.

    Parameters
    ----------
    prediction : SlidePrediction
        Prediction of the slide.
    number : int
        Index of the class.
    count : int
        How many patches at most.
    slide : Slide
        The open slide, for the pixels.

    Returns
    -------
    list of TopPatch
        Thumbnails with their weights.
    """
    rows = prediction.top(number, count)
    weights = prediction.grid_weights(number)[rows]
    return read_thumbnails(slide, prediction.features.grid, rows, weights.tolist())


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
