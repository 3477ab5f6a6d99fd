"""How far a whole job has come: one fraction and one time left over all of its stages.

A job of several stages gives each a share of the whole, in proportion to the time that it
is expected to take. Shares nest: a stage that is a job of stages divides its own share::

    stages = Stages(1, 20)
    encoder = yield from stages.next(load(config))
    return (yield from stages.next(extract(encoder)))

Who shows a job keeps an :class:`OverallClock`, whose fraction never goes backwards.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from napari_mcm.core.runtime.jobs import Job, Progress

_T = TypeVar("_T")

_WINDOW = 64
"""Marks over which the rate of the whole is measured where no stage states its own."""
_LEAST_FRACTION = 0.02
"""Fraction from which a measured rate says something about the rest."""


def portion(job: Job[_T], start: float, stop: float) -> Job[_T]:
    """Run a job as a part of another one: its progress fills a share of the whole.

    Parameters
    ----------
    job : Job
        The part.
    start, stop : float
        Its share of the whole, as fractions between 0 and 1.

    Yields
    ------
    Event
        The events of the job; those of progress say how far the whole has come.

    Returns
    -------
    object
        What the job returns.
    """
    job = _delegated(job)
    try:
        while True:
            try:
                event = next(job)
            except StopIteration as end:
                result: _T = end.value
                return result
            if isinstance(event, Progress):
                event = _placed(event, start, stop)
            yield event
    finally:
        job.close()


def _delegated(job: Job[_T]) -> Job[_T]:
    """Return a generator of a job, which may be any iterable without a result."""
    return (yield from job)


def _placed(event: Progress, start: float, stop: float) -> Progress:
    share = stop - start
    pace = event.pace
    return replace(
        event,
        overall=start + share * (event.fraction or 0.0),
        overall_rate=None if pace is None else share * pace,
    )


def weighed(job: Job[_T], weights: Mapping[str, float]) -> Job[_T]:
    """Give the stages of a job, known by their names, their shares of its duration.

    Parameters
    ----------
    job : Job
        A job whose stages follow each other.
    weights : mapping of str to float
        How a stage's name begins, to its expected duration, in any unit; in their order.

    Yields
    ------
    Event
        The events of the job; those of progress say how far the whole has come. A stage
        that is not in `weights` takes no share.

    Returns
    -------
    object
        What the job returns.
    """
    total, begin = sum(weights.values()) or 1.0, 0.0
    shares: dict[str, tuple[float, float]] = {}
    for name, weight in weights.items():
        shares[name] = begin, begin + weight / total
        begin += weight / total
    place, job = 0.0, _delegated(job)
    try:
        while True:
            try:
                event = next(job)
            except StopIteration as end:
                result: _T = end.value
                return result
            if isinstance(event, Progress):
                stage = event.stage
                known = (share for n, share in shares.items() if stage.startswith(n))
                start, stop = next(known, (place, place))
                event = _placed(event, start, stop)
                place = max(place, event.overall or 0.0)
            yield event
    finally:
        job.close()


class Stages:
    """The stages of a job, one after another, with their shares of its duration.

    Parameters
    ----------
    *weights : float
        Expected durations, in any unit; 0 for a stage that takes no time.
    """

    def __init__(self, *weights: float) -> None:
        total = sum(weights) or 1.0
        self._shares = [weight / total for weight in weights]
        self._start = 0.0

    def next(self, job: Job[_T]) -> Job[_T]:
        """Run a job as the next stage.

        Parameters
        ----------
        job : Job
            The stage.

        Returns
        -------
        Job
            The same job, which reports how far the whole has come.
        """
        start = self._start
        self._start = min(start + self._shares.pop(0), 1.0)
        return portion(job, start, self._start)


@dataclass(frozen=True, slots=True)
class Overall:
    """How far a whole job has come.

    Attributes
    ----------
    fraction : float or None
        Between 0 and 1; None while unknown.
    left_s : float or None
        Estimated seconds left; None while unknown.
    elapsed_s : float
        Seconds since the job began.
    """

    fraction: float | None = None
    left_s: float | None = None
    elapsed_s: float = 0.0


class OverallClock:
    """Follow the events of one job, and tell how far the whole has come.

    Parameters
    ----------
    expected_s : float, optional
        Duration that was estimated before the job began, in seconds; used until a rate
        is measured.
    clock : callable, optional
        Returns the time in seconds.
    """

    def __init__(
        self,
        expected_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._expected, self._clock, self._began = expected_s, clock, clock()
        self._fraction: float | None = None
        self._marks: deque[tuple[float, float]] = deque(maxlen=_WINDOW)
        self._rate: float | None = None

    def follow(self, progress: Progress) -> Overall:
        """Take in an event, and return how far the job has come.

        Parameters
        ----------
        progress : Progress
            The latest one.

        Returns
        -------
        Overall
            Its fraction is never smaller than an earlier one.
        """
        found = progress.fraction
        if found is not None:
            self._fraction = max(self._fraction or 0.0, min(max(found, 0.0), 1.0))
            self._marks.append((self._clock(), self._fraction))
        self._rate = progress.pace or self._measured() or self._rate
        return self.now()

    def now(self) -> Overall:
        """Return how far the job has come by now.

        Returns
        -------
        Overall
        """
        elapsed = self._clock() - self._began
        left = None
        if self._rate and self._fraction is not None:
            left = (1.0 - self._fraction) / self._rate
        elif self._expected is not None:
            left = max(self._expected - elapsed, 0.0)
        return Overall(self._fraction, left, elapsed)

    def _measured(self) -> float | None:
        if len(self._marks) < 2 or (self._fraction or 0.0) < _LEAST_FRACTION:
            return None
        (first, had), (last, has) = self._marks[0], self._marks[-1]
        return (has - had) / (last - first) if has > had and last > first else None
