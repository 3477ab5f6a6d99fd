"""Long jobs: generators of typed events that return their result.

Iterating a job drives it, and closing it cancels it. The command line iterates it under a
progress bar, the viewer in one worker thread, a test step by step::

    job = extract(slide, grid, encoder, path)
    for event in job:
        ...                     # a Progress, a Metrics or a Note
    features = run(job)         # or: drive it to its end and take the result

Inside a job, clean-up belongs in ``finally``: it runs when the job ends, fails or is
closed. A job yields several times per second, so that a cancel takes effect at once.
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
        What is being done, in plain words: ``"Extracting slide_00"``.
    done : int
        Units done.
    total : int or None
        Units in all; None while unknown.
    unit : str
        What is counted, in the plural.
    rate : float or None
        Units per second over the last seconds; None while unknown.
    overall : float or None
        Fraction of the whole job that is done; None where the stage is the whole job.
        :class:`~napari_mcm.core.runtime.overall.Stages` sets it.
    overall_rate : float or None
        Fraction of the whole job per second; None while unknown.
    """

    stage: str
    done: int
    total: int | None
    unit: str = "patches"
    rate: float | None = None
    overall: float | None = None
    overall_rate: float | None = None

    @property
    def fraction(self) -> float | None:
        """Fraction of the whole job that is done, between 0 and 1.

        Returns
        -------
        float or None
            None where neither the whole nor this stage has a known end.
        """
        if self.overall is not None:
            return self.overall
        return self.done / self.total if self.total else None

    @property
    def pace(self) -> float | None:
        """Fraction of the whole job per second.

        Returns
        -------
        float or None
            None while unknown.
        """
        if self.overall is not None:
            return self.overall_rate
        return self.rate / self.total if self.rate and self.total else None

    @property
    def eta_s(self) -> float | None:
        """Estimated seconds left at the present rate.

        Returns
        -------
        float or None
            None while the rate or the total is unknown.
        """
        if not self.rate or self.total is None:
            return None
        return max(self.total - self.done, 0) / self.rate

    def describe(self) -> str:
        """Describe the progress in one short line: ``128/512 patches, 43/s, 9 s left``.

        Returns
        -------
        str
        """
        total = f"/{self.total}" if self.total is not None else ""
        parts = [f"{self.done}{total} {self.unit}"]
        if self.rate:
            parts.append(f"{self.rate:.3g}/s")
        if self.eta_s is not None:
            parts.append(f"{format_seconds(self.eta_s)} left")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Metrics:
    """Values measured at one training step: loss, learning rates, monitored quantities.

    Attributes
    ----------
    step : int
        Number of the step.
    values : mapping of str to float
        Name of each metric to its value.
    """

    step: int
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Note:
    """A message for the user: what was assumed, skipped or went wrong.

    Attributes
    ----------
    text : str
        One line.
    level : {"info", "warning"}
        How serious it is.
    """

    text: str
    level: Literal["info", "warning"] = "info"


Event = Progress | Metrics | Note
Job = Generator[Event, None, _T]


def run(job: Job[_T], on_event: Callable[[Event], None] | None = None) -> _T:
    """Drive a job to its end and return its result.

    Parameters
    ----------
    job : Job
        The job. It is always closed, so that it cleans up.
    on_event : callable, optional
        Called with each event.

    Returns
    -------
    object
        What the job returns. Background writes of its state are finished by then.

    Raises
    ------
    Exception
        What the job raises, or the first error of a background write.
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
                on_event(Note("writing the training state"))
            for error in writes.wait_for_all_writes():
                raise error


class Meter:
    """Count units and report them as :class:`Progress` with a rate.

    The rate is measured over a sliding window, so that it follows a slow slide or a
    busy machine instead of averaging over the whole stage.

    Parameters
    ----------
    stage : str
        What is being done.
    total : int or None
        Units in all; None if unknown.
    unit : str, optional
        What is counted, in the plural.
    done : int, optional
        Units that an earlier run has done; they do not count for the rate.

    Attributes
    ----------
    stage, unit : str
        As given.
    total : int or None
        As given.
    done : int
        Units done.
    """

    def __init__(
        self, stage: str, total: int | None, unit: str = "patches", done: int = 0
    ) -> None:
        self.stage, self.total, self.unit, self.done = stage, total, unit, done
        self._marks: deque[tuple[float, int]] = deque([(time.monotonic(), done)], 64)

    def advance(self, units: int = 1) -> Progress:
        """Count some more units and return the progress.

        Parameters
        ----------
        units : int, optional
            Units done since the last call.

        Returns
        -------
        Progress
            The progress now.
        """
        self.done += units
        self._marks.append((time.monotonic(), self.done))
        return self.progress()

    def progress(self) -> Progress:
        """Return the progress without counting.

        Returns
        -------
        Progress
            The progress now.
        """
        (first, had), (last, has) = self._marks[0], self._marks[-1]
        rate = (has - had) / (last - first) if has > had and last > first else None
        return Progress(self.stage, self.done, self.total, self.unit, rate)


def format_seconds(seconds: float) -> str:
    """Format a duration: ``9 s``, ``3 min 20 s``, ``2 h 05 min``.

    Parameters
    ----------
    seconds : float
        The duration in seconds.

    Returns
    -------
    str
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
