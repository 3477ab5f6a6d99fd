"""Bootstrap intervals: whole groups are drawn where there are enough, else blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.evaluation.estimate import Estimate, Floats

LEAST_GROUPS = 5
PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True, eq=False)
class Resampling:
    """Resamples that all measures of all encoders share, which pairs them.

    Attributes
    ----------
    level : {"group", "block"}
        What is drawn with replacement.
    units : ndarray of int64, shape (N,)
        The unit that each patch belongs to.
    groups : ndarray of int64, shape (N,)
        The group that each patch belongs to.
    extra : ndarray of float64, shape (B, U)
        How many times more than once each unit is drawn, by resample. Widened by the
        root of m / (m - 1) for m units, as m draws vary less than m new units.
    note : str
        What is drawn, and what that leaves out.
    """

    level: Literal["group", "block"]
    units: NDArray[np.int64]
    groups: NDArray[np.int64]
    extra: Floats
    note: str

    def interval(self, estimate: Estimate) -> tuple[float, float]:
        """Give the 95 % interval of a measure, or of a difference of two."""
        if not np.isfinite(estimate.value):
            return float("nan"), float("nan")
        by_unit = (
            estimate.of_groups(self.groups)
            if self.level == "group"
            else np.bincount(self.units, estimate.influence)
        )
        drawn = estimate.value + self.extra @ by_unit
        low, high = (float(v) for v in np.percentile(drawn, PERCENTILES))
        return low, high


def make_resampling(
    groups: NDArray[np.int64],
    slides: NDArray[np.int64],
    places_um: NDArray[np.float64],
    block_um: float = 1000.0,
    count: int = 2000,
    seed: int = 0,
) -> Resampling:
    """Decide what is drawn, and draw it.

    Parameters
    ----------
    groups, slides : ndarray of int64, shape (N,)
        Group (patient or slide) and slide of each patch, counted from 0.
    places_um : ndarray of float64, shape (N, 2)
        Where each patch lies on its slide.
    block_um : float
        Side of the squares that are drawn where there are fewer than
        `LEAST_GROUPS` groups.
    count : int
        Resamples.
    seed : int
        Names the random numbers.
    """
    rng = np.random.default_rng((seed, 31))
    total = int(groups.max()) + 1
    if total >= LEAST_GROUPS:
        extra = _draw(np.zeros(total, np.int64), count, rng)
        note = f"{total} groups drawn with replacement"
        return Resampling("group", groups, groups, extra, note)
    units, strata = _blocks(slides, places_um, block_um)
    note = (
        f"squares of {block_um:g} µm drawn within each slide, as there are fewer than "
        f"{LEAST_GROUPS} groups ({total}): too narrow, it leaves out how slides and "
        "patients differ"
    )
    return Resampling("block", units, groups, _draw(strata, count, rng), note)


def _blocks(
    slides: NDArray[np.int64], places_um: NDArray[np.float64], block_um: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut slides into squares; give each patch's square and each square's slide."""
    cells = np.floor(places_um / block_um).astype(np.int64)
    kinds, units = np.unique(
        np.column_stack([slides, cells]), axis=0, return_inverse=True
    )
    return units.reshape(-1).astype(np.int64), kinds[:, 0]


def _draw(strata: NDArray[np.int64], count: int, rng: np.random.Generator) -> Floats:
    """Draw units with replacement within their stratum (count, U)."""
    extra = np.zeros((count, len(strata)))
    for stratum in np.unique(strata):
        (columns,) = np.nonzero(strata == stratum)
        m = len(columns)
        times = rng.multinomial(m, np.full(m, 1 / m), size=count)
        extra[:, columns] = (times - 1) * np.sqrt(m / max(m - 1, 1))
    return extra
