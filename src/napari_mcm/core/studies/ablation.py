"""What more labelled data buys: classifiers from several starts on nested subsets.

Every cell, whatever its arm and its number of images, takes the same number of steps
with the same augmentation and batch; its figures are of the same test images.
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
from napari_mcm.core.training import Run

if TYPE_CHECKING:
    from distributed import Client


_WEIGHTS = ("encoder", "checkpoint")


@dataclass(frozen=True)
class AblationResult:
    """What an ablation leaves.

    Attributes
    ----------
    out : Path
        Its directory.
    table, csv : Path
        Means and spreads for people; a row a cell for programs.
    figures : tuple of Path
        Learning curves, and confidence by class.
    cells, images, test_images : int
        Cells done, training images in all, and images scored on.
    failed : tuple of str
        A line for each cell that failed.
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
    """Run what is not done yet of an ablation, cell by cell, and write its tables.

    A cell that is done is its ``summary.json``; one that was broken off goes on from its
    checkpoint.

    Parameters
    ----------
    config : AblationConfig
        Data, arms, parts, seeds.

    Yields
    ------
    Event
        Progress in cells and within them, metrics, notes.

    Returns
    -------
    AblationResult

    Raises
    ------
    ConfigError
        If data or the directory are missing, or there is nothing to score on.
    RunError
        If the directory holds another ablation.
    """
    if config.data is None:
        raise ConfigError("no labelled images given")
    if config.out is None:
        raise ConfigError("no directory given", hint="Choose one with --out")
    began = time.monotonic()
    yield Progress("Looking at images", 0, None, "images")
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
        yield Progress("Ablation", number, len(cells), "cells")
        try:
            yield from _named(run_trial(config, cell, images), cell)
        except ConfigError:
            raise
        except McmError as error:
            failed.append(f"{cell.describe()}: {error}")
            yield Note(failed[-1], "warning")
        write_tables(run.path, config, _rows(run.path, cells), images)
    yield Progress("Ablation", len(cells), len(cells), "cells")
    return failed


def study_images(config: AblationConfig) -> CellSet:
    """Find the images: ``train`` to take subsets of, ``val`` to score on.

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
            f"there is nothing to score on in {wanted!r}",
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
    """Settle how all arms treat images: as the first mae:RUN did, where there is one."""
    runs = [arm for arm in config.arms if arm.startswith("mae:")]
    if not runs or config.augment != AugmentConfig():
        return config.augment
    compute = settle_training(config.compute)
    recipe = load_encoder(runs[0].removeprefix("mae:"), compute).recipe
    told = recipe.get("pretraining", {}).get("options", {}).get("augment")
    return AugmentConfig.model_validate(told) if told else config.augment


def run_trial(
    config: AblationConfig, cell: AblationTrial, images: CellSet
) -> Job[None]:
    """Train and score one cell, or what is left of it."""
    assert config.out is not None
    asked = trial_config(config, cell)
    folder = config.out / cell.folder
    started = (folder / "config.json").is_file()
    run = (
        Run.open(folder)
        if started
        else Run.create(folder, asked.model_dump(mode="json"))
    )
    if run.summary() is not None:
        return
    yield from classify_cells(run, asked, trial_images(cell, images))
    if not config.keep_weights:
        for name in _WEIGHTS:
            shutil.rmtree(folder / name, ignore_errors=True)
        (folder / "head.safetensors").unlink(missing_ok=True)


def trial_images(cell: AblationTrial, images: CellSet) -> CellSet:
    """Give a cell's training images and all test images."""
    training, test = images.only(TRAIN), images.only(VALIDATION)
    subset = training.take(nested_subset(training.targets, cell.percent, cell.seed))
    return CellSet([*subset.cells, *test.cells], images.classes)


def trial_config(config: AblationConfig, cell: AblationTrial) -> ClassifyConfig:
    """Give a cell's options; only its start, its images and its seed are its own."""
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
    asked = {**config.same_study(), "images": images.fingerprint}
    if not (out / "config.json").is_file():
        return Run.create(out, asked)
    run = Run.open(out)
    before = run.config()
    changed = sorted(name for name in asked if before.get(name) != asked[name])
    # More parts, seeds or arms add cells; the others stay what they are.
    if set(changed) - {"percent", "seeds", "arms", "keep_weights"}:
        raise RunError(
            f"holds another ablation ({', '.join(changed)} differ)",
            out,
            "Choose another --out",
        )
    return run


def _named(job: Job[None], cell: AblationTrial) -> Job[None]:
    """Say of which cell events are."""
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


_POLL_S = 0.2


def run_on_cluster(
    config: AblationConfig, cells: Sequence[AblationTrial]
) -> Job[list[str]]:
    """Hand out cells, and wait for them; a cancel stops workers at their next step.

    Workers see the same files under the same paths.

    Parameters
    ----------
    config : AblationConfig
        With the scheduler's address.
    cells : sequence of AblationTrial

    Returns
    -------
    list of str
        A line for each cell that failed.

    Raises
    ------
    ConfigError
        If the cluster cannot be reached, or its library is missing.
    """
    assert config.data is not None and config.out is not None
    # Workers have working directories of their own.
    paths = {"data": config.data.absolute(), "out": config.out.absolute()}
    settings = config.model_copy(update=paths).model_dump(mode="json")
    with ExitStack() as stack:
        yield Progress("Looking for the cluster", 0, None, "workers")
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
            yield Progress("Ablation on the cluster", done, len(futures), "cells")
            time.sleep(_POLL_S)
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
    """Run one cell on a worker.

    Parameters
    ----------
    settings : dict
        An :class:`AblationConfig`, as JSON has it.
    cell : dict
        An :class:`AblationTrial`, likewise.
    stop : str
        Name of the cluster's event that stops it.

    Returns
    -------
    str
        What failed; "" where all went well.
    """
    from distributed import Event

    config = AblationConfig.model_validate(settings)
    stopped, asked = Event(stop), time.monotonic()
    try:
        job = run_trial(
            config, AblationTrial.model_validate(cell), study_images(config)
        )
        try:
            for _ in job:
                if time.monotonic() - asked > 1:
                    asked = time.monotonic()
                    if stopped.is_set():
                        return "was cancelled"
        finally:
            job.close()
    except McmError as error:
        return str(error)
    return ""


def _problem(future: Any) -> str:
    # What failed on a worker may be anything, a lost worker among them.
    try:
        return str(future.result())
    except Exception as error:  # noqa: BLE001
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return lines[0]


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
