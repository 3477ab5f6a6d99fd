"""Jobs of the engine in a worker thread, as a status that widgets observe.

One generator of the engine runs at a time. It is advanced, closed and, when it fails,
caught in its own thread; what reaches the thread of the windows is a
:class:`JobStatus`, at most ten times a second::

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
from typing import Any, ClassVar

from psygnal import SignalGroupDescriptor
from superqt.utils import create_worker

from napari_mcm.core.errors import McmError
from napari_mcm.core.runtime import async_writes as writes
from napari_mcm.core.runtime.jobs import Event, Job, Metrics, Note, Progress

_log = logging.getLogger(__name__)

_INTERVAL_S = 0.1


class JobState(Enum):
    """Where a job stands."""

    IDLE = "idle"
    RUNNING = "running"
    CANCELLING = "cancelling"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass
class JobStatus:
    """What widgets show of the job; every change of a field is a signal.

    Attributes
    ----------
    state : JobState
        Where it stands.
    title : str
        What it is, for people.
    progress : Progress or None
        Its last word on stage, units done, rate and time left.
    message : str
        One line: a note, the reason of a failure, or what was kept.
    details : str
        Traceback and warnings, for those who ask.
    """

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    state: JobState = JobState.IDLE
    title: str = ""
    progress: Progress | None = None
    message: str = ""
    details: str = ""

    @property
    def busy(self) -> bool:
        """Whether a thread is at work."""
        return self.state in (JobState.RUNNING, JobState.CANCELLING)


@dataclass(frozen=True)
class JobFailed:
    """What a failed job returns; never an exception, which the worker would raise."""

    message: str
    details: str


@dataclass(frozen=True)
class JobCancelled:
    """What a cancelled job returns, once it has cleaned up."""


class JobRunner:
    """Run one job at a time in a worker thread."""

    def __init__(self) -> None:
        self.status = JobStatus()
        self._stop = threading.Event()
        self._worker: Any = None
        self._on_result: Callable[[Any], None] | None = None
        self._on_metrics: Callable[[Metrics], None] | None = None

    def start(
        self,
        title: str,
        make_job: Callable[[], Job[Any]],
        on_result: Callable[[Any], None],
        on_metrics: Callable[[Metrics], None] | None = None,
    ) -> None:
        """Start a job.

        Parameters
        ----------
        title : str
            What it is, for people.
        make_job : callable
            Makes the generator; called in the worker's thread.
        on_result : callable
            Called in this thread with what the job returns, when it ends well.
        on_metrics : callable, optional
            Called in this thread with the figures of each step.

        Raises
        ------
        RuntimeError
            If another job is running.
        """
        if self.status.busy:
            raise RuntimeError(f"{self.status.title} is still running")
        self._stop, self._on_result = threading.Event(), on_result
        self._on_metrics = on_metrics
        status = self.status
        status.title, status.progress = title, None
        status.message = status.details = ""
        status.state = JobState.RUNNING
        self._worker = create_worker(
            _drive, make_job, self._stop, _start_thread=False, _ignore_errors=True
        )
        self._worker.yielded.connect(self._heard)
        self._worker.returned.connect(self._ended)
        self._worker.warned.connect(self._warned)
        self._worker.start()

    def cancel(self) -> None:
        """Ask the job to stop; it cleans up in its own thread first."""
        if self.status.state is JobState.RUNNING:
            self._stop.set()
            self.status.state = JobState.CANCELLING

    def close(self) -> None:
        """Cancel, and drop what the job may still return."""
        self._on_result = self._on_metrics = None
        self.cancel()

    def _heard(self, event: Event) -> None:
        if isinstance(event, Progress):
            self.status.progress = event
        elif isinstance(event, Note):
            self.status.message = event.text
            self._add_details(event.text)
        elif self._on_metrics is not None:
            self._on_metrics(event)

    def _ended(self, result: Any) -> None:
        self._worker = None
        on_result, self._on_result = self._on_result, None
        if isinstance(result, JobFailed):
            self._add_details(result.details)
            self.status.message = result.message
            self.status.state = JobState.FAILED
        elif isinstance(result, JobCancelled) or on_result is None:
            self.status.message = "Cancelled. Finished work is kept."
            self.status.state = JobState.CANCELLED
            self._see_it_kept()
        else:
            self._hand_over(result, on_result)

    def _see_it_kept(self) -> None:
        """Complain where what a cancelled job writes yet cannot be written."""
        if writes.has_pending_writes():
            seeing = create_worker(writes.wait_for_all_writes, _start_thread=False)
            seeing.returned.connect(self._not_kept)
            seeing.start()

    def _not_kept(self, errors: list[Exception]) -> None:
        for error in errors:
            self.status.message = str(error)
            self._add_details(str(error))

    def _hand_over(self, result: Any, on_result: Callable[[Any], None]) -> None:
        """Put the result in its place before widgets hear of the end."""
        try:
            on_result(result)
        except Exception as error:
            # Raised on, it is reported; but the next job must not wait for this one.
            self._add_details(traceback.format_exc())
            self.status.message = (
                f"The job ended, but its result cannot be shown: {error}"
            )
            self.status.state = JobState.FAILED
            raise
        self.status.state = JobState.DONE

    def _warned(self, warning: tuple[Any, ...]) -> None:
        message, category = warning[:2]
        _log.warning("%s: %s", category.__name__, message)
        self._add_details(f"{category.__name__}: {message}")

    def _add_details(self, text: str) -> None:
        self.status.details = f"{self.status.details}{text.rstrip()}\n"


def _drive(
    make_job: Callable[[], Job[Any]], stop: threading.Event
) -> Generator[Event, None, Any]:
    """Advance a job to its end, in the worker's thread."""
    try:
        keep_triton_out()
        job = make_job()
        try:
            return (yield from _throttled(job, stop))
        finally:
            job.close()
    except McmError as error:
        return JobFailed(str(error), traceback.format_exc())
    except Exception as error:  # noqa: BLE001 - the border of the thread: all are shown
        reason = str(error).strip().splitlines()
        line = f"{type(error).__name__}: {reason[0] if reason else 'no reason given'}"
        return JobFailed(line, traceback.format_exc())


def _throttled(job: Job[Any], stop: threading.Event) -> Generator[Event, None, Any]:
    shown, stage = 0.0, ""
    while not stop.is_set():
        try:
            event = next(job)
        except StopIteration as end:
            return end.value
        if isinstance(event, Progress):
            now = time.monotonic()
            if event.stage == stage and now - shown < _INTERVAL_S:
                continue
            shown, stage = now, event.stage
        yield event
    return JobCancelled()


_MAPPED = Path("/proc/self/maps")


def keep_triton_out() -> None:
    """Have PyTorch do without Triton where the graphics driver has brought its LLVM.

    Mesa draws (in software, and on AMD) with LLVM. Triton brings another one in, with
    the same symbols, and importing it then ends the process by a segmentation fault.
    Only compiled models need Triton, and no job of the viewer compiles one. Where
    Triton is loaded already, or Mesa is not, nothing is done.
    """
    if "triton" in sys.modules or not _MAPPED.exists():
        return
    if "libLLVM" in _MAPPED.read_text(errors="replace"):
        # Python's own way to say that a module is not to be found.
        sys.modules["triton"] = None  # type: ignore[assignment]
