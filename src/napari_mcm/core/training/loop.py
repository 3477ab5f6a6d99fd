"""The loop that pre-training and classifiers share: reads ahead, steps, saves itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import McmError, RunError, TrainingError
from napari_mcm.core.runtime.jobs import Job, Meter, Metrics, Note
from napari_mcm.core.runtime.threads import prefetch, run_in_thread
from napari_mcm.core.training import Run
from napari_mcm.core.training.monitor import DivergenceMonitor
from napari_mcm.core.training.trainer import Trainer

Draw = tuple[int, int]
"""An epoch and the index of an image."""


def steps_of_epochs(images: int, batch_size: int, epochs: int) -> int:
    """Count steps; an epoch's last images wait for the next epoch's first."""
    return max(images * epochs // batch_size, 1)


def draws(
    images: int, batch_size: int, seed: int, start: int, stop: int
) -> Iterator[list[Draw]]:
    """Give the images of steps `start` to `stop`.

    Epochs follow each other without a gap, each in an order of its own, so that every
    step has as many images as the others.
    """
    held: dict[int, NDArray[np.int64]] = {}
    for step in range(start, stop):
        places = range(step * batch_size, (step + 1) * batch_size)
        batch = []
        for place in places:
            epoch, at = divmod(place, images)
            if epoch not in held:
                held = {k: v for k, v in held.items() if k >= epoch - 1}
                held[epoch] = np.random.default_rng((seed, epoch)).permutation(images)
            batch.append((epoch, int(held[epoch][at])))
        yield batch


Sample = TypeVar("Sample")


_TOLD = 20

_SECONDS_BETWEEN_SIGNS = 0.2


@dataclass(frozen=True)
class Damage:
    """An image that could not be read: where it is, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class LoopPlan(Generic[Sample]):
    """What a loop goes over, and how.

    Attributes
    ----------
    stage : str
        What is being done, for people.
    images : int
        How many images there are.
    identity : str
        Tells other images apart: a run is resumed with its own only.
    batch_size, steps, seed : int
        Images a step, steps in all, and what orders them.
    factor : callable
        From the number of a step to the factor on all rates.
    read : callable
        From an epoch and an image's index to a sample; runs in threads.
    workers : int
        How many.
    checkpoint_seconds : float
        Time between checkpoints.
    advice : str
        What to do where the loss diverges.
    least_loss : float
        A first loss below this does not count against later ones.
    """

    stage: str
    images: int
    identity: str
    batch_size: int
    steps: int
    seed: int
    factor: Callable[[int], float]
    read: Callable[[Draw], Sample]
    workers: int
    checkpoint_seconds: float
    advice: str
    least_loss: float = 1e-12


