"""One fold's training, which can be broken off and gone on with."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.background import alive
from napari_mcm.core.errors import TrainingError
from napari_mcm.core.jobs import Job, Metrics, Note, Progress
from napari_mcm.core.mil.config import MilConfig
from napari_mcm.core.mil.learner import Labelled, Learner
from napari_mcm.core.mil.prepare import Prepared
from napari_mcm.core.mil.saved import save_model
from napari_mcm.core.training import Run

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
        self.learner = Learner(
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
            losses.append((yield from alive(step, progress)))
            self._check(losses[-1])
        rate = len(self.parts["train"]) / max(time.monotonic() - began, 1e-9)
        check = learner.evaluate(self.parts["validation"], bags)
        held, _ = yield from alive(check, progress)
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
        loss, probabilities = yield from alive(test, progress)
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
