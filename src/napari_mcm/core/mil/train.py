"""Cross-validated training of a slide classifier, as a long job."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_mcm.core.errors import ConfigError, RunError, TrainingError
from napari_mcm.core.mil.bags import FeatureFolder, FeatureSource, check_there
from napari_mcm.core.mil.cohort import Cohort, read_cohort
from napari_mcm.core.mil.config import MilConfig
from napari_mcm.core.mil.ensemble import save_model
from napari_mcm.core.mil.metrics import Predictions, label_indices
from napari_mcm.core.mil.results import MilResult, read_folds, result_of, write_results
from napari_mcm.core.mil.splits import Fold, make_folds
from napari_mcm.core.mil.trainer import Labelled, MilTrainer
from napari_mcm.core.runtime.files import write_json
from napari_mcm.core.runtime.jobs import Job, Metrics, Note, Progress
from napari_mcm.core.runtime.threads import report_while_running
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


CHECKPOINT_SECONDS = 5.0
"""Epochs that take less than this together share a checkpoint."""


class FoldTraining:
    """One fold's training with one seed, in a directory of its own."""

    def __init__(
        self, run: Run, config: MilConfig, prepared: Prepared, number: int, seed: int
    ) -> None:
        fold = prepared.folds[number]
        self.run = Run(run.path / "models" / f"fold_{fold.name}_seed_{seed}")
        self.run.path.mkdir(parents=True, exist_ok=True)
        self.config, self.prepared, self.fold, self.seed = config, prepared, fold, seed
        self.number = number
        self.training = config.training.settled(config.aggregator.model)
        self.least = min(self.training.min_epochs, self.training.epochs)
        labels = {case.slide: case.label for case in prepared.cohort.cases}
        place = {name: i for i, name in enumerate(prepared.cohort.classes)}
        self.parts = {
            part: [Labelled(s, place[labels[s]]) for s in getattr(fold, part)]
            for part in ("train", "validation", "test")
        }
        self.epoch = self._saved_epoch = 0
        self._settled = True
        self._saved_at = time.monotonic()

    @property
    def stage(self) -> str:
        """What progress says."""
        text = f"Fold {self.number + 1} of {len(self.prepared.folds)}"
        return f"{text}, seed {self.seed}" if self.config.seeds > 1 else text

    def learn(self) -> Job[NDArray[np.float64]]:
        """Train, keep the best, test it; gives probabilities of the test slides."""
        done = self.run.summary()
        if done is not None:
            return np.asarray(done["test_probabilities"], np.float64)
        self._prepare()
        began = self.epoch
        if began:
            yield Note(f"{self.stage}: going on at epoch {began + 1}")
        try:
            while self.epoch < self.training.epochs and not self._is_over():
                yield from self._one_epoch()
        finally:
            # An epoch that was broken off is run again from its start.
            if self._settled and 0 < self.epoch != self._saved_epoch:
                self._save()
        self.learner.use_best()
        return (yield from self._finish())

    def _prepare(self) -> None:
        self.learner = MilTrainer(
            self.config.aggregator,
            self.training,
            self.config.compute,
            self.prepared.origin.dim,
            len(self.prepared.cohort.classes),
            (self.seed, self.number),
        )
        checkpoint = self.run.load_checkpoint()
        if checkpoint is not None:
            tensors, state = checkpoint
            best = (float(state["best_loss"]), int(state["best_epoch"]))
            self.learner.load_state(tensors, best)
            self.epoch = self._saved_epoch = int(state["epoch"])
        self.run.trim_metrics(self.epoch)

    def _is_over(self) -> bool:
        best = self.learner.best.epoch
        waited = self.epoch - 1 - best
        return self.epoch >= self.least and waited >= self.training.patience

    def _one_epoch(self) -> Job[None]:
        learner, bags = self.learner, self.prepared.bags
        progress = Progress(self.stage, self.epoch, self.training.epochs, "epochs")
        yield progress
        began, losses = time.monotonic(), []
        self._settled = False
        for number, batch in enumerate(learner.plan(self.parts["train"], self.epoch)):
            step = learner.step(batch, bags, self.epoch, number)
            losses.append((yield from report_while_running(step, progress)))
            self._check(losses[-1])
        rate = len(self.parts["train"]) / max(time.monotonic() - began, 1e-9)
        check = learner.evaluate(self.parts["validation"], bags)
        held, _ = yield from report_while_running(check, progress)
        self._check(held)
        learner.keep_if_best(held, self.epoch)
        values = {
            "loss": float(np.mean(losses)),
            "validation_loss": held,
            "lr": learner.optimiser.param_groups[0]["lr"],
            "bags_per_s": rate,
        }
        self.run.append_metrics(self.epoch, values)
        self.epoch += 1
        self._settled = True
        if time.monotonic() - self._saved_at >= CHECKPOINT_SECONDS:
            self._save()
        yield Metrics(
            self.epoch - 1, {**values, "fold": self.number, "seed": self.seed}
        )

    def _save(self) -> None:
        best = self.learner.best
        state = {"epoch": self.epoch, "best_loss": best.loss, "best_epoch": best.epoch}
        self.run.save_checkpoint(self.learner.state(), state)
        self._saved_at, self._saved_epoch = time.monotonic(), self.epoch

    def _check(self, loss: float) -> None:
        if not np.isfinite(loss):
            raise TrainingError(
                f"the loss diverged in epoch {self.epoch + 1} of {self.stage}",
                self.run.path,
                "Try a lower --lr; the last checkpoint is kept",
            )

    def _finish(self) -> Job[NDArray[np.float64]]:
        progress = Progress(self.stage, self.epoch, self.training.epochs, "epochs")
        test = self.learner.evaluate(self.parts["test"], self.prepared.bags)
        loss, probabilities = yield from report_while_running(test, progress)
        save_model(
            self.run.path,
            self.learner.best.weights,
            self.config.aggregator,
            self.prepared.cohort.classes,
            self.prepared.origin,
            self.fold.name,
            self.seed,
        )
        summary = {
            "epochs": self.epoch,
            "best_epoch": self.learner.best.epoch,
            "validation_loss": self.learner.best.loss,
            "test_loss": loss,
            "test_slides": list(self.fold.test),
            "test_probabilities": probabilities.tolist(),
        }
        self.run.finish(summary)
        self.run.remove_checkpoint()
        yield Progress(self.stage, self.epoch, self.epoch, "epochs")
        return np.asarray(probabilities, np.float64)


