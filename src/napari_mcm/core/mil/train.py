"""Cross-validated training of a slide classifier.

On each fold, and with each seed, a model is trained epoch by epoch on the training slides.
The epoch with the lowest validation loss is kept; training stops where none has been better
for some epochs. The kept model is tested on the slides of the fold that it has never seen,
so that in the end every slide is predicted once.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_mcm.core.errors import ConfigError, RunError
from napari_mcm.core.mil.bags import FeatureFolder, FeatureSource, check_there, covered
from napari_mcm.core.mil.cohort import Cohort, read_cohort
from napari_mcm.core.mil.config import MilConfig
from napari_mcm.core.mil.ensemble import save_model
from napari_mcm.core.mil.metrics import Predictions, label_indices
from napari_mcm.core.mil.results import MilResult, read_folds, result_of, write_results
from napari_mcm.core.mil.seen import record_slides, warn_of_encoder
from napari_mcm.core.mil.splits import Fold, make_folds
from napari_mcm.core.mil.trainer import Best, Labelled, MilTrainer
from napari_mcm.core.runtime.files import write_json
from napari_mcm.core.runtime.jobs import Job, Note, Progress
from napari_mcm.core.runtime.overall import portion
from napari_mcm.core.runtime.threads import report_while_running
from napari_mcm.core.training.loop import Loop, LoopPlan
from napari_mcm.core.training.run import Run


def train(config: MilConfig) -> Job[MilResult]:
    """Train and test a slide classifier on each fold of a cohort, as a job.

    Parameters
    ----------
    config : MilConfig
        Cohort, features, run directory and options.

    Yields
    ------
    Event
        Progress in epochs, one `Metrics` per epoch, notes.

    Returns
    -------
    MilResult
        Metrics of the predictions, and where they are.

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
    """Resume a training that was cancelled or killed, as a job.

    The final weights are those of an uninterrupted run, bit for bit on a CPU.

    Parameters
    ----------
    run_dir : Path
        Directory of the run.

    Returns
    -------
    MilResult
        Metrics of the predictions, and where they are.

    Raises
    ------
    RunError
        If it is no run, or its cohort or features have changed.
    """
    run = Run.open(run_dir, "mil train")
    config = run.options(MilConfig).model_copy(update={"out": run.path})
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
    record_slides(run.path, prepared.bags, (c.slide for c in prepared.cohort.cases))
    began = time.monotonic()
    found: dict[str, list[NDArray[np.float64]]] = {}
    seeds = range(config.training.seed, config.training.seed + config.seeds)
    parts = [(number, seed) for number in range(len(prepared.folds)) for seed in seeds]
    share = (1.0 - _RESULTS) / len(parts)
    for place, (number, seed) in enumerate(parts):
        part = _train_part(run, config, prepared, number, seed)
        done = yield from portion(part, place * share, (place + 1) * share)
        probabilities = np.asarray(done["test_probabilities"], np.float64)
        found.setdefault(prepared.folds[number].name, []).append(probabilities)
    predictions = _together(prepared, found)
    seconds = time.monotonic() - began
    writing = write_results(run, config, predictions, seconds)
    summary = yield from portion(writing, 1.0 - _RESULTS, 1.0)
    summary["neighbourhood"] = prepared.origin.neighbourhood.model_dump()
    run.finish(summary)
    return result_of(run, summary)


def _train_part(
    run: Run, config: MilConfig, prepared: Prepared, number: int, seed: int
) -> Job[dict[str, Any]]:
    """Train and test one fold with one seed, or read what a finished one has found."""
    own = Run(run.path / "models" / f"fold_{prepared.folds[number].name}_seed_{seed}")
    # A fold that has a summary is finished: a resumed run only reads it.
    done = own.summary()
    if done is None:
        training = FoldTraining(own, config, prepared, number, seed)
        yield from training.learn()
        done = yield from training.test()
    return done


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


_RESULTS = 0.05
"""Share of a run that intervals and plots take, after the last fold."""

CHECKPOINT_SECONDS = 5.0
"""Epochs that take less than this together share a checkpoint."""


