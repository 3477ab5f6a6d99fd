"""Prediction of slides with the models of a trained run, as a job."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import ConfigError, McmError
from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.core.mil.bags import FeatureFolder, check_there
from napari_mcm.core.mil.cohort import Cohort, read_cohort
from napari_mcm.core.mil.config import PredictConfig
from napari_mcm.core.mil.ensemble import Ensemble, load_ensemble
from napari_mcm.core.mil.metrics import Predictions, label_indices
from napari_mcm.core.mil.results import compute_figures
from napari_mcm.core.mil.seen import (
    find_trained_on,
    fingerprint_of,
    warn_of_encoder,
)
from napari_mcm.core.runtime.files import write_text
from napari_mcm.core.runtime.jobs import Job, Meter, Note
from napari_mcm.core.runtime.threads import report_while_running


@dataclass(frozen=True, eq=False)
class PredictResult:
    """Predictions of slides.

    Attributes
    ----------
    slides : tuple of str
        Names of the slides.
    classes : tuple of str
        Names of the classes.
    probabilities : ndarray of float64, shape (S, C)
        Means over the models.
    models : int
        Number of models averaged.
    figures : dict or None
        Metrics, as of a training; None where the table has no labels.
    file : Path or None
        The table written.
    failed : tuple of str
        One line for each slide whose features could not be used.
    neighbourhood : NeighbourhoodConfig
        What each feature vector covers: as in the run's training.
    """

    slides: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: NDArray[np.float64]
    models: int
    figures: dict[str, Any] | None
    file: Path | None
    failed: tuple[str, ...]
    neighbourhood: NeighbourhoodConfig = NeighbourhoodConfig()


def predict(config: PredictConfig) -> Job[PredictResult]:
    """Predict slides by the mean of a run's models, as a job.

    Parameters
    ----------
    config : PredictConfig
        Run, features, and optionally a table of slides and an output file.

    Yields
    ------
    Event
        Progress in slides; notes on slides without features or in the training set.

    Returns
    -------
    PredictResult
        Probabilities, and metrics where labels are known.

    Raises
    ------
    ConfigError
        If an option is missing, a neighbourhood is asked for that is not the run's, or
        no slide could be predicted.
    FeatureError
        If the features are of another encoder than the run's.
    """
    if config.run is None or config.features is None:
        raise ConfigError(
            "a run and --features are needed", hint="See napari-mcm mil predict --help"
        )
    ensemble = load_ensemble(config.run, config.fold, compute=config.compute)
    ensemble.check_asked(config.neighbourhood)
    folder = FeatureFolder(config.features, config.bags, ensemble.neighbourhood)
    cohort = None if config.cohort is None else read_cohort(config.cohort, False)
    slides = yield from _slides_to_predict(config, folder, cohort)
    # Not an error: predicting the training set shows whether a model fits at all.
    marks = {slide: fingerprint_of(folder.files[slide]) for slide in slides}
    seen = find_trained_on(config.run, ensemble.folds, marks)
    if seen:
        yield Note(
            f"{len(seen)} of {len(slides)} slides were in the training set: their "
            "predictions are optimistic; predictions.csv of the run has those of unseen "
            "slides",
            "warning",
        )
    if warning := warn_of_encoder(folder, slides):
        yield Note(warning, "warning")
    found, failed = yield from _predict_all(ensemble, folder, slides)
    if not found:
        raise ConfigError("no slide could be predicted", hint=failed[0])
    names = tuple(found)
    probabilities = np.stack(list(found.values()))
    figures = yield from _figures(config, cohort, names, probabilities, ensemble)
    if config.out is not None:
        _write(config.out, names, probabilities, ensemble.classes)
    return PredictResult(
        names,
        ensemble.classes,
        probabilities,
        len(ensemble.models),
        figures,
        config.out,
        tuple(failed),
        ensemble.neighbourhood,
    )


def _slides_to_predict(
    config: PredictConfig, folder: FeatureFolder, cohort: Cohort | None
) -> Job[list[str]]:
    """Return the slides to predict; report those without features.

    Raises
    ------
    ConfigError
        If slides lack features and that is not allowed.
    """
    if cohort is None:
        return sorted(folder.files)
    slides = [case.slide for case in cohort.cases]
    missing = check_there(folder, slides, folder.path)
    for slide in missing:
        yield Note(f"slide {slide} has no features in {folder.path}", "warning")
    if missing and not config.bags.allow_missing:
        raise ConfigError(
            f"{len(missing)} of {len(slides)} slides have no features",
            folder.path,
            "Extract them, or leave these slides out with --allow-missing",
        )
    return [slide for slide in slides if slide in folder]


def _predict_all(
    ensemble: Ensemble, folder: FeatureFolder, slides: list[str]
) -> Job[tuple[dict[str, NDArray[np.float64]], list[str]]]:
    meter = Meter("Predicting", len(slides), "slides")
    found: dict[str, NDArray[np.float64]] = {}
    failed: list[str] = []
    for slide in slides:
        yield meter.progress()
        try:
            vectors = folder.read(slide)
        # One damaged file must not end the prediction of a large cohort.
        except McmError as error:
            failed.append(str(error))
            yield meter.advance()
            continue
        assert folder.origin is not None
        ensemble.check(folder.origin, folder.path)
        work = ensemble.predict(vectors)
        found[slide] = yield from report_while_running(work, meter.progress())
        yield meter.advance()
    return found, failed


def _figures(
    config: PredictConfig,
    cohort: Cohort | None,
    slides: tuple[str, ...],
    probabilities: NDArray[np.float64],
    ensemble: Ensemble,
) -> Job[dict[str, Any] | None]:
    """Compute metrics of the slides whose label the run knows."""
    cases = {} if cohort is None else {case.slide: case for case in cohort.cases}
    known = [
        i
        for i, slide in enumerate(slides)
        if slide in cases and cases[slide].label in ensemble.classes
    ]
    if not known:
        return None
    chosen = [cases[slides[i]] for i in known]
    predictions = Predictions(
        tuple(case.slide for case in chosen),
        tuple(case.patient for case in chosen),
        # One pseudo-fold: the ensemble predicts all slides alike.
        tuple("all" for _ in chosen),
        label_indices([case.label for case in chosen], ensemble.classes),
        probabilities[known],
        ensemble.classes,
    )
    return (yield from compute_figures(predictions, config.figures))


def _write(
    path: Path,
    slides: tuple[str, ...],
    probabilities: NDArray[np.float64],
    classes: tuple[str, ...],
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["slide", "predicted", *(f"p_{name}" for name in classes)])
    for slide, row in zip(slides, probabilities, strict=True):
        values = [f"{value:.6f}" for value in row]
        writer.writerow([slide, classes[int(row.argmax())], *values])
    write_text(path, text.getvalue())
