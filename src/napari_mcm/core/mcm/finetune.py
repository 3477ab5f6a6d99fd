"""Fine-tuning by masked context modelling, as a job: start, resume, export."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_mcm.core.encoders import load_encoders
from napari_mcm.core.encoders.learned_from import LearnedFrom, training_record
from napari_mcm.core.errors import ConfigError
from napari_mcm.core.grid import common_mpp
from napari_mcm.core.mcm.config import FinetuneConfig
from napari_mcm.core.mcm.export import export_student
from napari_mcm.core.mcm.loop import FinetuneLoop, Probe, plan_windows
from napari_mcm.core.mcm.teacher import TeacherCache, take_from_files
from napari_mcm.core.mcm.trainer import McmTrainer
from napari_mcm.core.mcm.validation import read_probe_slides
from napari_mcm.core.mcm.windows import Source
from napari_mcm.core.runtime.jobs import Job, Note, Progress
from napari_mcm.core.runtime.overall import Stages, weighed
from napari_mcm.core.slides import Slide
from napari_mcm.core.tissue import find_tissue
from napari_mcm.core.training.distributed import DistributedContext, join_process_group
from napari_mcm.core.training.monitor import losses_of
from napari_mcm.core.training.run import Run

_CACHE_MB = 256

_PREPARING = 0.04
"""Share of a fine-tuning that comes before its loop: some seconds of some minutes."""
_STAGES = {
    "Opening slides": 1.0,
    "Finding tissue": 2.0,
    "Reading labelled patches": 2.0,
    "Loading the encoder": 2.0,
    "Reading teacher features": 1.0,
}


@dataclass(frozen=True)
class FinetuneResult:
    """Where a fine-tuning wrote its results, and what it measured.

    Attributes
    ----------
    run_dir : Path
        Configuration, figures and encoder.
    encoder : Path
        Directory of the fine-tuned student: safetensors, recipe and model card.
    loss_first, loss_last : float
        Mean loss over the first and the last tenth of the steps; NaN where there is no
        loss, as only batch-norm statistics moved.
    patches_per_s : float
        Patches of windows, visible and masked, per second.
    steps, windows : int
        Optimiser steps, and context windows that were trained on.
    seconds : float
        Time that the steps of this process took.
    held_out : dict
        Loss and cosine on held-out windows, and the loss of predictions that need no
        student; empty where no window is held out.
    """

    run_dir: Path
    encoder: Path
    loss_first: float
    loss_last: float
    patches_per_s: float
    steps: int
    windows: int
    seconds: float
    held_out: dict[str, float]


def finetune(
    config: FinetuneConfig,
    probe: Probe | None = None,
    cache: TeacherCache | None = None,
) -> Job[FinetuneResult]:
    """Fine-tune a student on slides by MCM-KD or one of its controls, as a job.

    Under ``torchrun`` the processes share each step's windows, and the first one writes.

    Parameters
    ----------
    config : FinetuneConfig
        Slides, student, teacher, run directory and options.
    probe : callable, optional
        Measures the student on labelled data now and then: takes a function that
        encodes patches, returns metrics by name.
    cache : TeacherCache, optional
        Keeps the teacher's features for other runs that see the same windows.

    Yields
    ------
    Event
        Progress in windows, one `Metrics` per step, notes.

    Returns
    -------
    FinetuneResult
        Where the encoder is, and what was measured.

    Raises
    ------
    ConfigError
        If slides or the run directory are not given.
    RunError
        If the directory holds a run already.
    TrainingError
        If there is no window to train on, or the loss diverges.
    """
    if not config.slides:
        raise ConfigError("no slides given to train on")
    if config.out is None:
        raise ConfigError("no run directory given", hint="Choose one with --out")
    with join_process_group() as team:
        if team.is_main_process:
            Run.create(config.out, config.model_dump(mode="json"))
        team.wait()
        return (yield from _finetune(Run.open(config.out), config, team, probe, cache))


def resume_finetune(
    run_dir: Path, probe: Probe | None = None, cache: TeacherCache | None = None
) -> Job[FinetuneResult]:
    """Resume a fine-tuning that was cancelled or killed, as a job.

    The final weights are those of an uninterrupted run, bit for bit on a CPU.

    Parameters
    ----------
    run_dir : Path
        Directory of the run.
    probe : callable, optional
        As for :func:`finetune`.
    cache : TeacherCache, optional
        As for :func:`finetune`.

    Returns
    -------
    FinetuneResult
        Where the encoder is, and what was measured.

    Raises
    ------
    RunError
        If it is no run, or its slides have changed.
    """
    run = Run.open(run_dir, "finetune")
    config = run.options(FinetuneConfig)
    config = config.model_copy(update={"out": run.path})
    with join_process_group() as team:
        return (yield from _finetune(run, config, team, probe, cache))


def _finetune(
    run: Run,
    config: FinetuneConfig,
    team: DistributedContext,
    probe: Probe | None,
    cache: TeacherCache | None,
) -> Job[FinetuneResult]:
    done = run.summary()
    if done is not None:
        yield Note(f"{run.path} is finished already")
        return _result(run, done)
    stages = Stages(_PREPARING, 1.0 - _PREPARING)
    with ExitStack() as stack:
        loop, slides, mpp = yield from stages.next(
            weighed(_prepare(run, config, team, probe, cache, stack), _STAGES)
        )
        learned = _record(config, slides, loop.trainer)
        yield from stages.next(loop.learn())
        summary = loop.summary(mpp)
    if team.is_main_process:
        names = [slide.name for slide in slides]
        student, teacher = loop.trainer.student, loop.trainer.teacher
        # Export, summary, then removal of the checkpoint: a kill in between loses nothing.
        folder = run.path / "encoder"
        export_student(folder, student, teacher, config, summary, names, learned)
        run.finish(summary)
        run.remove_checkpoint()
    team.wait()
    return _result(run, summary)


def _prepare(
    run: Run,
    config: FinetuneConfig,
    team: DistributedContext,
    probe: Probe | None,
    cache: TeacherCache | None,
    stack: ExitStack,
) -> Job[tuple[FinetuneLoop, list[Slide], float]]:
    """Open slides and encoders, and lay out the windows."""
    yield Progress("Opening slides", 0, len(config.slides), "slides")
    slides = [stack.enter_context(config.read.open(path)) for path in config.slides]
    # One resolution for all slides: a window covers the same tissue in each.
    mpp = common_mpp(slides, config.grid)
    sources = []
    for number, slide in enumerate(slides, 1):
        sources.append(Source(slide, find_tissue(slide, config.tissue)))
        yield Progress("Finding tissue", number, len(slides), "slides")
    yield Note(f"patches of {config.grid.patch_size} px at {mpp:.4g} µm per pixel")
    if probe is None and config.held_out.probe_slides and team.is_main_process:
        probe = yield from read_probe_slides(config, mpp, stack)
    windows = plan_windows(config, sources, mpp)
    trainer = yield from _load_trainer(config, sources, mpp, team, cache)
    return FinetuneLoop(run, trainer, config, windows, probe), slides, mpp


def _record(
    config: FinetuneConfig, slides: list[Slide], trainer: McmTrainer
) -> LearnedFrom:
    """Return all slides in the training set of the student."""
    origins = [trainer.student.describe()]
    if not trainer.adapts_only:
        origins.append(trainer.teacher.describe())
    with ExitStack() as stack:
        probes = [
            stack.enter_context(config.read.open(one))
            for one in config.held_out.probe_slides
        ]
        if config.optimiser.learn == "head":
            # The student is what it was, and the head is thrown away.
            return training_record([], origins[:1], [*slides, *probes])
        return training_record(slides, origins, probes)


def _load_trainer(
    config: FinetuneConfig,
    sources: list[Source],
    mpp: float,
    team: DistributedContext,
    cache: TeacherCache | None,
) -> Job[McmTrainer]:
    student, teacher = yield from load_encoders(
        (config.student, config.teacher_spec), team.place(config.compute)
    )
    # Aligned patches come again in each placement; others never do.
    cache = cache or TeacherCache(_CACHE_MB if config.optimiser.aligned else 0)
    if config.teacher_features is not None:
        yield from take_from_files(
            cache, config.teacher_features, teacher, sources, config.grid, mpp
        )
    return McmTrainer(student, teacher, config, team, cache)


def _result(run: Run, summary: dict[str, Any]) -> FinetuneResult:
    first, last = losses_of(summary)
    return FinetuneResult(
        run_dir=run.path,
        encoder=run.path / "encoder",
        loss_first=first,
        loss_last=last,
        patches_per_s=summary["patches_per_s"],
        steps=summary["steps"],
        windows=summary["windows"],
        seconds=summary["seconds"],
        held_out=summary.get("held_out", {}),
    )
