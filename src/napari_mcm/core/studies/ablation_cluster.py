"""An ablation's cells on a dask.distributed cluster: each cell is a task."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from napari_mcm.core.errors import ConfigError, McmError
from napari_mcm.core.jobs import Job, Note, Progress
from napari_mcm.core.studies.ablation_config import AblationCell, AblationConfig

if TYPE_CHECKING:
    from distributed import Client

_POLL_S = 0.2


def run_on_cluster(
    config: AblationConfig, cells: Sequence[AblationCell]
) -> Job[list[str]]:
    """Hand out cells, and wait for them; a cancel stops workers at their next step.

    Workers see the same files under the same paths.

    Parameters
    ----------
    config : AblationConfig
        With the scheduler's address.
    cells : sequence of AblationCell

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
    client: Client, settings: dict[str, Any], cells: Sequence[AblationCell]
) -> Job[list[str]]:
    from distributed import Event

    stop = Event(f"napari-mcm-stop-{os.getpid()}-{time.time_ns()}", client=client)
    futures = {
        client.submit(
            run_one_cell, settings, cell.model_dump(), stop.name, pure=False, retries=1
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


def run_one_cell(settings: dict[str, Any], cell: dict[str, Any], stop: str) -> str:
    """Run one cell on a worker.

    Parameters
    ----------
    settings : dict
        An :class:`AblationConfig`, as JSON has it.
    cell : dict
        An :class:`AblationCell`, likewise.
    stop : str
        Name of the cluster's event that stops it.

    Returns
    -------
    str
        What failed; "" where all went well.
    """
    from distributed import Event

    from napari_mcm.core.studies.ablation import run_cell, study_images

    config = AblationConfig.model_validate(settings)
    stopped, asked = Event(stop), time.monotonic()
    try:
        job = run_cell(config, AblationCell.model_validate(cell), study_images(config))
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
