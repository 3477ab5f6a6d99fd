"""How the learning rate goes over the steps."""

from __future__ import annotations

from typing import Literal

from napari_mcm.core.training import warmup_cosine


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
