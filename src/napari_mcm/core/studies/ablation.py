"""Data-set-size ablation: classifiers from several starts on nested subsets of the labels.

All trials share steps, augmentation, batch size and test images; only the starts differ.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mcm.core.cells.config import ClassifyConfig
from napari_mcm.core.cells.datasets import TRAIN, VALIDATION, CellSet
from napari_mcm.core.cells.splits import labelled_images
from napari_mcm.core.cells.training import classify_cells
from napari_mcm.core.encoders import load_encoder
from napari_mcm.core.encoders.compute import settle_training
from napari_mcm.core.errors import ConfigError, McmError, RunError
from napari_mcm.core.mae.config import AugmentConfig
from napari_mcm.core.runtime.jobs import Event, Job, Meter, Metrics, Note, Progress
from napari_mcm.core.runtime.overall import portion
from napari_mcm.core.studies.ablation_config import (
    AblationConfig,
    AblationTrial,
    ablation_trials,
    arm_start,
    nested_subset,
)
from napari_mcm.core.studies.ablation_table import (
    Row,
    draw_confidence,
    draw_curves,
    make_row,
    write_tables,
)
from napari_mcm.core.training.run import Run

if TYPE_CHECKING:
    from distributed import Client

_WEIGHTS = ("encoder", "checkpoint")
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class AblationResult:
    """Result of an ablation.

    Attributes
    ----------
    out : Path
        Its directory.
    table, csv : Path
        Means and spreads as Markdown; one row per trial as CSV.
    figures : tuple of Path
        Learning curves, and confidence by class.
    cells, images, test_images : int
        Numbers of finished trials, of all training images, and of test images.
    failed : tuple of str
        One line for each trial that failed.
    seconds : float
        Time spent in this process.
    """

    out: Path
    table: Path
    csv: Path
    figures: tuple[Path, ...]
    cells: int
    images: int
    test_images: int
    failed: tuple[str, ...]
    seconds: float


def ablate(config: AblationConfig) -> Job[AblationResult]:
    """Run the unfinished trials of an ablation and write its tables, as a job.

    A finished trial has a ``summary.json``; an interrupted one resumes from its checkpoint.

    Parameters
    ----------
    config : AblationConfig
        Data, arms, fractions and seeds.

    Yields
    ------
    Event
        Progress in trials and within them, metrics, notes.

    Returns
    -------
    AblationResult

    Raises
    ------
    ConfigError
        If data or the directory are missing, or there are no test images.
    RunError
        If the directory holds another ablation.
    """
    if config.data is None:
        raise ConfigError("no labelled images given")
    if config.out is None:
        raise ConfigError("no directory given", hint="Choose one with --out")
    began = time.monotonic()
    yield Progress("Checking images", 0, None, "images", overall=0.0)
    images = study_images(config)
    out = config.out
    config = config.model_copy(update={"augment": common_augmentation(config)})
    run = _open(out, config, images)
    cells = ablation_trials(config)
    if config.scheduler is None:
        failed = yield from _run_here(run, config, cells, images)
    else:
        failed = yield from run_on_cluster(config, cells)
    rows = _rows(run.path, cells)
    figures = yield from _draw(run, config, images, rows)
    table, csv = write_tables(run.path, config, rows, images)
    return AblationResult(
        run.path,
        table,
        csv,
        figures,
        len(rows),
        len(images.only(TRAIN)),
        len(images.only(VALIDATION)),
        tuple(failed),
        time.monotonic() - began,
    )


def _run_here(
    run: Run, config: AblationConfig, cells: Sequence[AblationTrial], images: CellSet
) -> Job[list[str]]:
    failed = []
    for number, cell in enumerate(cells):
        yield Progress("Ablation", number, len(cells), "trials")
        trial = _named(run_trial(config, cell, images), cell)
        try:
            yield from portion(trial, number / len(cells), (number + 1) / len(cells))
        except ConfigError:
            raise
        except McmError as error:
            failed.append(f"{cell.describe()}: {error}")
            yield Note(failed[-1], "warning")
        write_tables(run.path, config, _rows(run.path, cells), images)
    yield Progress("Ablation", len(cells), len(cells), "trials")
    return failed


def study_images(config: AblationConfig) -> CellSet:
    """Find the images: ``train`` to draw subsets from, ``val`` to score on.

    Parameters
    ----------
    config : AblationConfig
        Data and test split.

    Returns
    -------
    CellSet
        Training images, and test images in the split ``val``.

    Raises
    ------
    ConfigError
        If there is no such split.
    """
    assert config.data is not None
    cells = labelled_images(config.data, config.labels)
    tests = [name for name in cells.splits if name not in (TRAIN, VALIDATION)]
    wanted = config.test_split or (tests[0] if tests else VALIDATION)
    known = {name.lower(): name for name in cells.splits}
    if wanted.lower() not in known or wanted.lower() == TRAIN:
        raise ConfigError(
            f"there are no test images in split {wanted!r}",
            config.data,
            f"Splits are {', '.join(cells.splits)}; --validation takes one from train",
        )
    test = known[wanted.lower()]
    kept = [
        replace(cell, split=TRAIN if cell.split == TRAIN else VALIDATION)
        for cell in cells.cells
        if cell.split in (TRAIN, test)
    ]
    return CellSet(kept, cells.classes)


def common_augmentation(config: AblationConfig) -> AugmentConfig:
    """Return the augmentation that all arms share.

    Parameters
    ----------
    config : AblationConfig
        Arms and augmentation.

    Returns
    -------
    AugmentConfig
        That of the first ``mae:`` run, if there is one and no other was given.
    """
    runs = [arm for arm in config.arms if arm.startswith("mae:")]
    if not runs or config.augment != AugmentConfig():
        return config.augment
    compute = settle_training(config.compute)
    recipe = load_encoder(runs[0].removeprefix("mae:"), compute).recipe
    recorded = recipe.get("pretraining", {}).get("options", {}).get("augment")
    return AugmentConfig.model_validate(recorded) if recorded else config.augment


def run_trial(
    config: AblationConfig, cell: AblationTrial, images: CellSet
) -> Job[None]:
    """Train and score one trial, or finish it, as a job.

    Parameters
    ----------
    config : AblationConfig
        Options of the ablation.
    cell : AblationTrial
        The trial.
    images : CellSet
        All images of the ablation.

    Yields
    ------
    Event

    Raises
    ------
    TrainingError
        If the loss diverges.
    """
    assert config.out is not None
    options = trial_config(config, cell)
    folder = config.out / cell.folder
    started = (folder / "config.json").is_file()
    run = (
        Run.open(folder)
        if started
        else Run.create(folder, options.model_dump(mode="json"))
    )
    if run.summary() is not None:
        return
    yield from classify_cells(run, options, trial_images(cell, images))
    if not config.keep_weights:
        for name in _WEIGHTS:
            shutil.rmtree(folder / name, ignore_errors=True)
        (folder / "head.safetensors").unlink(missing_ok=True)


def trial_images(cell: AblationTrial, images: CellSet) -> CellSet:
    """Return a trial's training images and all test images.

    Parameters
    ----------
    cell : AblationTrial
        The trial.
    images : CellSet
        All images of the ablation.

    Returns
    -------
    CellSet
    """
    training, test = images.only(TRAIN), images.only(VALIDATION)
    subset = training.take(nested_subset(training.targets, cell.percent, cell.seed))
    return CellSet([*subset.cells, *test.cells], images.classes)


def trial_config(config: AblationConfig, cell: AblationTrial) -> ClassifyConfig:
    """Return the training options of a trial.

    Parameters
    ----------
    config : AblationConfig
        Options of the ablation.
    cell : AblationTrial
        The trial; only start, images and seed are its own.

    Returns
    -------
    ClassifyConfig
    """
    assert config.out is not None
    return ClassifyConfig(
        data=config.data,
        out=config.out / cell.folder,
        init=arm_start(cell.arm, config.arms),
        augment_as_mae=False,
        labels=config.labels,
        model=config.model,
        fit=config.fit.model_copy(update={"seed": cell.seed}),
        augment=config.augment,
        compute=config.compute,
        workers=config.workers,
        cache_mb=config.cache_mb,
        chunk_images=config.chunk_images,
    )


def _open(out: Path, config: AblationConfig, images: CellSet) -> Run:
    wanted = {**config.same_study(), "images": images.fingerprint}
    if not (out / "config.json").is_file():
        return Run.create(out, wanted)
    run = Run.open(out, "ablate")
    before = run.config()
    changed = sorted(name for name in wanted if before.get(name) != wanted[name])
    # More fractions, seeds or arms add trials; the finished ones remain valid.
    if set(changed) - {"percent", "seeds", "arms", "keep_weights"}:
        raise RunError(
            f"holds another ablation ({', '.join(changed)} differ)",
            out,
            "Choose another --out",
        )
    return run


def _named(job: Job[None], cell: AblationTrial) -> Job[None]:
    """Pass a job's events on, with the name of the trial."""
    try:
        for event in job:
            yield _renamed(event, cell)
    finally:
        job.close()


