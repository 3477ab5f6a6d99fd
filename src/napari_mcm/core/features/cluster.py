"""Extraction on a dask.distributed cluster, on this machine or elsewhere.

Each slide is a task. Workers run the same code as a single machine, on files that all of
them can access, so the results are the same. If a worker is lost, its slide goes to
another one, which resumes where the first stopped.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mcm.core.errors import ConfigError, McmError
from napari_mcm.core.features.batch_extraction import (
    ExtractResult,
    check_request,
    extract_slides,
    find_common_grid,
)
from napari_mcm.core.features.config import ExtractConfig
from napari_mcm.core.runtime.jobs import Job, Note, Progress

if TYPE_CHECKING:
    from distributed import Client, Future

    from napari_mcm.core.encoders import ComputeConfig, Encoder

_POLL_S = 0.2
_STOP = "napari-mcm-stop"


def extract_anywhere(config: ExtractConfig) -> Job[ExtractResult]:
    """Extract on this machine or on the configured cluster, as a job.

    Parameters
    ----------
    config : ExtractConfig
        With ``scheduler`` or ``local_cluster`` for a cluster.

    Yields
    ------
    Event
        Progress and notes.

    Returns
    -------
    ExtractResult
        As :func:`extract_slides` returns it.

    Raises
    ------
    ConfigError
        If the cluster cannot be reached, or its library is missing.
    """
    if config.scheduler is None and not config.local_cluster:
        return (yield from extract_slides(config))
    check_request(config)
    began = time.monotonic()
    yield Progress("Connecting to the cluster", 0, None, "workers")
    with _client(config) as client:
        paths, grid, failed = find_common_grid(config)
        config = config.model_copy(update={"grid": grid, "out": _absolute(config.out)})
        for line in failed:
            yield Note(line, "warning")
        precisions = yield from _settle_precisions(client, config)
        parts = yield from _distribute(
            client, config, [p.absolute() for p in paths], precisions
        )
    return _merge(parts, failed, time.monotonic() - began)


def _settle_precisions(client: Client, config: ExtractConfig) -> Job[tuple[str, ...]]:
    """Let one worker choose the precision ``auto`` for all of them.

    Workers may be different machines, and each would choose for itself.
    """
    if config.compute.precision != "auto":
        return (config.compute.precision,) * len(config.encoder)
    future = client.submit(
        choose_precisions, list(config.encoder), config.compute.model_dump_json()
    )
    try:
        while not future.done():
            yield Progress("Choosing the precision on a worker", 0, None)
            time.sleep(_POLL_S)
        chosen: list[tuple[str, str]] = future.result()
    finally:
        future.cancel()
    for note in filter(None, (note for _, note in chosen)):
        yield Note(note)
    return tuple(precision for precision, _ in chosen)


def choose_precisions(encoders: list[str], compute: str) -> list[tuple[str, str]]:
    """Choose the precision of each encoder on a worker.

    Parameters
    ----------
    encoders : list of str
        Encoders, as :func:`load_encoder` takes them.
    compute : str
        A :class:`ComputeConfig` as JSON.

    Returns
    -------
    list of (str, str)
        Precision of each encoder, and the reason in one line.
    """
    loaded = [_loaded(spec, compute, True) for spec in encoders]
    return [(encoder.precision, encoder.precision_note) for encoder in loaded]


def _distribute(
    client: Client,
    config: ExtractConfig,
    paths: list[Path],
    precisions: tuple[str, ...],
) -> Job[list[ExtractResult]]:
    """Submit slides and wait for them; a cancel stops workers at their next batch."""
    from distributed import Event

    # A name of its own: events are shared by all clients of the scheduler.
    stop = Event(f"{_STOP}-{os.getpid()}-{time.time_ns()}", client=client)
    settings = config.model_dump(mode="json", exclude={"slides"})
    futures = {
        client.submit(
            extract_one_slide,
            settings,
            str(path),
            stop.name,
            precisions,
            # Not pure: a repeated command must run again, not return an earlier result.
            pure=False,
            retries=2,
        ): path
        for path in paths
    }
    results: dict[Future[Any], ExtractResult] = {}
    try:
        while len(results) < len(futures):
            yield Progress(
                "Extracting on the cluster", len(results), len(futures), "slides"
            )
            time.sleep(_POLL_S)
            for future in [f for f in futures if f.done() and f not in results]:
                results[future] = result = _outcome(future, futures[future])
                for line in result.failed:
                    yield Note(line, "warning")
        yield Progress(
            "Extracting on the cluster", len(results), len(futures), "slides"
        )
    finally:
        if len(results) < len(futures):
            stop.set()
            client.cancel(list(futures))
    return [results[future] for future in futures]


def _outcome(future: Future[Any], path: Path) -> ExtractResult:
    # Any error may come from a worker, and a worker may be lost.
    try:
        result: ExtractResult = future.result()
        return result
    except Exception as error:  # noqa: BLE001
        reason = str(error).strip().splitlines() or [type(error).__name__]
        where = "" if isinstance(error, McmError) else f"{path}: "
        return ExtractResult((), 0, 0, (f"{where}{reason[0]}",), 0.0, 0.0)


def extract_one_slide(
    settings: dict[str, Any], path: str, stop: str, precisions: tuple[str, ...]
) -> ExtractResult:
    """Extract one slide on a worker.

    Parameters
    ----------
    settings : dict
        An :class:`ExtractConfig` without slides, as JSON types.
    path : str
        The slide, as this worker can open it.
    stop : str
        Name of the cluster's event that stops the workers.
    precisions : tuple of str
        Precision of each encoder.

    Returns
    -------
    ExtractResult
        For this slide.

    Raises
    ------
    ConfigError
        If the event stopped it.
    """
    from distributed import Event

    config = ExtractConfig.model_validate({**settings, "slides": (path,)})
    own = {"compute": own_device(config.compute, _worker_name(), _devices())}
    config = config.model_copy(update={"scheduler": None, "local_cluster": 0, **own})
    # Chosen, not set: unfinished files may then keep a precision of their own.
    auto = config.compute.precision == "auto"
    encoders = []
    for spec, precision in zip(config.encoder, precisions, strict=True):
        compute = config.compute.model_copy(update={"precision": precision})
        encoders.append(_loaded(spec, compute.model_dump_json(), auto))
    stopped, polled = Event(stop), time.monotonic()
    job = extract_slides(config, encoders)
    try:
        while True:
            next(job)
            # Each poll is a round trip to the scheduler.
            if time.monotonic() - polled > 1:
                polled = time.monotonic()
                if stopped.is_set():
                    raise ConfigError("was cancelled", path)
    except StopIteration as end:
        result: ExtractResult = end.value
        return result
    finally:
        job.close()


def own_device(compute: ComputeConfig, worker: object, devices: int) -> ComputeConfig:
    """Assign each local worker a GPU of its own, as far as there are enough.

    Parameters
    ----------
    compute : ComputeConfig
        The options; a device with a number is kept.
    worker : object
        The worker's name, a number in a cluster that was started here.
    devices : int
        CUDA devices of this machine.

    Returns
    -------
    ComputeConfig
        With the worker's device.
    """
    if devices < 2 or compute.device not in ("auto", "cuda"):
        return compute
    # A LocalCluster numbers its workers; others have names, and their own machines.
    if not isinstance(worker, int):
        return compute
    return compute.model_copy(update={"device": f"cuda:{worker % devices}"})


def _worker_name() -> object:
    from distributed import get_worker

    return get_worker().name


def _devices() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


@lru_cache(maxsize=4)
def _loaded(spec: str, compute: str, auto: bool) -> Encoder:
    """Load an encoder once per worker, not once per slide."""
    from napari_mcm.core.encoders import ComputeConfig, load_encoder

    encoder = load_encoder(spec, ComputeConfig.model_validate_json(compute))
    return replace(encoder, auto_precision=auto)


@contextmanager
def _client(config: ExtractConfig) -> Iterator[Client]:
    """Connect to a cluster, or start one on this machine.

    Raises
    ------
    ConfigError
        If the library is missing or the scheduler cannot be reached.
    """
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise ConfigError(
            "clusters need a library that is not installed",
            hint='Install it with: pip install "napari-mcm[cluster]"',
        ) from None
    if config.scheduler is not None:
        try:
            client = Client(config.scheduler, timeout=10)
        except (OSError, TimeoutError, ValueError) as error:
            raise ConfigError(
                f"cannot be reached ({error})",
                config.scheduler,
                "Give the address that dask-scheduler prints, e.g. tcp://host:8786",
            ) from None
        with client:
            yield client
        return
    with (
        LocalCluster(
            n_workers=config.local_cluster,
            # One slide per worker at a time; PyTorch's own threads use the cores.
            threads_per_worker=1,
            dashboard_address=None,
            env={"OMP_NUM_THREADS": str(_threads(config))},
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def _threads(config: ExtractConfig) -> int:
    """Return the CPU threads per worker on this machine."""
    return max((os.cpu_count() or 1) // max(config.local_cluster, 1), 1)


def _absolute(path: Path | None) -> Path | None:
    # Workers have other working directories.
    return path.absolute() if path is not None else None


def _merge(
    parts: list[ExtractResult], failed: list[str], seconds: float
) -> ExtractResult:
    patches = sum(part.patches for part in parts)
    # Workers overlap in time, so their rates do not add up over the whole run.
    rate = patches / seconds if any(part.patches_per_s for part in parts) else 0.0
    return ExtractResult(
        tuple(file for part in parts for file in part.files),
        sum(part.slides for part in parts),
        patches,
        (*failed, *(line for part in parts for line in part.failed)),
        rate,
        seconds,
    )
