"""The loop of a fine-tuning: where it stands, what it measures, how it saves itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_mcm.core.encoders import Encoder, load_encoders
from napari_mcm.core.errors import RunError, TrainingError
from napari_mcm.core.evaluation.probe_callback import HeldOutProbe
from napari_mcm.core.mcm.config import FinetuneConfig
from napari_mcm.core.mcm.export import export_student
from napari_mcm.core.mcm.head_pretraining import HeadPretraining
from napari_mcm.core.mcm.teacher import TeacherCache, take_from_files
from napari_mcm.core.mcm.trainer import McmTrainer, StepFigures
from napari_mcm.core.mcm.validation import Validation
from napari_mcm.core.mcm.windows import (
    Source,
    Window,
    WindowRef,
    hold_out_blocks,
    plan_epoch,
    read_window,
)
from napari_mcm.core.runtime.jobs import Job, Meter, Metrics, Note, Progress
from napari_mcm.core.runtime.threads import prefetch
from napari_mcm.core.training import Run, warmup_cosine
from napari_mcm.core.training.distributed import DistributedContext
from napari_mcm.core.training.monitor import DivergenceMonitor, first_and_last, median

FEW_WINDOWS = 1000
"""Below, our studies found nothing for the context to add."""
_CACHE_MB = 256

Encode = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
Probe = Callable[[Encode], Mapping[str, float]]
"""Measures an encoder on labelled data: figures by name."""


class FinetuneLoop:
    """One run's loop.

    Parameters
    ----------
    run : Run
        Written to by the first process only.
    config : FinetuneConfig
        All options.
    sources : list of Source
        Open slides.
    mpp : float
        Resolution of patches, in microns per pixel.
    team : DistributedContext
        The processes that train together.
    probe : callable, optional
        Measures the student from time to time.
    cache : TeacherCache, optional
        Keeps the teacher's features between runs.
    """

    def __init__(
        self,
        run: Run,
        config: FinetuneConfig,
        sources: list[Source],
        mpp: float,
        team: DistributedContext,
        probe: Probe | None = None,
        cache: TeacherCache | None = None,
    ) -> None:
        self.run, self.config, self.sources, self.mpp = run, config, sources, mpp
        self.team, self.probe = team, probe
        # What is encoded for the head's start is needed once more.
        starts = config.optimiser.head_epochs > 0
        self.cache = cache or TeacherCache(_CACHE_MB if starts else 0)
        self.slides = [source.slide.fingerprint for source in sources]
        self.held_out = hold_out_blocks(sources, config, mpp)
        size = config.optimiser.batch_windows
        plans = [
            plan_epoch(sources, config, mpp, epoch, self.held_out)
            for epoch in range(config.optimiser.epochs)
        ]
        self.batches = [
            plan[i : i + size] for plan in plans for i in range(0, len(plan), size)
        ]
        if not self.batches:
            raise TrainingError(
                f"no context window of {config.context.s}×{config.context.s} patches "
                "holds enough tissue",
                hint="Choose a smaller --s or --window-tissue, or other slides",
            )
        self.step = 0
        self.damaged = 0
        self._saved, self._saved_at = 0, time.monotonic()

    def learn(self) -> Job[dict[str, Any]]:
        """Train to the end and export the student; returns the summary."""
        config = self.config
        compute = self.team.place(config.compute)
        student, teacher = yield from load_encoders(
            (config.student, config.teacher_spec), compute
        )
        if config.teacher_features is not None:
            yield from take_from_files(
                self.cache,
                config.teacher_features,
                teacher,
                self.sources,
                config.grid,
                self.mpp,
            )
        self.learner = McmTrainer(student, teacher, config, self.team, self.cache)
        yield from self._prepare()
        self.team.wait()
        self.watch = DivergenceMonitor(self.run.metrics())
        self.validation = Validation(self.learner, self.held_out.refs, config)
        if self.team.is_main_process:
            yield from self.validation.prepare()
        started = time.monotonic()
        yield from self._steps()
        summary = self._summary(time.monotonic() - started)
        if self.team.is_main_process:
            self._export(student, teacher, summary)
        return summary

    def _prepare(self) -> Job[None]:
        checkpoint = yield from self.run.read_checkpoint()
        # Nobody writes before everybody has read.
        self.team.wait()
        if checkpoint is None:
            yield from self._measure_targets()
            if self.team.is_main_process:
                self.run.trim_metrics(0)
            yield from self._tell_method()
            yield from self._start_head()
            return
        tensors, state = checkpoint
        if state["slides"] != self.slides:
            raise RunError(
                "its slides are not the ones it was started with", self.run.path
            )
        self.learner.load_state(tensors)
        self.learner.compute_in(state.get("precision", {}))
        self.step, self.damaged = int(state["step"]), int(state["damaged"])
        self._saved = self.step
        if self.team.is_main_process:
            self.run.trim_metrics(self.step)
        yield Note(f"going on at step {self.step + 1} of {len(self.batches)}")

    def _measure_targets(self) -> Job[None]:
        refs = self._some_refs(self.config.target.target_windows)
        windows = (read_window(ref, self.config) for ref in refs)
        meter = Meter("Measuring targets", len(refs), "windows")
        yield meter.progress()
        for _ in self.learner.measure_targets(w for w in windows if w is not None):
            yield meter.advance()

    def _tell_method(self) -> Job[None]:
        """Say how it learns, and what our own studies found where context has little."""
        windows = sum(map(len, self.batches))
        mode = self.config.context.context_mode
        if not self.team.is_main_process or self.config.optimiser.learn != "all":
            return
        if mode == "none":
            yield Note(
                "plain distillation: each patch learns from itself; --preset mcm-kd "
                "predicts masked patches from their context"
            )
        elif mode == "masked" and windows < FEW_WINDOWS:
            yield Note(
                f"{windows} windows to learn from: with a few hundred, --preset distill "
                "did as well or better in our studies (docs/results.md)"
            )

    def _start_head(self) -> Job[None]:
        options = self.config.optimiser
        if not options.head_epochs or self.learner.adapts_only:
            return
        if self.team.is_main_process:
            refs = self._some_refs(options.head_windows)
            folder = self.run.path / "head_start"
            yield from HeadPretraining(self.learner, refs, self.config, folder).learn()
        # One process' work, so that all of them have the same bits on any device.
        self.team.share_weights(self.learner.head)
        self._save()
        yield from self.run.checkpoint_written(Progress("Saving", 0, None))

    def _some_refs(self, count: int) -> list[WindowRef]:
        # From all over the run: the first ones alone would flatter its first losses.
        refs = [ref for batch in self.batches for ref in batch]
        return refs[:: max(len(refs) // count, 1)][:count]

    def _steps(self) -> Job[None]:
        ahead = self.batches[self.step :]
        past = sum(map(len, self.batches[: self.step]))
        meter = Meter("Fine-tuning", past + sum(map(len, ahead)), "windows", past)
        reading = prefetch(self._read, ahead, self.config.workers, ahead=3)
        try:
            for refs, windows in zip(ahead, reading, strict=True):
                yield meter.progress()
                values = yield from self._one_step(windows, meter)
                if self.team.is_main_process:
                    values |= yield from self._measure(meter)
                    self.run.append_metrics(self.step, values)
                meter.advance(len(refs))
                # Counted before anybody can stop here: weights and count go together.
                self.step += 1
                self.learner.settled = True
                if self.team.is_main_process:
                    yield Metrics(self.step - 1, values)
                yield from self._watch(values)
                if self._is_time_to_save():
                    self._save()
                    yield from self.run.checkpoint_written(meter.progress())
            yield meter.progress()
        finally:
            reading.close()
            # A cancel in the middle of an update must not save weights half changed: the
            # checkpoint before stands then.
            unsaved = self.step not in (self._saved, 0, len(self.batches))
            if self.learner.settled and unsaved:
                self._save()

    def _read(self, refs: list[WindowRef]) -> list[Window]:
        windows = [read_window(ref, self.config) for ref in self.team.share(refs)]
        return [window for window in windows if window is not None]

    def _one_step(self, windows: list[Window], meter: Meter) -> Job[dict[str, float]]:
        """Take one step; returns its figures, NaN where damage left nothing to see."""
        began = time.monotonic()
        damaged = sum(window.damaged for window in windows)
        own = sum(int((w.visible | w.masked).sum()) for w in windows)
        counts = self.team.total(torch.tensor([damaged, own], dtype=torch.float64))
        damaged, patches = (int(n) for n in counts)
        self.damaged += damaged
        figures = StepFigures(*[float("nan")] * 5)
        options = self.config.optimiser
        factor = warmup_cosine(self.step, len(self.batches), options.warmup)
        learning = self.step >= round(options.head_warmup * len(self.batches))
        learning = learning and options.moves_student
        if patches:
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
        rate = patches / max(time.monotonic() - began, 1e-9)
        return {**asdict(figures), "lr_factor": factor, "patches_per_s": rate}

    def _measure(self, meter: Meter) -> Job[dict[str, float]]:
        """Measure on what is kept out: after the first step, every k, after the last."""
        number = self.step + 1
        every = self.config.held_out.validate_every
        if number not in (1, len(self.batches)) and number % every:
            return {}
        values = yield from self.validation.measure(meter)
        if self.probe is not None:
            found = yield from self._try(self.probe, meter)
            values |= {f"probe_{name}": value for name, value in found.items()}
        return values

    def _try(self, probe: Probe, meter: Meter) -> Job[Mapping[str, float]]:
        student = self.learner.student
        student.module.eval()
        if not isinstance(probe, HeldOutProbe):
            return probe(student.encode)
        # Hundreds of patches take seconds: those that are computed at a time.
        trying = probe.steadily(student.encode, student.chunk)
        while True:
            try:
                next(trying)
            except StopIteration as end:
                found: Mapping[str, float] = end.value
                return found
            yield meter.progress()

    def _check(self, figures: StepFigures) -> None:
        if self.learner.adapts_only:
            return
        if not np.isfinite([figures.loss, figures.grad_norm]).all():
            raise self._divergence(f"it is {figures.loss}")

    def _watch(self, values: Mapping[str, float]) -> Job[None]:
        self.watch.add(values)
        if self.watch.diverged:
            # The last checkpoint is of a step before, when all was well.
            self.learner.settled = False
            raise self._divergence(f"it has risen to {values['loss']:.3g}")
        collapse = self.watch.collapse()
        if collapse:
            yield Note(f"{collapse}; try a lower --student-lr", "warning")

    def _divergence(self, what: str) -> TrainingError:
        return TrainingError(
            f"the loss diverged at step {self.step + 1} ({what})",
            self.run.path,
            "Try a lower --student-lr and --head-lr, or --batch-norm frozen; the last "
            "good checkpoint is kept",
        )

    def _is_time_to_save(self) -> bool:
        last = self.step == len(self.batches)
        due = time.monotonic() - self._saved_at >= self.config.checkpoint_seconds
        return due and not last and self.watch.healthy

    def _save(self) -> None:
        if not self.team.is_main_process:
            return
        state = {
            "step": self.step,
            "slides": self.slides,
            "damaged": self.damaged,
            "precision": self.learner.precision,
        }
        # Who cancels does not wait until it is written.
        self.run.begin_checkpoint(self.learner.state(), state)
        self._saved, self._saved_at = self.step, time.monotonic()

    def _summary(self, seconds: float) -> dict[str, Any]:
        metrics = self.run.metrics()
        summary: dict[str, Any] = {
            **first_and_last(metrics.get("loss", [])),
            "patches_per_s": median(metrics.get("patches_per_s", [])),
            "steps": len(self.batches),
            "windows": sum(map(len, self.batches)),
            "damaged_patches": self.damaged,
            "mpp": self.mpp,
            "seconds": seconds,
        }
        if self.held_out.refs and not self.learner.adapts_only:
            summary["held_out"] = self.validation.summary(metrics)
        return summary

    def _export(
        self, student: Encoder, teacher: Encoder, summary: dict[str, Any]
    ) -> None:
        slides = [source.slide.name for source in self.sources]
        export_student(
            self.run.path / "encoder", student, teacher, self.config, summary, slides
        )