class FoldTraining(Loop[MilTrainer]):
    """Train one fold with one seed, in a directory of its own; its steps are epochs.

    Parameters
    ----------
    run : Run
        Of this fold and seed.
    config : MilConfig
        All options.
    prepared : Prepared
        Cohort, folds and features.
    number : int
        Index of the fold.
    seed : int
        Seed of weights, order and dropout.
    """

    def __init__(
        self, run: Run, config: MilConfig, prepared: Prepared, number: int, seed: int
    ) -> None:
        run.path.mkdir(parents=True, exist_ok=True)
        self.config, self.prepared, self.seed = config, prepared, seed
        self.number, self.fold = number, prepared.folds[number]
        self.training = config.training.settled(config.aggregator.model)
        classes = prepared.cohort.classes
        labels = {
            case.slide: classes.index(case.label) for case in prepared.cohort.cases
        }
        self.parts = {
            part: [Labelled(slide, labels[slide]) for slide in getattr(self.fold, part)]
            for part in ("train", "validation", "test")
        }
        stage = f"Fold {number + 1} of {len(prepared.folds)}"
        plan = LoopPlan(
            stage=f"{stage}, seed {seed}" if config.seeds > 1 else stage,
            unit="epochs",
            steps=self.training.epochs,
            data="slides",
            identity=None,
            checkpoint_seconds=CHECKPOINT_SECONDS,
            advice="Try a lower --lr",
            # Early stopping copes with a loss that rises.
            least_loss=float("inf"),
            step_name="epoch",
            saves_last=True,
        )
        trainer = MilTrainer(
            config.aggregator,
            self.training,
            config.compute,
            prepared.origin.dim,
            len(classes),
            (seed, number),
        )
        super().__init__(run, trainer, plan)

    @property
    def is_over(self) -> bool:
        """Whether validation has not improved for too many epochs.

        Returns
        -------
        bool
            True to stop early.
        """
        least = min(self.training.min_epochs, self.training.epochs)
        waited = self.step - 1 - self.trainer.best.epoch
        return self.step >= least and waited >= self.training.patience

    def progress(self) -> Progress:
        """Return the number of epochs done.

        Returns
        -------
        Progress
            Without the time that is left, as training may stop early.
        """
        return Progress(self.plan.stage, self.step, self.plan.steps, "epochs")

    def state(self) -> dict[str, Any]:
        """Collect what a checkpoint holds beside tensors.

        Returns
        -------
        dict
            Ready for JSON. ``folds.json`` tells whether the slides are the same.
        """
        best = self.trainer.best
        return {"epoch": self.step, "best_loss": best.loss, "best_epoch": best.epoch}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what a checkpoint holds beside tensors.

        Parameters
        ----------
        state : mapping
            As :meth:`state` returned it.
        """
        self.step = int(state["epoch"])
        self.trainer.best = Best(float(state["best_loss"]), int(state["best_epoch"]))

    def take_step(self, reading: Generator[Any, None, None]) -> Job[dict[str, float]]:
        """Train for one epoch, as a job.

        Parameters
        ----------
        reading : generator
            Not used: features of small cohorts stay in memory.

        Yields
        ------
        Event
            Progress in epochs.

        Returns
        -------
        dict of str to float
            Mean loss of the epoch, loss on the validation slides, rate.
        """
        trainer, bags = self.trainer, self.prepared.bags
        began, losses = time.monotonic(), []
        for number, batch in enumerate(trainer.plan(self.parts["train"], self.step)):
            step = trainer.step(batch, bags, self.step, number)
            losses.append((yield from report_while_running(step, self.progress())))
            self.check(losses[-1])
        rate = len(self.parts["train"]) / max(time.monotonic() - began, 1e-9)
        check = trainer.evaluate(self.parts["validation"], bags)
        held_out, _ = yield from report_while_running(check, self.progress())
        self.check(held_out)
        trainer.keep_if_best(held_out, self.step)
        return {
            "loss": float(np.mean(losses)),
            "validation_loss": held_out,
            "lr": trainer.optimiser.param_groups[0]["lr"],
            "bags_per_s": rate,
        }

    def describe(self, values: Mapping[str, float]) -> dict[str, float]:
        """Add fold and seed to the metrics of an epoch, for those who follow the job.

        Parameters
        ----------
        values : mapping of str to float
            Metrics of the epoch.

        Returns
        -------
        dict of str to float
            With ``fold`` and ``seed``.
        """
        return {**values, "fold": self.number, "seed": self.seed}

    def test(self) -> Job[dict[str, Any]]:
        """Test the best weights on the fold's test slides and write them, as a job.

        Yields
        ------
        Event
            Progress in epochs.

        Returns
        -------
        dict
            The summary of the fold; ``test_probabilities`` are in the order of
            ``test_slides``.
        """
        best = self.trainer.best
        self.trainer.use_best()
        test = self.trainer.evaluate(self.parts["test"], self.prepared.bags)
        loss, probabilities = yield from report_while_running(test, self.progress())
        # The model before the summary, which marks the fold as finished.
        save_model(
            self.run.path,
            best.weights,
            self.config.aggregator,
            self.prepared.cohort.classes,
            self.prepared.origin,
            self.fold.name,
            self.seed,
        )
        summary = {
            "epochs": self.step,
            "best_epoch": best.epoch,
            "validation_loss": best.loss,
            "test_loss": loss,
            "test_slides": list(self.fold.test),
            "test_probabilities": probabilities.tolist(),
        }
        self.run.finish(summary)
        # Last: a kill before this leaves a checkpoint, but no fold without a result.
        self.run.remove_checkpoint()
        yield Progress(self.plan.stage, self.step, self.step, "epochs")
        return summary


@dataclass(frozen=True, eq=False)
class Prepared:
    """The cohort of a run, its folds and its features.

    Attributes
    ----------
    cohort : Cohort
        Slides with their classes.
    folds : list of Fold
        Training, validation and test slides of each.
    bags : FeatureFolder
        Reads the features of a slide.
    origin : FeatureSource
        The encoder that computed them.
    """

    cohort: Cohort
    folds: list[Fold]
    bags: FeatureFolder
    origin: FeatureSource

    def describe(self) -> dict[str, Any]:
        """Describe what a resumed run must find again.

        Returns
        -------
        dict
            Classes, slides, folds and source of the features, ready for JSON.
        """
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
            "features": self.origin.describe(),
        }


def prepare(config: MilConfig) -> Job[Prepared]:
    """Read the cohort, find the features and divide the slides into folds, as a job.

    Parameters
    ----------
    config : MilConfig
        Cohort, features and options.

    Yields
    ------
    Event
        Notes on the cohort, and on each slide without features.

    Returns
    -------
    Prepared
        All that the training needs.

    Raises
    ------
    ConfigError
        If something is not given, or slides have no features and that is not allowed; a
        note names each.
    """
    if config.cohort is None:
        raise ConfigError("no cohort given", hint="Name a table of slides (CSV)")
    if config.features is None:
        raise ConfigError("no features given", hint="Name their folder with --features")
    cohort = read_cohort(config.cohort)
    bags = FeatureFolder(config.features, config.bags, config.neighbourhood)
    slides = [case.slide for case in cohort.cases]
    missing = check_there(bags, slides, config.features)
    for slide in missing:
        yield Note(f"slide {slide} has no features in {config.features}", "warning")
    if missing and not config.bags.allow_missing:
        raise ConfigError(
            f"{len(missing)} of {len(slides)} slides have no features",
            config.features,
            "Extract them, or leave these slides out with --allow-missing",
        )
    cohort = cohort.without(missing)
    folds = make_folds(cohort, config.split)
    tested = dict.fromkeys(slide for fold in folds for slide in fold.test)
    if warning := warn_of_encoder(bags, tested):
        yield Note(warning, "warning")
    # The first slide states the length of features, on which the model depends.
    bags.read(cohort.cases[0].slide)
    assert bags.origin is not None
    yield Note(
        f"{len(cohort.cases)} slides of {len(cohort.classes)} classes in {len(folds)} "
        f"fold(s); features of {bags.origin.dim} dimensions, each over "
        f"{covered(bags.origin.neighbourhood)}, up to "
        f"{config.bags.cache_gib:g} GiB of them kept in memory"
    )
    return Prepared(cohort, folds, bags, bags.origin)