def _renamed(event: Event, cell: AblationTrial) -> Event:
    if isinstance(event, Progress):
        return replace(event, stage=f"{event.stage}: {cell.describe()}")
    return event if isinstance(event, Metrics) else replace(event)


def _rows(out: Path, cells: Sequence[AblationTrial]) -> list[Row]:
    rows = []
    for cell in cells:
        summary = _summary(out / cell.folder)
        if summary is not None:
            rows.append(make_row(cell, summary))
    return rows


def _summary(folder: Path) -> dict[str, Any] | None:
    if not (folder / "summary.json").is_file():
        return None
    return Run.open(folder).summary()


def _draw(
    run: Run, config: AblationConfig, images: CellSet, rows: Sequence[Row]
) -> Job[tuple[Path, ...]]:
    if not rows:
        return ()
    meter = Meter("Drawing figures", 2, "figures")
    yield meter.progress()
    curves = draw_curves(rows, config.arms, run.path / "learning_curves.png")
    yield meter.advance()
    file = run.path / "confidence.png"
    return curves, draw_confidence(run.path, rows, config, images.classes, file)


def run_on_cluster(
    config: AblationConfig, cells: Sequence[AblationTrial]
) -> Job[list[str]]:
    """Run trials on a cluster and wait for them, as a job.

    Cancelling stops workers at their next step. Workers must see the same files under
    the same paths.

    Parameters
    ----------
    config : AblationConfig
        Options, with the scheduler's address.
    cells : sequence of AblationTrial
        Trials to run.

    Yields
    ------
    Event

    Returns
    -------
    list of str
        One line for each trial that failed.

    Raises
    ------
    ConfigError
        If the cluster cannot be reached, or its library is missing.
    """
    assert config.data is not None and config.out is not None
    # Workers run in other working directories: relative paths would not be found.
    paths = {"data": config.data.absolute(), "out": config.out.absolute()}
    settings = config.model_copy(update=paths).model_dump(mode="json")
    with ExitStack() as stack:
        yield Progress("Connecting to the cluster", 0, None, "workers")
        client = stack.enter_context(_connect(str(config.scheduler)))
        return (yield from _distribute(client, settings, cells))


