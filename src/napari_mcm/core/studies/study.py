"""A grid of arms, seeds and folds as one long job that can be resumed."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from napari_mcm.core.errors import ConfigError, McmError, RunError
from napari_mcm.core.mcm import FinetuneConfig
from napari_mcm.core.mcm.finetune import finetune, resume_finetune
from napari_mcm.core.mcm.teacher import TeacherCache
from napari_mcm.core.runtime.files import write_json
from napari_mcm.core.runtime.jobs import Event, Job, Meter, Metrics, Note, Progress
from napari_mcm.core.studies.study_config import (
    StudyConfig,
    StudySlide,
    Trial,
    arm_config,
    make_folds,
    make_trials,
)
from napari_mcm.core.studies.study_table import Row, draw_study, write_tables
from napari_mcm.core.training.run import Run


class ArmEvaluator(Protocol):
    """Measures an encoder on labelled slides."""

    def __call__(
        self,
        encoder: str,
        train: Sequence[StudySlide],
        test: Sequence[StudySlide],
        folder: Path,
        config: FinetuneConfig,
        options: Mapping[str, Any],
    ) -> Job[dict[str, float]]:
        """Measure an encoder, as a job.

        Parameters
        ----------
        encoder : str
            What :func:`load_encoder` takes.
        train, test : sequence of StudySlide
            Slides whose labels classifiers are trained on, and slides to test on.
        folder : Path
            Folder for features.
        config : FinetuneConfig
            Patches and tissue of the study.
        options : mapping
            The study's options of the evaluation.

        Returns
        -------
        dict of str to float
            Value by measure.
        """


@dataclass(frozen=True)
class StudyResult:
    """Result of a study.

    Attributes
    ----------
    out : Path
        Its directory.
    table, csv : Path
        Metrics by arm as Markdown; one row per trial as CSV.
    figure : Path or None
        The same as a figure; None where there are no metrics.
    cells : int
        Number of finished trials.
    failed : tuple of str
        One line for each trial that failed.
    seconds : float
        Time spent in this process.
    """

    out: Path
    table: Path
    csv: Path
    figure: Path | None
    cells: int
    failed: tuple[str, ...]
    seconds: float


def run_study(
    config: StudyConfig, judge: ArmEvaluator | None = None
) -> Job[StudyResult]:
    """Run the unfinished trials of a study and write its table, as a job.

    A finished trial has a ``summary.json``; an interrupted one resumes its fine-tuning.
    The table is written after each trial, so that you can read it while the rest runs;
    the figure is drawn at the end.

    Parameters
    ----------
    config : StudyConfig
        Slides, arms, seeds, folds.
    judge : callable, optional
        Measures an encoder; by default the measures of ``napari-mcm evaluate``.

    Yields
    ------
    Event
        Progress in trials and within them, metrics, notes.

    Returns
    -------
    StudyResult
        Table and figure.

    Raises
    ------
    ConfigError
        If slides, arms or the directory are missing, or an arm's options are wrong.
    RunError
        If a finished trial was made with other options.
    """
    began = time.monotonic()
    cells = _checked_cells(config)
    assert config.out is not None
    judge = judge or _default_evaluator(config)
    write_json(config.out / "study.json", config.model_dump(mode="json"))
    done = [summary for cell in cells if (summary := _summary(config, cell))]
    meter = Meter("Study", len(cells), "trials", len(done))
    cache = TeacherCache(config.teacher_cache_mb)
    failed: list[str] = []
    for number, cell in enumerate(cells, 1):
        if _summary(config, cell) is not None:
            continue
        yield meter.progress()
        try:
            job = _run_cell(config, cell, judge, cache)
            done.append(
                (yield from _inside(f"Trial {number}/{len(cells)}, {cell.name}", job))
            )
        except (ConfigError, RunError):
            raise
        except McmError as error:
            failed.append(f"{cell.name}: {error}")
            yield Note(failed[-1], "warning")
        yield meter.advance()
        _write_tables(config, done)
    table, csv = _write_tables(config, done)
    figure = draw_study(config.out / "study.png", _rows(done), config)
    yield meter.progress()
    if cache.asked:
        yield Note(cache.describe())
    seconds = time.monotonic() - began
    return StudyResult(
        config.out, table, csv, figure, len(done), tuple(failed), seconds
    )


def _checked_cells(config: StudyConfig) -> list[Trial]:
    """List the trials once all arms' options are known to be valid.

    Raises
    ------
    ConfigError
        If slides, arms or the directory are missing, or an option is wrong.
    """
    if not config.slides or not config.arms:
        raise ConfigError("a study needs slides and arms")
    if config.out is None:
        raise ConfigError("no directory given", hint="Choose one with --out")
    for slide in config.slides:
        for path in (slide.slide, slide.labels):
            if path is not None and not path.exists():
                raise ConfigError(
                    "file does not exist", path, "Check the study's paths"
                )
    for name in config.arms:
        arm_config(config, name, 0, (), None)
    return make_trials(config, make_folds(config))


def _default_evaluator(config: StudyConfig) -> ArmEvaluator:
    from napari_mcm.core.studies import study_evaluation

    # Wrong options are reported before any trial runs.
    study_evaluation.evaluation_options(config.evaluation)
    return study_evaluation.evaluate_arm


def _inside(stage: str, job: Job[dict[str, Any]]) -> Job[dict[str, Any]]:
    """Pass a trial's events on, with its name."""
    try:
        while True:
            try:
                event: Event = next(job)
            except StopIteration as end:
                result: dict[str, Any] = end.value
                return result
            if isinstance(event, Progress):
                yield replace(event, stage=f"{stage}: {event.stage}")
            elif isinstance(event, Metrics) or event.level == "warning":
                yield event
    finally:
        job.close()


