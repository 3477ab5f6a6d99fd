"""How fast jobs run on this machine: measured while they run, remembered for the next.

A job's duration is ``other + units / rate``: the rate of its main stage, and the rest, such
as starting PyTorch. Both are kept per kind of work, device and precision in ``rates.json``
beside the plugin's other settings.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from napari_mcm.core.errors import McmError
from napari_mcm.core.runtime.files import write_json
from napari_mcm.core.runtime.jobs import Progress
from napari_mcm.viewer.app.persistence import settings_file

_log = logging.getLogger(__name__)

_LEAST_UNITS = 2
_LEAST_S = 0.5
"""What a stage must have done, and for how long, for its rate to be remembered."""
_KEPT = 0.5
"""Weight of what is remembered when a new measurement comes."""
_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0


@dataclass(frozen=True)
class Work:
    """What a job is going to do, as far as its duration depends on it.

    Attributes
    ----------
    verb : str
        Verb of the command line.
    model : str
        What computes: encoder, size of patches; jobs of one model have one rate.
    device, precision : str
        As the user chose them.
    stage : str
        How the name of the main stage begins.
    units : float or None
        How much the main stage is going to do; None where it is not known.
    scale : float
        Units in one that the stage's progress counts, such as the slides of an epoch.
    exact : bool
        Whether `units` are counted; otherwise guessed, as for a slide whose tissue has
        not been found.
    multiply_adds : float or None
        Multiply-adds per unit, for a first guess; None where they are not known.
    slowness : float
        How much longer one takes than in most networks.
    """

    verb: str
    model: str
    device: str
    precision: str
    stage: str
    units: float | None = None
    scale: float = 1.0
    exact: bool = True
    multiply_adds: float | None = None
    slowness: float = 1.0

    @property
    def cost(self) -> float | None:
        """Multiply-adds per unit, as many as take the same time in most networks."""
        known = self.multiply_adds
        return None if known is None else known * self.slowness

    @property
    def key(self) -> str:
        """Key of the rate."""
        return " | ".join((self.verb, self.model, self.device, self.precision))


@dataclass(frozen=True)
class Estimate:
    """How long a job is going to take.

    Attributes
    ----------
    seconds : float
        Expected duration.
    measured : bool
        Whether an earlier job of this kind was measured here; otherwise guessed from
        the number of multiply-adds.
    """

    seconds: float
    measured: bool = True

    @property
    def text(self) -> str:
        """The duration in words: ``about 4 min``, ``roughly 3 h`` where it is guessed."""
        return f"{'about' if self.measured else 'roughly'} {rounded(self.seconds)}"


def rounded(seconds: float) -> str:
    """Return a duration to the precision of an estimate: ``15 s``, ``4 min``, ``9 days``.

    Parameters
    ----------
    seconds : float
        The duration.
    """
    if seconds < 57.5:
        return f"{max(5 * round(seconds / 5), 5)} s"
    if seconds < 9.5 * _MINUTE:
        return f"{max(round(seconds / _MINUTE), 1)} min"
    if seconds < 57.5 * _MINUTE:
        return f"{5 * round(seconds / _MINUTE / 5)} min"
    if seconds < 9.5 * _HOUR:
        half_hours = max(round(2 * seconds / _HOUR), 2)
        return f"{half_hours / 2:g} h"
    if seconds < 2 * _DAY:
        return f"{round(seconds / _HOUR)} h"
    return f"{round(seconds / _DAY):,} days"


def estimate(
    work: Work, rates: Mapping[str, Any], speed: float | None
) -> Estimate | None:
    """Estimate the duration of a job.

    Parameters
    ----------
    work : Work
        The job.
    rates : mapping
        What :func:`read_rates` returns.
    speed : float or None
        Multiply-adds per second of this machine; None where it is not known.

    Returns
    -------
    Estimate or None
        None where nothing is known.
    """
    if work.units is None:
        return None
    known = _checked(rates.get(work.key))
    if known is not None:
        ratio = 1.0 if work.exact else known["ratio"]
        seconds = known["other_s"] + work.units * ratio * known["unit_s"]
        return Estimate(seconds)
    speed = speed_of(work, rates) or speed
    if speed is None or work.cost is None:
        return None
    return Estimate(work.units * work.cost / speed, measured=False)


def speed_of(work: Work, rates: Mapping[str, Any]) -> float | None:
    """Return the multiply-adds per second that other jobs had here.

    Parameters
    ----------
    work : Work
        Its device and precision count.
    rates : mapping
        What :func:`read_rates` returns.

    Returns
    -------
    float or None
        Median over the jobs of any model; None without any.
    """
    ending = f" | {work.device} | {work.precision}"
    found = [
        known["multiply_adds"] / known["unit_s"]
        for key, value in rates.items()
        if key.endswith(ending)
        and (known := _checked(value)) is not None
        and known["multiply_adds"] > 0
    ]
    return median(found) if found else None


class JobTiming:
    """Measure one job, and remember its rate when it has ended.

    Parameters
    ----------
    work : Work
        What the job does.
    expected_s : float or None
        Its estimated duration in seconds; None where none is known.
    clock : callable, optional
        Returns the time in seconds.
    """

    def __init__(
        self,
        work: Work,
        expected_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.work, self.expected_s, self._clock = work, expected_s, clock
        self._began = self._last = clock()
        self._stage, self._done = "", 0
        self.units, self.seconds = 0.0, 0.0

    def follow(self, progress: Progress) -> None:
        """Take in an event: the time since the last one went to that one's stage."""
        now = self._clock()
        ours = progress.stage.startswith(self.work.stage)
        if ours and progress.stage == self._stage:
            self.units += self.work.scale * max(progress.done - self._done, 0)
            self.seconds += now - self._last
        self._stage, self._done, self._last = progress.stage, progress.done, now

    def end(self, finished: bool) -> None:
        """Remember the rate; of an unfinished job, the rest is not known.

        Parameters
        ----------
        finished : bool
            Whether the job was done to its end.
        """
        if self.units < _LEAST_UNITS or self.seconds < _LEAST_S:
            return
        found = {"unit_s": self.seconds / self.units}
        if finished:
            found["other_s"] = max(self._clock() - self._began - self.seconds, 0.0)
            if self.work.units and not self.work.exact:
                found["ratio"] = self.units / self.work.units
        try:
            remember_rate(self.work, found)
        except (OSError, McmError) as error:
            _log.warning("Cannot remember how long %s took: %s", self.work.key, error)