@dataclass(frozen=True, eq=False)
class Prepared:
    """All that is settled before the first epoch."""

    cohort: Cohort
    folds: list[Fold]
    bags: FeatureFolder
    origin: FeatureSource

    def describe(self) -> dict[str, Any]:
        """Give it ready for JSON: what a resumed run must find again."""
        cases = [
            {"slide": c.slide, "label": c.label, "patient": c.patient, "path": c.path}
            for c in self.cohort.cases
        ]
        return {
            "classes": self.cohort.classes,
            "has_patients": self.cohort.has_patients,
            "cases": cases,
            "folds": [
                {k: list(v) if k != "name" else v for k, v in asdict(fold).items()}
                for fold in self.folds
            ],
            "features": asdict(self.origin),
        }


def prepare(config: MilConfig) -> Job[Prepared]:
    """Read the table, find the features and part the slides.

    Raises
    ------
    ConfigError
        If slides have no features and that was not allowed; a note names each.
    """
    if config.cohort is None:
        raise ConfigError("no cohort given", hint="Name a table of slides (CSV)")
    if config.features is None:
        raise ConfigError("no features given", hint="Name their folder with --features")
    cohort = read_cohort(config.cohort)
    bags = FeatureFolder(config.features, config.bags)
    slides = [case.slide for case in cohort.cases]
    missing = check_there(bags, slides, config.features)
    for slide in missing:
        yield Note(f"slide {slide} has no features in {config.features}", "warning")
    if missing and not config.bags.allow_missing:
        raise ConfigError(
            f"{len(missing)} of {len(slides)} slides have no features",
            config.features,
            "Extract them, or go on without with --allow-missing",
        )
    cohort = cohort.without(missing)
    folds = make_folds(cohort, config.split)
    bags.read(cohort.cases[0].slide)
    assert bags.origin is not None
    yield Note(
        f"{len(cohort.cases)} slides of {len(cohort.classes)} classes in {len(folds)} "
        f"fold(s); features of {bags.origin.dim} dimensions, up to "
        f"{config.bags.cache_gib:g} GiB of them kept in memory"
    )
    return Prepared(cohort, folds, bags, bags.origin)
