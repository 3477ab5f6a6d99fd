"""The loop of MCM-KD: context windows by epoch, head warm-up, validation, warnings.

`core.training.loop` resumes, saves and judges; here are the windows of each step, what
happens before the first one (target statistics, head warm-up), and what is measured on
held-out windows and by a probe.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_mcm.core.errors import TrainingError
from napari_mcm.core.evaluation.probe_callback import HeldOutProbe
from napari_mcm.core.mcm.config import FinetuneConfig
from napari_mcm.core.mcm.head_pretraining import HeadPretraining
from napari_mcm.core.mcm.trainer import McmTrainer, StepFigures
from napari_mcm.core.mcm.validation import Validation
from napari_mcm.core.mcm.window_pixels import Window, read_window
from napari_mcm.core.mcm.windows import (
    WARM_UP_EPOCH,
    HeldOut,
    Source,
    WindowRef,
    hold_out_blocks,
    plan_epoch,
)
from napari_mcm.core.runtime.jobs import Job, Meter, Note
from napari_mcm.core.runtime.overall import weighed
from napari_mcm.core.runtime.threads import prefetch, report_while_running
from napari_mcm.core.training.loop import Loop, LoopPlan
from napari_mcm.core.training.monitor import first_and_last, median
from napari_mcm.core.training.run import Run
from napari_mcm.core.training.schedule import warmup_cosine

FEW_WINDOWS = 1000
"""Number of windows below which the context added nothing in our studies."""

_PASSES = 4
"""What a window costs in a step, in passes of a window through an encoder."""
_HEAD_PASSES = 0.05
"""What a window costs in an epoch of the head warm-up, whose features are at hand."""

Encode = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Encodes patches."""
Probe = Callable[[Encode], Mapping[str, float]]
"""Measures an encoder on labelled data; returns metrics by name."""


@dataclass(frozen=True)
class WindowPlan:
    """The context windows of a run.

    Attributes
    ----------
    batches : list of list of WindowRef
        Windows of each step, epoch after epoch.
    held_out : tuple of WindowRef
        Windows to validate on.
    slides : list
        Fingerprints of the slides: a run resumes with its own only.
    warm_up : tuple of WindowRef
        Windows for the head warm-up, which no step sees.
    """

    batches: list[list[WindowRef]]
    held_out: tuple[WindowRef, ...]
    slides: list[Any]
    warm_up: tuple[WindowRef, ...] = ()

    @property
    def windows(self) -> int:
        """Number of windows that are trained on, counted once per epoch.

        Returns
        -------
        int
            Sum over all steps.
        """
        return sum(map(len, self.batches))

    def spread(self, count: int) -> list[WindowRef]:
        """Choose windows from all over the run.

        Parameters
        ----------
        count : int
            Number of windows, at most.

        Returns
        -------
        list of WindowRef
            Evenly spaced ones: the first ones alone would flatter the first losses.
        """
        return _spread([ref for batch in self.batches for ref in batch], count)


def plan_windows(
    config: FinetuneConfig, sources: list[Source], mpp: float
) -> WindowPlan:
    """Lay out the windows of all steps, and those that are held out.

    Parameters
    ----------
    config : FinetuneConfig
        Options of the run.
    sources : list of Source
        Open slides with their tissue.
    mpp : float
        Resolution of patches, in microns per pixel.

    Returns
    -------
    WindowPlan
        The windows; each step has at least one.

    Raises
    ------
    TrainingError
        If no window holds enough tissue.
    """
    held_out = hold_out_blocks(sources, config, mpp)
    size = config.optimiser.batch_windows
    epochs = [
        plan_epoch(sources, config, mpp, epoch, held_out)
        for epoch in range(config.optimiser.epochs)
    ]
    batches = [
        epoch[i : i + size] for epoch in epochs for i in range(0, len(epoch), size)
    ]
    if not batches:
        raise TrainingError(
            f"no context window of {config.context.s}×{config.context.s} patches "
            "holds enough tissue",
            hint="Choose a smaller --s or --window-tissue, or other slides",
        )
    slides = [source.slide.fingerprint for source in sources]
    trained = sum(map(len, batches))
    warm_up = _plan_warm_up(config, sources, mpp, held_out, trained)
    return WindowPlan(batches, held_out.refs, slides, warm_up)


def _plan_warm_up(
    config: FinetuneConfig,
    sources: list[Source],
    mpp: float,
    held_out: HeldOut,
    trained: int,
) -> tuple[WindowRef, ...]:
    """Place the windows of the head warm-up, as many as the run has or fewer.

    They have placements of their own: a head that knows the very windows of the steps would
    have less to teach the student there.
    """
    options = config.optimiser
    count = min(options.head_windows, trained)
    refs: list[WindowRef] = []
    if options.head_epochs and options.learn != "statistics":
        for epoch in range(options.epochs):
            if len(refs) < count:
                number = WARM_UP_EPOCH + epoch
                refs += plan_epoch(sources, config, mpp, number, held_out)
    return tuple(_spread(refs, count))


