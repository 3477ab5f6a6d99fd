"""Learning-rate schedules."""

from __future__ import annotations

import math
from typing import Literal


def warmup_cosine(step: int, steps: int, warmup: float) -> float:
    """Give the factor on the learning rate: a linear rise, then half a cosine to 0.

    Parameters
    ----------
    step : int
        The step about to be taken, from 0.
    steps : int
        Steps in all.
    warmup : float
        Part of the steps that the rise takes, 0 to 1.

    Returns
    -------
    float
        Above 0, at most 1.
    """
    rise = max(round(steps * warmup), 1)
    if step < rise:
        return (step + 1) / rise
    along = (step - rise + 0.5) / max(steps - rise, 1)
    return 0.5 * (1 + math.cos(math.pi * min(along, 1)))


def rate_factor(
    schedule: Literal["cosine", "linear"], step: int, steps: int, warmup: float
) -> float:
    """Give the factor on the peak rate: a linear rise, then a fall to 0.

    Parameters
    ----------
    schedule : str
        The fall is half a cosine, or a line.
    step, steps : int
        The step about to be taken, from 0, and how many there are.
    warmup : float
        Part of the steps that the rise takes.
    """
    if schedule == "cosine":
        return warmup_cosine(step, steps, warmup)
    rise = max(round(steps * warmup), 1)
    if step < rise:
        return (step + 1) / rise
    return max(1 - (step - rise + 0.5) / max(steps - rise, 1), 0.0)