def _distribute(
    client: Client, settings: dict[str, Any], cells: Sequence[AblationTrial]
) -> Job[list[str]]:
    from distributed import Event

    stop = Event(f"napari-mcm-stop-{os.getpid()}-{time.time_ns()}", client=client)
    futures = {
        client.submit(
            run_one_trial, settings, cell.model_dump(), stop.name, pure=False, retries=1
        ): cell
        for cell in cells
    }
    failed: list[str] = []
    waiting = dict(futures)
    try:
        while waiting:
            done = len(futures) - len(waiting)
            yield Progress("Ablation on the cluster", done, len(futures), "trials")
            time.sleep(_POLL_SECONDS)
            for future in [future for future in waiting if future.done()]:
                problem = _problem(future)
                cell = waiting.pop(future)
                if problem:
                    failed.append(f"{cell.describe()}: {problem}")
                    yield Note(failed[-1], "warning")
    finally:
        if waiting:
            stop.set()
            client.cancel(list(waiting))
    return failed


def run_one_trial(settings: dict[str, Any], cell: dict[str, Any], stop: str) -> str:
    """Run one trial on a worker.

    Parameters
    ----------
    settings : dict
        An :class:`AblationConfig` as JSON.
    cell : dict
        An :class:`AblationTrial` as JSON.
    stop : str
        Name of the cluster's event that stops it.

    Returns
    -------
    str
        The error; "" if there was none.
    """
    from distributed import Event

    config = AblationConfig.model_validate(settings)
    stopped, checked = Event(stop), time.monotonic()
    try:
        job = run_trial(
            config, AblationTrial.model_validate(cell), study_images(config)
        )
        try:
            for _ in job:
                if time.monotonic() - checked > 1:
                    checked = time.monotonic()
                    if stopped.is_set():
                        return "was cancelled"
        finally:
            job.close()
    except McmError as error:
        return str(error)
    return ""


def _problem(future: Any) -> str:
    # Workers can raise anything, also because they were lost.
    try:
        return str(future.result())
    except Exception as error:  # noqa: BLE001
        return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _connect(address: str) -> Client:
    try:
        from distributed import Client
    except ImportError:
        raise ConfigError(
            "clusters need a library that is not installed",
            hint='pip install "napari-mcm[cluster]"',
        ) from None
    try:
        return Client(address, timeout=10)
    except (OSError, TimeoutError, ValueError) as error:
        raise ConfigError(
            f"cannot be reached ({error})",
            address,
            "Give the address that dask-scheduler prints, e.g. tcp://host:8786",
        ) from None
