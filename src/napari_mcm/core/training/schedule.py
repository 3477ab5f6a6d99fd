"""Learning-rate schedules: factors on the peak rate, by step."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np


def cosine(step: int, steps: int) -> float:
    """Return the factor on the learning rate along half a cosine, without a warm-up.

    Parameters
    ----------
    step : int
        The step, or epoch, about to be taken, from 0.
    steps : int
        Number of steps.

    Returns
    -------
    float
        From 1 towards 0.
    """
    return float(0.5 * (1 + np.cos(np.pi * step / steps)))


def warmup_cosine(step: int, steps: int, warmup: float) -> float:
    """Return the factor on the learning rate: a linear rise, then half a cosine to 0.

    Parameters
    ----------
    step : int
        The step about to be taken, from 0.
    steps : int
        Number of steps.
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
    # The middle of a step: neither the first is at the peak nor the last at 0.
    along = (step - rise + 0.5) / max(steps - rise, 1)
    return 0.5 * (1 + math.cos(math.pi * min(along, 1)))


def rate_factor(
    schedule: Literal["cosine", "linear"], step: int, steps: int, warmup: float
) -> float:
    """Return the factor on the peak rate: a linear rise, then a fall to 0.

    Parameters
    ----------
    schedule : {"cosine", "linear"}
        The fall is half a cosine, or a line.
    step : int
        The step about to be taken, from 0.
    steps : int
        Number of steps.
    warmup : float
        Part of the steps that the rise takes, 0 to 1.

    Returns
    -------
    float
        At least 0, at most 1.
    """
    if schedule == "cosine":
        return warmup_cosine(step, steps, warmup)
    rise = max(round(steps * warmup), 1)
    if step < rise:
        return (step + 1) / rise
    return max(1 - (step - rise + 0.5) / max(steps - rise, 1), 0.0)