def remember_rate(work: Work, found: Mapping[str, float]) -> None:
    """Blend a measurement into what is remembered.

    Parameters
    ----------
    work : Work
        What was measured.
    found : mapping of str to float
        ``unit_s``, seconds per unit; of finished jobs ``other_s``, and ``ratio`` of
        the units done to those that were guessed.

    Raises
    ------
    McmError
        If the file cannot be written.
    """
    rates = read_rates()
    before = _checked(rates.get(work.key))
    if before is not None:
        found = {k: _KEPT * before[k] + (1 - _KEPT) * v for k, v in found.items()}
    entry = {**_DEFAULTS, **(before or {}), **found}
    entry["multiply_adds"] = work.cost or 0.0
    write_json(_file(), rates | {work.key: entry})


def read_rates() -> dict[str, Any]:
    """Read what is remembered; a missing or damaged file is empty."""
    try:
        content = json.loads(_file().read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        _log.warning("Ignoring %s, which cannot be read: %s", _file(), error)
        return {}
    return content if isinstance(content, dict) else {}


_DEFAULTS = {"unit_s": 1.0, "other_s": 0.0, "ratio": 1.0, "multiply_adds": 0.0}


def _checked(entry: Any) -> dict[str, float] | None:
    """Return an entry of the file with all its numbers; None if it is damaged."""
    if not isinstance(entry, dict):
        return None
    try:
        numbers = {name: float(entry[name]) for name in _DEFAULTS}
    except (KeyError, TypeError, ValueError):
        return None
    usable = all(math.isfinite(v) and v >= 0 for v in numbers.values())
    return numbers if usable and numbers["unit_s"] > 0 else None


def _file() -> Path:
    return settings_file("rates.json")
