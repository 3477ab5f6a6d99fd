"""Squares of tissue as independent units, and the interval of a mean over them.

``evaluate --serial`` and studies take their intervals of the click test from here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

PERCENTILES = (2.5, 97.5)

FEW_SQUARES = 20
"""Squares of tissue from which the bootstrap over them needs no correction."""


def mean_over_squares(
    values: Floats,
    slides: NDArray[np.int64],
    places_um: Floats,
    block_um: float = 1000.0,
    count: int = 2000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Return a mean over places of tissue, and its interval over squares of tissue.

    What lies close together is the same tissue, so that squares, not places, are the
    independent units. They are drawn with replacement within each slide. With fewer than
    `FEW_SQUARES` the ends are moved outwards, by the ratio of Student's quantile to the
    normal one: the bootstrap alone would cover .83 with four squares.

    Parameters
    ----------
    values : ndarray of float64, shape (N,)
        One value per place: a hit, or a difference of two.
    slides : ndarray of int64, shape (N,)
        Slide of each place (or pair of sections), counted from 0.
    places_um : ndarray of float64, shape (N, 2)
        The places on their slides, in microns.
    block_um : float, optional
        Side in microns of the squares.
    count, seed : int, optional
        Number of resamples, and random seed.

    Returns
    -------
    tuple of float
        Mean, lower and upper end of the 95 % percentile interval; ends are NaN where no
        slide has two squares.
    """
    mean = float(values.mean())
    units, strata = squares_of(slides, places_um, block_um)
    # Each slide's mean costs a degree of freedom.
    free = len(strata) - len(np.unique(strata))
    if free < 1:
        return mean, float("nan"), float("nan")
    rng = np.random.default_rng((seed, 31))
    extra = draw_units(strata, count, rng)
    drawn = mean + extra @ np.bincount(units, (values - mean) / len(values))  # (B,)
    ends = np.percentile(drawn, PERCENTILES)
    if len(strata) < FEW_SQUARES:
        wider = stats.t.ppf(0.975, free) / stats.norm.ppf(0.975)
        ends = mean + wider * (ends - mean)
    return mean, float(ends[0]), float(ends[1])


def squares_of(
    slides: NDArray[np.int64], places_um: Floats, block_um: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide slides into squares.

    Parameters
    ----------
    slides : ndarray of int64, shape (N,)
        Slide of each place.
    places_um : ndarray of float64, shape (N, 2)
        The places on their slides, in microns.
    block_um : float
        Side in microns of the squares.

    Returns
    -------
    units : ndarray of int64, shape (N,)
        Square of each place, counted from 0.
    strata : ndarray of int64, shape (U,)
        Slide of each square.
    """
    cells = np.floor(places_um / block_um).astype(np.int64)
    kinds, units = np.unique(
        np.column_stack([slides, cells]), axis=0, return_inverse=True
    )
    return units.reshape(-1).astype(np.int64), kinds[:, 0]


def draw_units(
    strata: NDArray[np.int64], count: int, rng: np.random.Generator
) -> Floats:
    """Draw units with replacement, as many within each stratum as it has.

    Parameters
    ----------
    strata : ndarray of int64, shape (U,)
        Stratum of each unit: the slide of a square.
    count : int
        Number of resamples.
    rng : Generator
        Source of the randomness.

    Returns
    -------
    ndarray of float64, shape (count, U)
        How many times more than once each unit is drawn, by resample, scaled by the root of
        m / (m - 1) for m units of a stratum.
    """
    extra = np.zeros((count, len(strata)))
    for stratum in np.unique(strata):
        (columns,) = np.nonzero(strata == stratum)
        m = len(columns)
        times = rng.multinomial(m, np.full(m, 1 / m), size=count)
        extra[:, columns] = (times - 1) * np.sqrt(m / max(m - 1, 1))
    return extra
