"""How sure a figure is: bootstrap intervals over slides or over patients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.jobs import Job, Meter

Rows = NDArray[np.int64]
Statistic = Callable[[Rows], dict[str, float]]
Interval = tuple[float, float]

LEVEL = 95.0


def bootstrap(
    statistic: Statistic,
    units: Sequence[str],
    resamples: int,
    stage: str,
    seed: int = 0,
) -> Job[dict[str, Interval]]:
    """Draw units with replacement and see how figures vary.

    Efron's percentile interval. Draws depend on the seed and the units only: two methods
    on the same slides see the same draws, and a difference computed inside `statistic`
    is a paired one.

    Parameters
    ----------
    statistic : callable
        Gives figures of some rows, which may repeat.
    units : sequence of str
        What each row belongs to: the slide itself, or its patient, whose rows are drawn
        together.
    resamples : int
        Draws.
    stage : str
        What progress says.
    seed : int
        Of the draws.

    Returns
    -------
    dict of str to tuple of float
        Ends of the 95 % interval of each figure; NaN where no draw had it.
    """
    names, place = np.unique(np.asarray(units), return_inverse=True)
    rows = [np.flatnonzero(place == unit) for unit in range(len(names))]
    rng = np.random.default_rng([seed, 5])
    found: dict[str, list[float]] = {}
    meter = Meter(stage, resamples, "samples")
    for _ in range(resamples):
        drawn = rng.integers(0, len(names), len(names))
        for name, value in statistic(np.concatenate([rows[i] for i in drawn])).items():
            found.setdefault(name, []).append(value)
        yield meter.advance()
    return {name: _ends(values) for name, values in found.items()}


def _ends(values: Sequence[float]) -> Interval:
    known = np.asarray(values)[np.isfinite(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.percentile(known, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return float(low), float(high)
