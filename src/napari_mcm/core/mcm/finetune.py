"""Fine-tuning by masked context modelling, as a long job."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_mcm.core.encoders import Encoder, load_encoder
from napari_mcm.core.errors import ConfigError, RunError, TrainingError
from napari_mcm.core.grid import common_mpp
from napari_mcm.core.jobs import Job, Meter, Metrics, Note, Progress
from napari_mcm.core.mcm.config import FinetuneConfig
from napari_mcm.core.mcm.export import export_student
from napari_mcm.core.mcm.learner import Learner, StepFigures
from napari_mcm.core.mcm.windows import (
    Source,
    Window,
    WindowRef,
    plan_epoch,
    read_window,
)
from napari_mcm.core.prefetch import prefetch
from napari_mcm.core.tissue import find_tissue
from napari_mcm.core.training import Run, warmup_cosine


@dataclass(frozen=True)
class FinetuneResult:
    """What a fine-tuning leaves.

    Attributes
    ----------
    run_dir : Path
        Configuration, figures and encoder.
    encoder : Path
        Directory of the fine-tuned student: safetensors, recipe and model card.
    loss_first, loss_last : float
        Mean loss over the first and the last tenth of the steps.
    patches_per_s : float
        Patches of windows, seen and masked, a second.
    steps, windows : int
        Optimiser steps, and context windows learned from.
    seconds : float
        Time spent in this process.
    """

    run_dir: Path
    encoder: Path
    loss_first: float
    loss_last: float
    patches_per_s: float
    steps: int
    windows: int
    seconds: float


def finetune(config: FinetuneConfig) -> Job[FinetuneResult]:
    """Fine-tune a student on slides by MCM-KD.

    Parameters
    ----------
    config : FinetuneConfig
        Slides, student, teacher, run directory and options.

    Yields
    ------
    Event
        Progress in windows, one `Metrics` a step, notes.

    Returns
    -------
    FinetuneResult

    Raises
    ------
    ConfigError
        If slides or the run directory are not given.
    RunError
        If the directory holds a run already.
    TrainingError
        If there is no window to learn from, or the loss diverges.
    """
    if not config.slides:
        raise ConfigError("no slides given to learn from")
    if config.out is None:
        raise ConfigError("no run directory given", hint="Choose one with --out")
    run = Run.create(config.out, config.model_dump(mode="json"))
    return (yield from _finetune(run, config))


def resume_finetune(run_dir: Path) -> Job[FinetuneResult]:
    """Go on with a fine-tuning that was cancelled or killed.

    The final weights are those of an undisturbed run, bit for bit on a CPU.

    Parameters
    ----------
    run_dir : Path
        Directory of the run.

    Raises
    ------
    RunError
        If it is no run, or its slides have changed.
    """
    run = Run.open(run_dir)
    config = FinetuneConfig.model_validate(run.config())
    return (yield from _finetune(run, config.model_copy(update={"out": run.path})))


def _finetune(run: Run, config: FinetuneConfig) -> Job[FinetuneResult]:
    done = run.summary()
    if done is not None:
        yield Note(f"{run.path} is finished already")
        return _result(run, done)
    with ExitStack() as stack:
        yield Progress("Opening slides", 0, len(config.slides), "slides")
        slides = [stack.enter_context(config.read.open(path)) for path in config.slides]
        mpp = common_mpp(slides, config.grid)
        sources = []
        for number, slide in enumerate(slides, 1):
            sources.append(Source(slide, find_tissue(slide, config.tissue)))
            yield Progress("Finding tissue", number, len(slides), "slides")
        yield Note(f"patches of {config.grid.patch_size} px at {mpp:.4g} µm per pixel")
        training = _Training(run, config, sources, mpp)
        summary = yield from training.learn()
    run.finish(summary)
    run.remove_checkpoint()
    return _result(run, summary)


class _Training:
    """One run's loop: where it stands, and how it saves itself."""

    def __init__(
        self, run: Run, config: FinetuneConfig, sources: list[Source], mpp: float
    ) -> None:
        self.run, self.config, self.sources, self.mpp = run, config, sources, mpp
        self.slides = [source.slide.fingerprint for source in sources]
        self.plans = [
            plan_epoch(sources, config, mpp, epoch)
            for epoch in range(config.optimiser.epochs)
        ]
        size = config.optimiser.batch_windows
        self.batches = [
            plan[i : i + size] for plan in self.plans for i in range(0, len(plan), size)
        ]
        if not self.batches:
            raise TrainingError(
                f"no context window of {config.context.s}×{config.context.s} patches "
                "holds enough tissue",
                hint="Choose a smaller --s or --window-tissue, or other slides",
            )
        self.step = 0
        self.damaged = 0
        self._saved_at = time.monotonic()

    def learn(self) -> Job[dict[str, Any]]:
        """Train to the end and export the student; returns the summary."""
        config = self.config
        yield Progress("Loading encoders", 0, None, "encoders")
        student = load_encoder(config.student, config.compute)
        teacher = load_encoder(config.teacher, config.compute)
        self.learner = Learner(student, teacher, config)
        yield from self._prepare()
        started = time.monotonic()
        yield from self._steps()
        return self._summary(student, teacher, time.monotonic() - started)

    def _prepare(self) -> Job[None]:
        checkpoint = self.run.load_checkpoint()
        if checkpoint is None:
            yield Progress("Measuring targets", 0, None, "windows")
            self.learner.measure_targets(list(self._some_windows(16)))
            self.run.trim_metrics(0)
            return
        tensors, state = checkpoint
        if state["slides"] != self.slides:
            raise RunError(
                "its slides are not the ones it was started with", self.run.path
            )
        self.learner.load_state(tensors)
        self.step, self.damaged = int(state["step"]), int(state["damaged"])
        self.run.trim_metrics(self.step)
        yield Note(f"going on at step {self.step + 1} of {len(self.batches)}")

    def _some_windows(self, count: int) -> Iterator[Window]:
        # From all over the run: the first ones alone would flatter its first losses.
        refs = [ref for batch in self.batches for ref in batch]
        refs = refs[:: max(len(refs) // count, 1)][:count]
        return (w for ref in refs if (w := read_window(ref, self.config)) is not None)

    def _steps(self) -> Job[None]:
        ahead = self.batches[self.step :]
        past = sum(map(len, self.batches[: self.step]))
        meter = Meter("Fine-tuning", past + sum(map(len, ahead)), "windows", past)
        reading = prefetch(self._read, ahead, self.config.workers, ahead=3)
        try:
            for refs, windows in zip(ahead, reading, strict=True):
                yield meter.progress()
                values = yield from self._one_step(windows, meter)
                self.run.append_metrics(self.step, values)
                meter.advance(len(refs))
                # Counted before anybody can stop here: weights and count go together.
                self.step += 1
                self.learner.settled = True
                yield Metrics(self.step - 1, values)
                if self._is_time_to_save():
                    self._save()
            yield meter.progress()
        finally:
            reading.close()
            # A cancel in the middle of an update must not save weights half changed: the
            # checkpoint before stands then.
            if self.learner.settled and 0 < self.step < len(self.batches):
                self._save()

    def _read(self, refs: list[WindowRef]) -> list[Window]:
        windows = [read_window(ref, self.config) for ref in refs]
        return [window for window in windows if window is not None]

    def _one_step(self, windows: list[Window], meter: Meter) -> Job[dict[str, float]]:
        """Take one step; returns its figures, NaN where damage left nothing to see."""
        began = time.monotonic()
        self.damaged += sum(window.damaged for window in windows)
        figures = StepFigures(*[float("nan")] * 4)
        options = self.config.optimiser
        factor = warmup_cosine(self.step, len(self.batches), options.warmup)
        learning = self.step >= round(options.head_warmup * len(self.batches))
        if windows:
            seed = options.seed * 1_000_003 + self.step * 1_009
            stepping = self.learner.step(windows, factor, learning, seed)
            while True:
                try:
                    next(stepping)
                except StopIteration as end:
                    figures = end.value
                    break
                yield meter.progress()
            self._check(figures)
        patches = sum(int((w.visible | w.masked).sum()) for w in windows)
        rate = patches / max(time.monotonic() - began, 1e-9)
        return {**asdict(figures), "lr_factor": factor, "patches_per_s": rate}

    def _check(self, figures: StepFigures) -> None:
        if not np.isfinite([figures.loss, figures.grad_norm]).all():
            raise TrainingError(
                f"the loss diverged at step {self.step + 1} (it is {figures.loss})",
                self.run.path,
                "Try a lower --student-lr and --head-lr; the last checkpoint is kept",
            )

    def _is_time_to_save(self) -> bool:
        last = self.step == len(self.batches)
        due = time.monotonic() - self._saved_at >= self.config.checkpoint_seconds
        return due and not last

    def _save(self) -> None:
        state = {"step": self.step, "slides": self.slides, "damaged": self.damaged}
        self.run.save_checkpoint(self.learner.state(), state)
        self._saved_at = time.monotonic()

    def _summary(
        self, student: Encoder, teacher: Encoder, seconds: float
    ) -> dict[str, Any]:
        metrics = self.run.metrics()
        losses = np.asarray(metrics["loss"])
        tenth = max(len(losses) // 10, 1)
        summary: dict[str, Any] = {
            "loss_first": float(np.nanmean(losses[:tenth])),
            "loss_last": float(np.nanmean(losses[-tenth:])),
            "patches_per_s": float(np.nanmedian(metrics["patches_per_s"])),
            "steps": len(self.batches),
            "windows": sum(map(len, self.batches)),
            "damaged_patches": self.damaged,
            "mpp": self.mpp,
            "seconds": seconds,
        }
        slides = [source.slide.name for source in self.sources]
        export_student(
            self.run.path / "encoder", student, teacher, self.config, summary, slides
        )
        return summary


def _result(run: Run, summary: dict[str, Any]) -> FinetuneResult:
    return FinetuneResult(
        run_dir=run.path,
        encoder=run.path / "encoder",
        loss_first=summary["loss_first"],
        loss_last=summary["loss_last"],
        patches_per_s=summary["patches_per_s"],
        steps=summary["steps"],
        windows=summary["windows"],
        seconds=summary["seconds"],
    )
