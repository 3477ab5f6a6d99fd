"""A grid of arms, seeds and folds as one long job that can be resumed and shared.

Each trial fine-tunes an encoder (or takes one as it is), measures it on labelled slides of
the fold and in the click test on serial sections, and writes ``summary.json``. A lock per
trial lets several processes work in one folder.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from napari_mcm.core.encoders.cost import recipe_cost
from napari_mcm.core.errors import ConfigError, McmError, RunError
from napari_mcm.core.features.format import SUFFIX, attributes_of
from napari_mcm.core.features.write_lock import WriteLock, WriteLockHeldError
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
from napari_mcm.core.studies.study_differences import Row, rows_of
from napari_mcm.core.studies.study_records import (
    has_all,
    read_summary,
    trial_identity,
    trial_options,
)
from napari_mcm.core.studies.study_table import draw_study, write_tables
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
        study: StudyConfig,
    ) -> Job[dict[int, dict[str, float]]]:
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
        study : StudyConfig
            Options of the evaluation, and context radii.

        Returns
        -------
        dict of int to dict of str to float
            Value by context radius and measure.
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
    config: StudyConfig,
    judge: ArmEvaluator | None = None,
    arms: Sequence[str] = (),
) -> Job[StudyResult]:
    """Run the unfinished trials of a study and write its table, as a job.

    A finished trial has a ``summary.json``; an interrupted one resumes its fine-tuning.
    The table is written after each trial, so that you can read it while the rest runs;
    the figure is drawn at the end. Several processes may run one study: each skips the
    trials that another one is running, and waits for them at the end.

    Parameters
    ----------
    config : StudyConfig
        Slides, arms, seeds, folds.
    judge : callable, optional
        Measures an encoder; by default the measures of ``napari-mcm evaluate``.
    arms : sequence of str, optional
        Arms to run, by default all. The table shows all that are finished.

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
    trials = _checked_cells(config)
    assert config.out is not None
    judge = judge or _default_evaluator(config)
    write_json(config.out / "study.json", config.model_dump(mode="json"))
    cells = [cell for cell in trials if not arms or cell.arm in arms]
    cache = TeacherCache(config.teacher_cache_mb)
    failed = yield from _run_cells(config, cells, judge, cache)
    done = _finished(config, trials)
    table, csv = _write_tables(config, done)
    figure = draw_study(config.out / "study.png", _rows(done), config)
    if cache.asked:
        yield Note(cache.describe())
    seconds = time.monotonic() - began
    return StudyResult(
        config.out, table, csv, figure, len(done), tuple(failed), seconds
    )


_WAIT_SECONDS = 1.0


def _run_cells(
    config: StudyConfig,
    cells: Sequence[Trial],
    judge: ArmEvaluator,
    cache: TeacherCache,
) -> Job[list[str]]:
    """Run the trials that are not finished; return one line for each that failed.

    Raises
    ------
    ConfigError
        If options are wrong: all trials share them.
    RunError
        If a trial was started with other options.
    """
    left = [cell for cell in cells if not _is_finished(config, cell)]
    meter = Meter("Study", len(cells), "trials", len(cells) - len(left))
    number = {cell: place for place, cell in enumerate(cells, 1)}
    failed: list[str] = []
    while left:
        held: list[Trial] = []
        for cell in left:
            yield meter.progress()
            job = _locked_cell(config, cell, judge, cache)
            stage = f"Trial {number[cell]}/{len(cells)}, {cell.name}"
            try:
                yield from _inside(stage, job)
            except WriteLockHeldError:
                held.append(cell)
                continue
            except (ConfigError, RunError):
                raise
            except McmError as error:
                failed.append(f"{cell.name}: {error}")
                yield Note(failed[-1], "warning")
            yield meter.advance()
            _write_tables(config, _finished(config, _all_trials(config)))
        if len(held) == len(left):
            yield from _wait(held)
        left = held
    yield meter.progress()
    return failed


def _wait(held: Sequence[Trial]) -> Job[None]:
    """Wait a moment for other processes; report it often enough to be cancelled."""
    until = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < until:
        yield Progress(f"{held[0].name} runs in another process; waiting", 0, None)
        time.sleep(0.1)


