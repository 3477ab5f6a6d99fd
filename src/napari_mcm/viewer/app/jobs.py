"""Runs jobs of the engine in a worker thread and publishes their status to widgets.

One job, a generator of events, runs at a time. The worker thread advances it, closes it
and catches its errors. Widgets observe a :class:`JobStatus`, which is updated in the GUI
thread at most ten times per second::

    runner = JobRunner()
    runner.status.events.connect(show)
    runner.start("Features", lambda: compute_features(config), on_result=use)
    runner.cancel()
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Protocol

from psygnal import SignalGroupDescriptor
from superqt.utils import create_worker

from napari_mcm.core.errors import McmError
from napari_mcm.core.runtime import async_writes as writes
from napari_mcm.core.runtime.jobs import Event, Job, Metrics, Note, Progress
from napari_mcm.core.runtime.overall import Overall, OverallClock

_log = logging.getLogger(__name__)

_NO_DOCK = ("app", "layers", "qt", "training")
"""Folders of the viewer that have no dock with jobs."""

_INTERVAL_S = 0.1
"""Shortest time between two progress updates of one stage, in seconds."""


class JobState(Enum):
    """The state of a job."""

    IDLE = "idle"
    RUNNING = "running"
    CANCELLING = "cancelling"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass
class JobStatus:
    """The status of the current or last job; each change of a field emits a signal.

    Attributes
    ----------
    state : JobState
        State of the job.
    title : str
        Display name of the job.
    progress : Progress or None
        Latest stage, units done, rate and time left.
    overall : Overall
        How far the whole job has come, over all of its stages.
    message : str
        One line: a note, the reason for a failure, or the location of the result.
    details : str
        Traceback and warnings, shown on demand.
    place : str
        Folder of the dock that started the job, such as ``similarity``; empty if none did.
    """

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    state: JobState = JobState.IDLE
    title: str = ""
    progress: Progress | None = None
    overall: Overall = Overall()
    message: str = ""
    details: str = ""
    place: str = ""

    @property
    def busy(self) -> bool:
        """Whether a job is running or being cancelled."""
        return self.state in (JobState.RUNNING, JobState.CANCELLING)


@dataclass(frozen=True)
class JobFailed:
    """The return value of a failed job.

    A value instead of an exception, because the worker would raise an exception again.

    Attributes
    ----------
    message : str
        Reason in one line.
    details : str
        Traceback.
    """

    message: str
    details: str


@dataclass(frozen=True)
class JobCancelled:
    """The return value of a cancelled job, after it has cleaned up."""


class JobRunner:
    """Runs one job at a time in a worker thread.

    Attributes
    ----------
    status : JobStatus
        Status of the current or last job.
    """

    def __init__(self) -> None:
        self.status = JobStatus()
        self._stop = threading.Event()
        self._worker: Any = None
        self._on_result: Callable[[Any], None] | None = None
        self._on_metrics: Callable[[Metrics], None] | None = None
        self._clock = OverallClock()

    def start(
        self,
        title: str,
        make_job: Callable[[], Job[Any]],
        on_result: Callable[[Any], None],
        on_metrics: Callable[[Metrics], None] | None = None,
        timing: Timing | None = None,
    ) -> None:
        """Start a job.

        Parameters
        ----------
        title : str
            Display name of the job.
        make_job : callable
            Returns the job, a generator; called in the worker thread.
        on_result : callable
            Called in the GUI thread with the result of the job if it succeeds.
        on_metrics : callable, optional
            Called in the GUI thread with the metrics of each step.
        timing : Timing, optional
            States how long the job should take, and learns how long it takes.

        Raises
        ------
        RuntimeError
            If another job is running.
        """
        if self.status.busy:
            raise RuntimeError(f"{self.status.title} is still running")
        self._stop, self._on_result = threading.Event(), on_result
        self._on_metrics = on_metrics
        self._clock = OverallClock(None if timing is None else timing.expected_s)
        status = self.status
        status.title, status.progress = title, None
        status.overall = self._clock.now()
        status.place = place_of(getattr(make_job, "__module__", ""))
        status.message = status.details = ""
        status.state = JobState.RUNNING
        self._worker = create_worker(
            _drive,
            make_job,
            self._stop,
            timing,
            _start_thread=False,
            _ignore_errors=True,
        )
        self._worker.yielded.connect(self._on_event)
        self._worker.returned.connect(self._on_returned)
        self._worker.warned.connect(self._on_warning)
        self._worker.start()

    def cancel(self) -> None:
        """Request the job to stop; it cleans up in the worker thread first."""
        if self.status.state is JobState.RUNNING:
            self._stop.set()
            self.status.state = JobState.CANCELLING

    def close(self) -> None:
        """Cancel the job and ignore its result."""
        self._on_result = self._on_metrics = None
        self.cancel()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Progress):
            self.status.overall = self._clock.follow(event)
            self.status.progress = event
        elif isinstance(event, Note):
            self.status.message = event.text
            self._add_details(event.text)
        elif self._on_metrics is not None:
            self._on_metrics(event)

    def _on_returned(self, result: Any) -> None:
        self._worker = None
        on_result, self._on_result = self._on_result, None
        if isinstance(result, JobFailed):
            self._add_details(result.details)
            self.status.message = result.message
            self.status.state = JobState.FAILED
        elif isinstance(result, JobCancelled) or on_result is None:
            self.status.message = "Cancelled. Finished work is kept."
            self.status.state = JobState.CANCELLED
            self._await_writes()
        else:
            self._deliver(result, on_result)

    def _await_writes(self) -> None:
        """Report writes that fail after the job was cancelled.

        A cancelled job writes its checkpoint in the background; the message that finished
        work is kept would be wrong if that failed.
        """
        if writes.has_pending_writes():
            waiter = create_worker(writes.wait_for_all_writes, _start_thread=False)
            waiter.returned.connect(self._show_write_errors)
            waiter.start()

    def _show_write_errors(self, errors: list[Exception]) -> None:
        for error in errors:
            self.status.message = str(error)
            self._add_details(str(error))

    def _deliver(self, result: Any, on_result: Callable[[Any], None]) -> None:
        """Pass the result on before the state changes to done."""
        try:
            on_result(result)
        except Exception as error:
            # The error is raised again so that napari reports it. The state must change
            # all the same: otherwise no other job could start.
            self._add_details(traceback.format_exc())
            self.status.message = (
                f"The job ended, but its result cannot be shown: {error}"
            )
            self.status.state = JobState.FAILED
            raise
        self.status.state = JobState.DONE

    def _on_warning(self, warning: tuple[Any, ...]) -> None:
        message, category = warning[:2]
        _log.warning("%s: %s", category.__name__, message)
        self._add_details(f"{category.__name__}: {message}")

    def _add_details(self, text: str) -> None:
        self.status.details = f"{self.status.details}{text.rstrip()}\n"


class Timing(Protocol):
    """Describe who knows how long a job should take, and learns how long it takes."""

    expected_s: float | None
    """Estimated duration in seconds; None where none is known."""

    def follow(self, progress: Progress) -> None:
        """Take in each progress event, in the worker thread."""

    def end(self, finished: bool) -> None:
        """Take note that the job has ended, in the worker thread."""


def place_of(module: str) -> str:
    """Return the folder of the dock that a module belongs to: ``similarity``.

    Parameters
    ----------
    module : str
        Name of a module; that of a function is where it was defined.

    Returns
    -------
    str
        Empty for a module that is no dock's.
    """
    parts = module.split(".")
    inside = parts[:2] == ["napari_mcm", "viewer"] and len(parts) > 3
    return parts[2] if inside and parts[2] not in _NO_DOCK else ""


def _drive(
    make_job: Callable[[], Job[Any]], stop: threading.Event, timing: Timing | None
) -> Generator[Event, None, Any]:
    """Run a job to its end, in the worker thread."""
    finished = False
    try:
        block_triton()
        job = make_job()
        try:
            result = yield from _throttled(job, stop, timing)
            finished = not isinstance(result, JobCancelled)
            return result
        finally:
            job.close()
            if timing is not None:
                timing.end(finished)
    except McmError as error:
        return JobFailed(str(error), traceback.format_exc())
    except Exception as error:  # noqa: BLE001 - any error becomes a status message
        reason = str(error).strip().splitlines()
        line = f"{type(error).__name__}: {reason[0] if reason else 'no reason given'}"
        return JobFailed(line, traceback.format_exc())


def _throttled(
    job: Job[Any], stop: threading.Event, timing: Timing | None
) -> Generator[Event, None, Any]:
    shown, stage = 0.0, ""
    while not stop.is_set():
        try:
            event = next(job)
        except StopIteration as end:
            return end.value
        if isinstance(event, Progress):
            if timing is not None:
                timing.follow(event)
            now = time.monotonic()
            if event.stage == stage and now - shown < _INTERVAL_S:
                continue
            shown, stage = now, event.stage
        yield event
    return JobCancelled()


MAPPED = Path("/proc/self/maps")
"""Lists the libraries of this process; only Linux has it."""


def block_triton() -> None:
    """Prevent the import of Triton if the graphics driver has loaded LLVM.

    Mesa draws with LLVM, in software and on AMD GPUs. Triton contains another LLVM with
    the same symbols, and importing it then crashes the process with a segmentation
    fault. Only compiled models need Triton, and no job of the viewer compiles one.
    Nothing is done if Triton is already loaded, or Mesa is not.
    """
    if "triton" in sys.modules or not MAPPED.exists():
        return
    if "libLLVM" in MAPPED.read_text(errors="replace"):
        # None makes Python raise ModuleNotFoundError on import.
        sys.modules["triton"] = None  # type: ignore[assignment]