def _spread(refs: list[WindowRef], count: int) -> list[WindowRef]:
    # Evenly spaced over the run: each epoch places its windows elsewhere.
    return refs[:: max(len(refs) // count, 1)][:count]


class FinetuneLoop(Loop[McmTrainer]):
    """The loop of one fine-tuning.

    Parameters
    ----------
    run : Run
        Written to by the main process only.
    trainer : McmTrainer
        Student, teacher and head.
    config : FinetuneConfig
        Options of the run.
    windows : WindowPlan
        Windows to train and to validate on.
    probe : callable, optional
        Measures the student now and then.

    Attributes
    ----------
    damaged : int
        Number of patches that could not be read.
    """

    def __init__(
        self,
        run: Run,
        trainer: McmTrainer,
        config: FinetuneConfig,
        windows: WindowPlan,
        probe: Probe | None = None,
    ) -> None:
        plan = LoopPlan(
            stage="Fine-tuning",
            unit="windows",
            steps=len(windows.batches),
            data="slides",
            identity=windows.slides,
            checkpoint_seconds=config.checkpoint_seconds,
            advice="Try a lower --student-lr and --head-lr, or --batch-norm frozen",
            least_loss=0.0,
        )
        super().__init__(run, trainer, plan)
        self.config, self.windows, self.probe = config, windows, probe
        self.damaged: int = 0
        self.validation = Validation(trainer, windows.held_out, config)
        # An epoch's last batch may be smaller than the others.
        self._counts = [0, *accumulate(map(len, windows.batches))]

    def count_units(self, steps: int) -> int:
        """Count the windows of the first steps.

        Parameters
        ----------
        steps : int
            Number of steps.

        Returns
        -------
        int
            Number of windows.
        """
        return self._counts[steps]

    def durations(self) -> tuple[float, float, float]:
        """Estimate how long the stages take, in passes of a window through an encoder.

        Returns
        -------
        tuple of float
            Targets and head warm-up, held-out windows, steps.
        """
        begin = float(sum(self._beginnings().values()))
        # A step passes its windows through the teacher, and twice as long backwards.
        steps = float(_PASSES * self.windows.windows)
        return begin, float(2 * len(self.windows.held_out)), steps

    def begin(self) -> Job[None]:
        """Measure the targets' statistics and train the head alone, as a job."""
        yield from weighed(self._begin(), self._beginnings())

    def _beginnings(self) -> dict[str, float]:
        """Return the stages before the first step, and how long they take."""
        options = self.config.optimiser
        windows = min(self.config.target.target_windows, self.windows.windows)
        warm = len(self.windows.warm_up) if options.head_epochs else 0
        return {
            "Measuring targets": windows,
            "Encoding for the head warm-up": 2 * warm,
            "Head warm-up": _HEAD_PASSES * warm * options.head_epochs,
        }

    def _begin(self) -> Job[None]:
        yield from self._measure_targets()
        yield from self._describe_method()
        yield from self._warm_up_head()

    def prepare(self) -> Job[None]:
        """Encode the held-out windows once, as a job."""
        if self.trainer.team.is_main_process:
            yield from self.validation.prepare()

    def read_ahead(self) -> Generator[list[Window], None, None]:
        """Read the windows of the steps that are left, in threads.

        Returns
        -------
        generator of list of Window
            This process' part of each step.
        """
        left = self.windows.batches[self.step :]
        # Keeps the threads busy; 4 windows of 4 x 4 patches of 224 px take 10 MB.
        return prefetch(self._read, left, self.config.workers, ahead=3)

    def take_step(
        self, reading: Generator[list[Window], None, None]
    ) -> Job[dict[str, float]]:
        """Read the windows of a step and train on them, as a job.

        Parameters
        ----------
        reading : generator
            What :meth:`read_ahead` reads.

        Returns
        -------
        dict of str to float
            Metrics of the step; NaN where damage left no patch to predict from.
        """
        windows = next(reading)
        began = time.monotonic()
        damaged = sum(window.damaged for window in windows)
        own = sum(int((w.visible | w.masked).sum()) for w in windows)
        counts = torch.tensor([damaged, own], dtype=torch.float64)
        damaged, patches = (int(n) for n in self.trainer.team.total(counts))
        self.damaged += damaged
        figures = StepFigures(*[float("nan")] * 5)
        options, steps = self.config.optimiser, self.plan.steps
        factor = warmup_cosine(self.step, steps, options.warmup)
        # An untrained head's gradients would only disturb the student.
        learning = self.step >= round(options.head_warmup * steps)
        learning = learning and options.moves_student
        if patches:
            # Depends on the step only: a resumed run draws the same dropout.
            seed = options.seed * 1_000_003 + self.step * 1_009
            stepping = self.trainer.step(windows, factor, learning, seed)
            figures = yield from report_while_running(stepping, self.progress())
            # AdaBN has no loss.
            if not self.trainer.adapts_only:
                self.check(figures.loss, figures.grad_norm)
        rate = patches / max(time.monotonic() - began, 1e-9)
        values = {**asdict(figures), "lr_factor": factor, "patches_per_s": rate}
        # Most steps end no block.
        if np.isnan(figures.gradient_coherence):
            del values["gradient_coherence"]
        return values

    def measure(self) -> Job[dict[str, float]]:
        """Measure the student after the first, every k-th and the last step, as a job.

        Returns
        -------
        dict of str to float
            Loss and cosine on held-out windows, and what the probe measures.
        """
        number = self.step + 1
        every = self.config.held_out.validate_every
        if number not in (1, self.plan.steps) and number % every:
            return {}
        values = yield from self.validation.measure(self.meter)
        if self.probe is not None:
            probed = yield from self._try(self.probe)
            values |= {f"probe_{name}": value for name, value in probed.items()}
        return values

    def judge(self, values: Mapping[str, float]) -> Job[None]:
        """Judge a step; warn where the student's features collapse, as a job.

        Parameters
        ----------
        values : mapping of str to float
            Metrics of the step.
        """
        yield from super().judge(values)
        if collapse := self.monitor.collapse():
            yield Note(f"{collapse}; try a lower --student-lr", "warning")

    def summary(self, mpp: float) -> dict[str, Any]:
        """Summarise the run once all steps are done.

        Parameters
        ----------
        mpp : float
            Resolution of patches, in microns per pixel.

        Returns
        -------
        dict
            Ready for JSON.
        """
        metrics = self.run.metrics()
        summary: dict[str, Any] = {
            **first_and_last(metrics.get("loss", [])),
            "patches_per_s": median(metrics.get("patches_per_s", [])),
            "steps": self.plan.steps,
            "windows": self.windows.windows,
            "damaged_patches": self.damaged,
            "mpp": mpp,
            "seconds": self.seconds,
        }
        coherence = median(metrics.get("gradient_coherence", []))
        if np.isfinite(coherence):
            summary["gradient_coherence"] = coherence
        if self.windows.held_out and not self.trainer.adapts_only:
            summary["held_out"] = self.validation.summary(metrics)
        return summary

    def _measure_targets(self) -> Job[None]:
        refs = self.windows.spread(self.config.target.target_windows)
        windows = (read_window(ref, self.config) for ref in refs)
        meter = Meter("Measuring targets", len(refs), "windows")
        yield meter.progress()
        for _ in self.trainer.measure_targets(w for w in windows if w is not None):
            yield meter.advance()

    def _describe_method(self) -> Job[None]:
        """Report how it trains, and what our studies found where context has little."""
        windows = self.windows.windows
        mode = self.config.context.context_mode
        everything = self.config.optimiser.learn == "all"
        if not self.trainer.team.is_main_process or not everything:
            return
        if mode == "none":
            yield Note(
                "plain distillation: each patch is predicted from itself; --preset "
                "neighbours did better in our studies (docs/results.md)"
            )
        elif mode == "neighbours":
            yield Note(
                "context-enriched distillation: each patch predicts the mean of the "
                "teacher's features over the 3 × 3 patches around it; nothing is masked"
            )
        elif mode == "foreign":
            yield Note(
                "control without context: masked patches are predicted from visible "
                "patches of another window of the slide"
            )
        elif mode == "masked" and windows < FEW_WINDOWS:
            yield Note(
                f"{windows} windows to train on: with some thousand, --preset neighbours "
                "did better in our studies (docs/results.md)"
            )

    def _warm_up_head(self) -> Job[None]:
        options = self.config.optimiser
        if not options.head_epochs or self.trainer.adapts_only:
            return
        if self.trainer.team.is_main_process:
            refs, folder = list(self.windows.warm_up), self.run.path / "head_warm_up"
            # Earlier versions warmed up on the windows of the run and kept them in this
            # folder: what they began ends as it would have.
            if (begun := self.run.path / "head_start").is_dir():
                refs, folder = self.windows.spread(options.head_windows), begun
            yield from HeadPretraining(self.trainer, refs, self.config, folder).learn()
        # One process' work, so that all of them have the same bits on any device.
        self.trainer.team.share_weights(self.trainer.head)
        self.save()
        yield from self.run.checkpoint_written(self.progress())

    def _read(self, refs: list[WindowRef]) -> list[Window]:
        own = self.trainer.team.share(refs)
        windows = [read_window(ref, self.config) for ref in own]
        return [window for window in windows if window is not None]

    def _try(self, probe: Probe) -> Job[Mapping[str, float]]:
        student = self.trainer.student
        student.module.eval()
        if not isinstance(probe, HeldOutProbe):
            return probe(student.encode)
        # Hundreds of patches take seconds: a chunk of them at a time.
        trying = probe.steadily(student.encode, student.chunk)
        return (yield from report_while_running(trying, self.progress()))
