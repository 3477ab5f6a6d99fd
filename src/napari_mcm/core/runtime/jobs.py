"""What a long job is: a generator of typed events that returns its result.

Whoever iterates a job drives it, and closing it cancels it. The command line iterates it
under a progress bar, the viewer in one worker thread, a test by hand::

    job = extract(slide, grid, encoder, path)
    for event in job:
        ...                     # a Progress, a Metrics or a Note
    features = run(job)         # or: drive it to its end and take the result

Inside a job, clean-up belongs in ``finally``: it runs when the job ends, fails or is
closed. A job yields several times a second, so that a cancel is acted on at once.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from napari_mcm.core.runtime import async_writes as writes

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage of a job has come.

    Attributes
    ----------
    stage : str
        What is being done, for people: ``"Extracting slide_00"``.
    done, total : int
        Units done and in all; ``total`` is None while it is unknown.
    unit : str
        What is counted, in the plural.
    rate : float or None
        Units a second over the last seconds, None before it can be told.
    """

    stage: str
    done: int
    total: int | None
    unit: str = "patches"
    rate: float | None = None

    @property
    def eta_s(self) -> float | None:
        """Seconds left at the present rate, None where that cannot be told."""
        if not self.rate or self.total is None:
            return None
        return max(self.total - self.done, 0) / self.rate

    def describe(self) -> str:
        """Say it in one short line: ``128/512 patches, 43/s, 9 s left``."""
        total = f"/{self.total}" if self.total is not None else ""
        parts = [f"{self.done}{total} {self.unit}"]
        if self.rate:
            parts.append(f"{self.rate:.3g}/s")
        if self.eta_s is not None:
            parts.append(f"{format_seconds(self.eta_s)} left")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Metrics:
    """Figures of one training step: loss, rates, gauges."""

    step: int
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Note:
    """A line that a person should see: what was assumed, skipped or went wrong."""

    text: str
    level: Literal["info", "warning"] = "info"


Event = Progress | Metrics | Note
Job = Generator[Event, None, _T]


def run(job: Job[_T], on_event: Callable[[Event], None] | None = None) -> _T:
    """Drive a job to its end.

    Parameters
    ----------
    job : Job
        The job; it is closed, so that it cleans up, whatever happens.
    on_event : callable, optional
        Called with each event.

    Returns
    -------
    object
        What the job returns. What it leaves to be resumed is written by then.
    """
    try:
        while True:
            try:
                event = next(job)
            except StopIteration as end:
                result: _T = end.value
                return result
            if on_event is not None:
                on_event(event)
    finally:
        job.close()
        if writes.has_pending_writes():
            if on_event is not None:
                on_event(Note("writing what was learned so far"))
            for error in writes.wait_for_all_writes():
                raise error


class Meter:
    """Count units and turn them into :class:`Progress` with a rate.

    The rate is taken over a sliding window, so that it follows a slow slide or a busy
    machine rather than remembering the start.

    Parameters
    ----------
    stage, total, unit
        As in :class:`Progress`.
    done : int
        Units that an earlier run has done already; they do not count for the rate.
    """

    def __init__(
        self, stage: str, total: int | None, unit: str = "patches", done: int = 0
    ) -> None:
        self.stage, self.total, self.unit, self.done = stage, total, unit, done
        self._marks: deque[tuple[float, int]] = deque([(time.monotonic(), done)], 64)

    def advance(self, units: int = 1) -> Progress:
        """Count some more units and say where the stage stands."""
        self.done += units
        self._marks.append((time.monotonic(), self.done))
        return self.progress()

    def progress(self) -> Progress:
        """Say where the stage stands."""
        (first, had), (last, has) = self._marks[0], self._marks[-1]
        rate = (has - had) / (last - first) if has > had and last > first else None
        return Progress(self.stage, self.done, self.total, self.unit, rate)


def format_seconds(seconds: float) -> str:
    """Write a duration as people do: ``9 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