class Loop(Generic[Sample]):
    """One run's loop.

    Parameters
    ----------
    run : Run
        Holds its figures and its checkpoint.
    learner : Trainer
        Takes the steps.
    plan : LoopPlan
        Over what.
    """

    def __init__(
        self, run: Run, learner: Trainer[Sample], plan: LoopPlan[Sample]
    ) -> None:
        self.run, self.learner, self.plan = run, learner, plan
        self.step = 0
        self.damaged: list[str] = []
        self._saved, self._saved_at = 0, time.monotonic()

    def learn(self) -> Job[None]:
        """Train to the last step, from the checkpoint where there is one."""
        yield from self._restore()
        self.watch = DivergenceMonitor(self.run.metrics(), self.plan.least_loss)
        plan = self.plan
        ahead = draws(plan.images, plan.batch_size, plan.seed, self.step, plan.steps)
        flat = (draw for batch in ahead for draw in batch)
        reading = prefetch(
            self._read, flat, plan.workers, ahead=min(2 * plan.batch_size, 256)
        )
        done, total = (n * plan.batch_size for n in (self.step, plan.steps))
        meter = Meter(plan.stage, total, "images", done)
        try:
            while self.step < plan.steps:
                yield from self._one_step(reading, meter)
                if self._is_time_to_save():
                    self._save()
                    yield from self.run.checkpoint_written(meter.progress())
            yield meter.progress()
        finally:
            reading.close()
            # Weights half changed are not saved: the checkpoint before stands then.
            unsaved = self.step not in (self._saved, 0, plan.steps)
            if self.learner.settled and unsaved:
                self._save()

    def _restore(self) -> Job[None]:
        checkpoint = yield from self.run.read_checkpoint()
        if checkpoint is None:
            self.run.trim_metrics(0)
            return
        tensors, state = checkpoint
        if state["images"] != self.plan.identity:
            raise RunError(
                "its images are not the ones it was started with", self.run.path
            )
        yield from run_in_thread(
            "Reading the checkpoint", self.learner.load_state, tensors
        )
        self.step, self.damaged = int(state["step"]), list(state["damaged"])
        self.learner.precision = state.get("precision", self.learner.precision)
        self._saved = self.step
        self.run.trim_metrics(self.step)
        yield Note(f"going on at step {self.step + 1} of {self.plan.steps}")

    def _read(self, draw: Draw) -> Sample | Damage:
        try:
            return self.plan.read(draw)
        except McmError as error:
            return Damage(str(error.where), str(error))

    def _one_step(self, reading: Iterator[Sample | Damage], meter: Meter) -> Job[None]:
        began = time.monotonic()
        samples = yield from self._batch(reading, meter)
        factor = self.plan.factor(self.step)
        values: dict[str, float] = {"loss": float("nan")}
        if samples:
            stepping = self.learner.step(samples, factor, self.step)
            values = yield from _driven(stepping, meter)
            self._check(values)
        rate = len(samples) / max(time.monotonic() - began, 1e-9)
        values |= {"lr_factor": factor, "images_per_s": rate}
        self.run.append_metrics(self.step, values)
        meter.advance(self.plan.batch_size)
        # Counted before anybody can stop here: weights and count go together.
        self.step += 1
        self.learner.settled = True
        yield Metrics(self.step - 1, values)
        self._watch(values)

    def _batch(
        self, reading: Iterator[Sample | Damage], meter: Meter
    ) -> Job[list[Sample]]:
        samples: list[Sample] = []
        told = time.monotonic()
        yield meter.progress()
        for _ in range(self.plan.batch_size):
            sample = next(reading)
            if not isinstance(sample, Damage):
                samples.append(sample)
            elif sample.name not in self.damaged:
                self.damaged.append(sample.name)
                if len(self.damaged) <= _TOLD:
                    yield Note(f"skipped: {sample.reason}", "warning")
            if time.monotonic() - told > _SECONDS_BETWEEN_SIGNS:
                told = time.monotonic()
                yield meter.progress()
        return samples

    def _check(self, values: Mapping[str, float]) -> None:
        if not np.isfinite([values["loss"], values["grad_norm"]]).all():
            self.learner.settled = False
            raise self._divergence(f"it is {values['loss']}")

    def _watch(self, values: Mapping[str, float]) -> None:
        self.watch.add(values)
        if self.watch.diverged:
            # The last checkpoint is of a step before, when all was well.
            self.learner.settled = False
            raise self._divergence(f"it has risen to {values['loss']:.3g}")

    def _divergence(self, what: str) -> TrainingError:
        return TrainingError(
            f"the loss diverged at step {self.step + 1} ({what})",
            self.run.path,
            f"{self.plan.advice}; the last good checkpoint is kept",
        )

    def _is_time_to_save(self) -> bool:
        due = time.monotonic() - self._saved_at >= self.plan.checkpoint_seconds
        return due and self.step < self.plan.steps and self.watch.healthy

    def _save(self) -> None:
        state = {
            "step": self.step,
            "images": self.plan.identity,
            "damaged": self.damaged,
            "precision": self.learner.precision,
        }
        # A gigabyte may take seconds: who cancels does not wait for it.
        self.run.begin_checkpoint(self.learner.state(), state)
        self._saved, self._saved_at = self.step, time.monotonic()


def _driven(stepping: Any, meter: Meter) -> Job[dict[str, float]]:
    while True:
        try:
            next(stepping)
        except StopIteration as end:
            values: dict[str, float] = end.value
            return values
        yield meter.progress()
