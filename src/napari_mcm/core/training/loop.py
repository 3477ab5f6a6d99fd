"""The loop under every training: resume, step, record, judge, save.

A method supplies its trainer, its data and its step; the loop reads the checkpoint, writes
``metrics.csv``, stops a training whose loss diverges, and saves it in the background every
few seconds and when it is cancelled. A resumed run ends in the same weights as one that was
never interrupted: weights and number of steps are only ever saved together.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from napari_mcm.core.errors import RunError, TrainingError
from napari_mcm.core.runtime.jobs import Job, Meter, Metrics, Note, Progress
from napari_mcm.core.runtime.overall import Stages
from napari_mcm.core.runtime.threads import run_in_thread
from napari_mcm.core.training.monitor import DivergenceMonitor
from napari_mcm.core.training.run import Run
from napari_mcm.core.training.trainer import Trainer

AnyTrainer = TypeVar("AnyTrainer", bound=Trainer)


@dataclass(frozen=True, kw_only=True)
class LoopPlan:
    """The length of a loop, and what it needs to save and report itself.

    Attributes
    ----------
    stage : str
        What is being done, for people.
    unit : str
        What progress counts, in the plural.
    steps : int
        Steps in total.
    data : str
        What it trains on, in the plural; names `identity` in checkpoints.
    identity : object
        Distinguishes one data set from another, ready for JSON: a run resumes with its
        own only.
    checkpoint_seconds : float
        Time between checkpoints, in seconds.
    advice : str
        What to do where the loss diverges.
    least_loss : float
        As for :class:`DivergenceMonitor`.
    step_name : str
        What people call a step.
    saves_last : bool
        Whether the state after the last step is saved too, as more work follows.
    """

    stage: str
    unit: str
    steps: int
    data: str
    identity: Any
    checkpoint_seconds: float
    advice: str
    least_loss: float = 1e-12
    step_name: str = "step"
    saves_last: bool = False


class Loop(ABC, Generic[AnyTrainer]):
    """Drive one training from its checkpoint to its last step.

    Parameters
    ----------
    run : Run
        Keeps metrics and checkpoint; only the main process writes to it.
    trainer : Trainer
        Holds the weights.
    plan : LoopPlan
        How long to train, and how to report it.

    Attributes
    ----------
    step : int
        Steps done.
    damaged : object
        What could not be read so far, ready for JSON.
    seconds : float
        Time that the steps of this process took, in seconds.
    """

    def __init__(self, run: Run, trainer: AnyTrainer, plan: LoopPlan) -> None:
        self.run, self.trainer, self.plan = run, trainer, plan
        self.step = 0
        self.damaged: Any = None
        self.seconds = 0.0
        self.meter = Meter(plan.stage, None, plan.unit)
        self._saved, self._saved_at = 0, time.monotonic()

    @abstractmethod
    def take_step(self, reading: Generator[Any, None, None]) -> Job[dict[str, float]]:
        """Read a batch and train on it, as a job.

        Parameters
        ----------
        reading : generator
            What :meth:`read_ahead` reads.

        Returns
        -------
        dict of str to float
            Metrics of the step; ``loss`` is NaN where there was nothing to train on.
        """

    def read_ahead(self) -> Generator[Any, None, None]:
        """Read the data of the steps that are left; closed when the loop ends.

        Yields
        ------
        object
            Whatever :meth:`take_step` takes.
        """
        yield from ()

    def count_units(self, steps: int) -> int:
        """Count what progress counts in the first steps.

        Parameters
        ----------
        steps : int
            Number of steps.

        Returns
        -------
        int
            Number of units, such as images.
        """
        return steps

    def begin(self) -> Job[None]:
        """Prepare the weights of a run that has no checkpoint yet, as a job."""
        yield from ()

    def prepare(self) -> Job[None]:
        """Prepare what every process needs before its first step, as a job."""
        yield from ()

    def measure(self) -> Job[dict[str, float]]:
        """Measure the weights after a step, as a job.

        Returns
        -------
        dict of str to float
            Metrics on data that is held out; empty where this step has none.
        """
        yield from ()
        return {}

    def describe(self, values: Mapping[str, float]) -> Mapping[str, float]:
        """Prepare the metrics of a step for those who follow the job.

        Parameters
        ----------
        values : mapping of str to float
            Metrics as they are written.

        Returns
        -------
        mapping of str to float
            Metrics as they are reported.
        """
        return values

    @property
    def is_over(self) -> bool:
        """Whether training stops before its last step.

        Returns
        -------
        bool
            True to stop.
        """
        return False

    def progress(self) -> Progress:
        """Return how far the training has come.

        Returns
        -------
        Progress
            Units done and in total.
        """
        return self.meter.progress()

    def state(self) -> dict[str, Any]:
        """Collect what a checkpoint holds beside tensors.

        Returns
        -------
        dict
            Ready for JSON.
        """
        return {
            "step": self.step,
            self.plan.data: self.plan.identity,
            "damaged": self.damaged,
            "precision": self.trainer.precision,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what a checkpoint holds beside tensors.

        Parameters
        ----------
        state : mapping
            As :meth:`state` returned it.

        Raises
        ------
        RunError
            If the data have changed since.
        """
        if state[self.plan.data] != self.plan.identity:
            raise RunError(
                f"its {self.plan.data} are not the ones it was started with",
                self.run.path,
            )
        self.step, self.damaged = int(state["step"]), state["damaged"]
        # Checkpoints of early versions do not state it.
        if state.get("precision"):
            self.trainer.compute_in(state["precision"])

    def learn(self) -> Job[None]:
        """Train to the last step, from the checkpoint where there is one, as a job.

        Yields
        ------
        Event
            Progress, one `Metrics` per step, notes.

        Raises
        ------
        RunError
            If the data are not those of the checkpoint.
        TrainingError
            If the loss diverges.
        """
        stages = Stages(*self.durations())
        yield from stages.next(self._restore())
        self.monitor = DivergenceMonitor(self.run.metrics(), self.plan.least_loss)
        yield from stages.next(self.prepare())
        yield from stages.next(self._all_steps())

    def durations(self) -> tuple[float, float, float]:
        """Estimate how long :meth:`begin`, :meth:`prepare` and the steps take.

        Returns
        -------
        tuple of float
            In any unit; they divide the bar of the job.
        """
        return 0.0, 0.0, 1.0

    def _all_steps(self) -> Job[None]:
        plan, began = self.plan, time.monotonic()
        total, done = (self.count_units(n) for n in (plan.steps, self.step))
        self.meter = Meter(plan.stage, total, plan.unit, done)
        with closing(self.read_ahead()) as reading:
            try:
                while self.step < plan.steps and not self.is_over:
                    yield from self._one_step(reading)
                    if self._is_time_to_save():
                        self.save()
                        yield from self.run.checkpoint_written(self.progress())
                yield self.progress()
            finally:
                # A cancel in the middle of an update must not save weights half changed:
                # the earlier checkpoint stands then.
                unsaved = self.step not in (0, self._saved)
                last = self.step == plan.steps and not plan.saves_last
                if self.trainer.settled and unsaved and not last:
                    self.save()
        # What follows may change the weights that are being written.
        yield from self.run.checkpoint_written(self.progress())
        self.seconds = time.monotonic() - began

    def save(self) -> None:
        """Begin to write a checkpoint in the background; cancelling does not wait."""
        if self.trainer.team.is_main_process:
            self.run.begin_checkpoint(self.trainer.state(), self.state())
            self._saved, self._saved_at = self.step, time.monotonic()

    def check(self, *values: float) -> None:
        """Stop the training if its loss or its gradient is not finite.

        Parameters
        ----------
        *values : float
            The loss, and where there is one the norm of the gradient.

        Raises
        ------
        TrainingError
            If one of them is infinite or NaN; the weights are not saved then.
        """
        if not np.isfinite(values).all():
            raise self._divergence(f"it is {values[0]}")

    def judge(self, values: Mapping[str, float]) -> Job[None]:
        """Judge the metrics of a step that is done, as a job.

        Parameters
        ----------
        values : mapping of str to float
            Metrics of the step.

        Raises
        ------
        TrainingError
            If the loss has diverged; the last good checkpoint is kept.
        """
        yield from ()
        self.monitor.add(values)
        if self.monitor.diverged:
            raise self._divergence(f"it has risen to {values['loss']:.3g}")

    def _restore(self) -> Job[None]:
        checkpoint = yield from self.run.read_checkpoint()
        team = self.trainer.team
        # Nobody writes before everybody has read.
        team.wait()
        if checkpoint is not None:
            tensors, state = checkpoint
            self.restore(state)
            yield from run_in_thread(
                "Reading the checkpoint", self.trainer.load_state, tensors
            )
            self._saved = self.step
        if team.is_main_process:
            self.run.trim_metrics(self.step)
        if checkpoint is None:
            yield from self.begin()
        else:
            yield Note(f"{self.plan.stage}: resuming at {self._place()}")
        team.wait()

    def _one_step(self, reading: Generator[Any, None, None]) -> Job[None]:
        yield self.progress()
        values = yield from self.take_step(reading)
        writes = self.trainer.team.is_main_process
        if writes:
            values |= yield from self.measure()
            self.run.append_metrics(self.step, values)
        done, after = (self.count_units(self.step + n) for n in (0, 1))
        self.meter.advance(after - done)
        # Counted before a cancel can come: weights and count go together.
        self.step += 1
        self.trainer.settled = True
        if writes:
            yield Metrics(self.step - 1, self.describe(values))
        yield from self.judge(values)

    def _is_time_to_save(self) -> bool:
        due = time.monotonic() - self._saved_at >= self.plan.checkpoint_seconds
        return due and self.step < self.plan.steps and self.monitor.healthy

    def _divergence(self, what: str) -> TrainingError:
        # The last checkpoint is of an earlier step, when the loss was still low.
        self.trainer.settled = False
        return TrainingError(
            f"the loss diverged at {self._place()} ({what})",
            self.run.path,
            f"{self.plan.advice}; the last good checkpoint is kept",
        )

    def _place(self) -> str:
        return f"{self.plan.step_name} {self.step + 1} of {self.plan.steps}"