def _locked_cell(
    config: StudyConfig, cell: Trial, judge: ArmEvaluator, cache: TeacherCache
) -> Job[dict[str, Any]]:
    """Run a trial as its only process; return its summary.

    Raises
    ------
    WriteLockHeldError
        If another process is running it.
    """
    assert config.out is not None
    with WriteLock.take(cell.folder(config.out) / "summary.json"):
        # Another process may have finished it since.
        summary = read_summary(config, cell)
        if summary is not None and has_all(config, summary):
            return summary
        return (yield from _run_cell(config, cell, judge, cache))


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
    paths = [path for slide in config.slides for path in (slide.slide, slide.labels)]
    paths += [path for pair in config.serial for path in (pair.first, pair.second)]
    for path in paths:
        if path is not None and not path.exists():
            raise ConfigError("file does not exist", path, "Check the study's paths")
    if not config.labelled and not config.serial:
        raise ConfigError("a study needs labels, or serial sections")
    for name in config.arms:
        arm_config(config, name, 0, (), None)
    if config.serial:
        from napari_mcm.core.studies.study_serial import click_options

        click_options(config.clicks)
    return _all_trials(config)


def _all_trials(config: StudyConfig) -> list[Trial]:
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
    options = trial_options(config, cell)
    write_json(folder / "cell.json", trial_identity(config, cell))
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
    by_radius, spent = yield from _measure(
        config, cell, judge, encoder, options, features
    )
    summary = {
        "fold": cell.fold.name,
        "seed": cell.seed,
        "arm": cell.arm,
        "figures": next(iter(by_radius.values())),
        "by_radius": by_radius,
        "serial": [pair.name for pair in config.serial],
        "training": training,
        "cost": _cost(features),
        "seconds": {"training": trained - began, **spent},
    }
    write_json(folder / "summary.json", summary)
    if arm.encoder is None and not config.keep_features:
        shutil.rmtree(features, ignore_errors=True)
    return summary


def _measure(
    config: StudyConfig,
    cell: Trial,
    judge: ArmEvaluator,
    encoder: str,
    options: FinetuneConfig,
    features: Path,
) -> Job[tuple[dict[str, dict[str, float]], dict[str, float]]]:
    """Take all measures of a trial, by radius; return them and the seconds they took."""
    assert config.out is not None
    began = time.monotonic()
    measured: dict[int, dict[str, float]] = {}
    if config.labelled:
        train, test = cell.fold.train, cell.fold.test
        measured = yield from judge(encoder, train, test, features, options, config)
    judged = time.monotonic()
    clicks: dict[int, dict[str, float]] = {}
    if config.serial:
        # Registration needs scikit-image, which takes a while to import.
        from napari_mcm.core.studies.study_serial import click_trial

        folder = cell.folder(config.out)
        clicks = yield from click_trial(encoder, features, folder, options, config)
    by_radius = {
        str(radius): {**measured.get(radius, {}), **clicks.get(radius, {})}
        for radius in sorted({*measured, *clicks})
    }
    seconds = {"evaluation": judged - began, "clicks": time.monotonic() - judged}
    return by_radius, seconds


def _cost(folder: Path) -> dict[str, int]:
    """Return parameters and multiply-adds per patch of the encoder of some features."""
    for file in sorted(folder.glob(f"*{SUFFIX}")):
        stored = attributes_of(file)
        encoder, grid = stored.get("encoder"), stored.get("grid")
        if isinstance(encoder, dict) and isinstance(grid, dict):
            cost = recipe_cost(encoder, grid.get("patch_size"))
            if cost is not None:
                counts = asdict(cost)
                return {name: counts[name] for name in ("parameters", "multiply_adds")}
    return {}


def _fine_tune(options: FinetuneConfig, cache: TeacherCache) -> Job[None]:
    assert options.out is not None
    if not (options.out / "config.json").exists():
        yield from finetune(options, cache=cache)
        return
    yield from resume_finetune(options.out, cache=cache)


def _is_finished(config: StudyConfig, cell: Trial) -> bool:
    summary = read_summary(config, cell)
    return summary is not None and has_all(config, summary)


def _finished(config: StudyConfig, cells: Sequence[Trial]) -> list[dict[str, Any]]:
    """Return the summaries of all finished trials, of any process."""
    return [
        found for cell in cells if (found := read_summary(config, cell)) is not None
    ]


def _write_tables(
    config: StudyConfig, done: Sequence[Mapping[str, Any]]
) -> tuple[Path, Path]:
    assert config.out is not None
    clicks: list[str] = []
    if config.serial:
        from napari_mcm.core.studies.study_clicks import click_section

        clicks = click_section(config)
    return write_tables(config.out, _rows(done), config, clicks)


def _rows(done: Sequence[Mapping[str, Any]]) -> list[Row]:
    return [row for summary in done for row in rows_of(summary)]