def _run_cell(
    config: StudyConfig, cell: Trial, judge: ArmEvaluator, cache: TeacherCache
) -> Job[dict[str, Any]]:
    began = time.monotonic()
    assert config.out is not None
    folder = cell.folder(config.out)
    arm = config.arms[cell.arm]
    options = _options(config, cell)
    write_json(folder / "cell.json", _identity(config, cell))
    training: dict[str, Any] = {}
    if arm.encoder is None:
        yield from _fine_tune(options, cache)
        training = Run.open(folder / "run").summary() or {}
        encoder = str(folder / "run")
    else:
        known = {"student": config.student, "teacher": config.teacher}
        encoder = known.get(arm.encoder, arm.encoder)
    trained = time.monotonic()
    # An encoder that is not fine-tuned has the same features in all folds.
    shared = config.out / "features" / cell.arm
    features = folder / "features" if arm.encoder is None else shared
    figures: dict[str, float] = yield from judge(
        encoder,
        cell.fold.train,
        cell.fold.test,
        features,
        options,
        config.evaluation,
    )
    summary = {
        "fold": cell.fold.name,
        "seed": cell.seed,
        "arm": cell.arm,
        "figures": dict(figures),
        "training": training,
        "seconds": {
            "training": trained - began,
            "evaluation": time.monotonic() - trained,
        },
    }
    write_json(folder / "summary.json", summary)
    if arm.encoder is None and not config.keep_features:
        shutil.rmtree(features, ignore_errors=True)
    return summary


def _fine_tune(options: FinetuneConfig, cache: TeacherCache) -> Job[None]:
    assert options.out is not None
    if not (options.out / "config.json").exists():
        yield from finetune(options, cache=cache)
        return
    yield from resume_finetune(options.out, cache=cache)


def _options(config: StudyConfig, cell: Trial) -> FinetuneConfig:
    assert config.out is not None
    slides = tuple(slide.slide for slide in cell.fold.train)
    run = cell.folder(config.out) / "run"
    return arm_config(config, cell.arm, cell.seed, slides, run)


def _identity(config: StudyConfig, cell: Trial) -> dict[str, Any]:
    """Return everything that a trial's metrics depend on, ready for JSON."""
    arm = config.arms[cell.arm]
    return {
        "options": None if arm.encoder else _relevant(_options(config, cell)),
        "encoder": arm.encoder,
        "test": [slide.model_dump(mode="json") for slide in cell.fold.test],
        "evaluation": dict(config.evaluation),
    }


def _relevant(options: FinetuneConfig) -> dict[str, Any]:
    """Return the options that metrics depend on; a preset's name adds nothing to them."""
    irrelevant = {"out", "workers", "checkpoint_seconds", "compute", "preset"}
    return options.model_dump(mode="json", exclude=irrelevant)


def _begun(folder: Path) -> dict[str, Any] | None:
    """Read a trial's options; those that an older version did not have get their default."""
    begun = _read(folder / "cell.json")
    if begun is None or begun["options"] is None:
        return begun
    try:
        options = FinetuneConfig.model_validate(begun["options"])
    except ValidationError:
        return begun
    return begun | {"options": _relevant(options)}


def _summary(config: StudyConfig, cell: Trial) -> dict[str, Any] | None:
    """Read a trial's result; None if it is not finished.

    Raises
    ------
    RunError
        If it was started with other options.
    """
    assert config.out is not None
    folder = cell.folder(config.out)
    begun = _begun(folder)
    if begun is not None and begun != json.loads(json.dumps(_identity(config, cell))):
        raise RunError(
            "was started with other options or slides",
            folder,
            "Remove it to run it again, or choose another --out",
        )
    return _read(folder / "summary.json")


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(
            f"cannot be read ({error})", path, "Remove it to run its trial again"
        ) from error
    return content


def _write_tables(
    config: StudyConfig, done: Sequence[Mapping[str, Any]]
) -> tuple[Path, Path]:
    assert config.out is not None
    return write_tables(config.out, _rows(done), config)


def _rows(done: Sequence[Mapping[str, Any]]) -> list[Row]:
    return [Row.of_summary(summary) for summary in done]
