"""Cross-validated training of a slide classifier, as a long job."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from napari_mcm.core.errors import ConfigError, RunError
from napari_mcm.core.files import write_json
from napari_mcm.core.jobs import Job, Note
from napari_mcm.core.mil.config import MilConfig
from napari_mcm.core.mil.fold import FoldTraining
from napari_mcm.core.mil.prepare import Prepared, prepare
from napari_mcm.core.mil.results import MilResult, read_folds, result_of, write_results
from napari_mcm.core.mil.scores import Predictions, label_indices
from napari_mcm.core.training import Run


def train(config: MilConfig) -> Job[MilResult]:
    """Train and test a slide classifier on each fold of a cohort.

    Parameters
    ----------
    config : MilConfig
        Cohort, features, run directory and options.

    Yields
    ------
    Event
        Progress in epochs, one `Metrics` an epoch, notes.

    Returns
    -------
    MilResult

    Raises
    ------
    ConfigError
        If something is not given, or cohort and features do not fit.
    RunError
        If the directory holds a run already.
    TrainingError
        If the loss diverges.
    """
    if config.out is None:
        raise ConfigError("no run directory given", hint="Choose one with --out")
    prepared = yield from prepare(config)
    run = Run.create(config.out, config.model_dump(mode="json"))
    write_json(run.path / "folds.json", prepared.describe())
    return (yield from _train(run, config, prepared))


def resume_train(run_dir: Path) -> Job[MilResult]:
    """Go on with a training that was cancelled or killed.

    The final weights are those of an undisturbed run, bit for bit on a CPU.

    Raises
    ------
    RunError
        If it is no run, or its cohort or features have changed.
    """
    run = Run.open(run_dir)
    config = MilConfig.model_validate(run.config()).model_copy(update={"out": run.path})
    prepared = yield from prepare(config)
    file = run.path / "folds.json"
    if not file.exists():
        write_json(file, prepared.describe())
    if read_folds(run.path) != prepared.describe():
        raise RunError(
            "its cohort or features are not those it was started with", run.path
        )
    return (yield from _train(run, config, prepared))


def _train(run: Run, config: MilConfig, prepared: Prepared) -> Job[MilResult]:
    done = run.summary()
    if done is not None:
        yield Note(f"{run.path} is finished already")
        return result_of(run, done)
    if config.compute.threads is not None:
        torch.set_num_threads(config.compute.threads)
    began = time.monotonic()
    found: dict[str, list[NDArray[np.float64]]] = {}
    for number in range(len(prepared.folds)):
        for seed in range(config.training.seed, config.training.seed + config.seeds):
            training = FoldTraining(run, config, prepared, number, seed)
            probabilities = yield from training.learn()
            found.setdefault(prepared.folds[number].name, []).append(probabilities)
    predictions = _together(prepared, found)
    seconds = time.monotonic() - began
    summary = yield from write_results(run, config, predictions, seconds)
    run.finish(summary)
    return result_of(run, summary)


def _together(
    prepared: Prepared, found: dict[str, list[NDArray[np.float64]]]
) -> Predictions:
    """Put the folds' test slides together; a slide's seeds are averaged."""
    cases = {case.slide: case for case in prepared.cohort.cases}
    slides = [(fold.name, slide) for fold in prepared.folds for slide in fold.test]
    classes = prepared.cohort.classes
    return Predictions(
        tuple(slide for _, slide in slides),
        tuple(cases[slide].patient for _, slide in slides),
        tuple(name for name, _ in slides),
        label_indices([cases[slide].label for _, slide in slides], classes),
        np.concatenate([np.mean(found[f.name], axis=0) for f in prepared.folds]),
        tuple(classes),
    )
