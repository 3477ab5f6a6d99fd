"""Whether attention points at what counts: the score without the patches it points at."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.mil.bags import Vectors
from napari_mcm.core.mil.ensemble import Ensemble

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Occlusion:
    """How a class's probability changes when patches are removed.

    Attributes
    ----------
    class_name : str
        Whose probability.
    removed : int
        Patches removed.
    whole : float
        Probability with all patches.
    drop_top : float
        By how much it falls without the patches of greatest attention.
    drop_random, drop_random_sd : float
        By how much it falls without as many random ones: mean and standard deviation.
    draws : int
        Random sets tried.
    """

    class_name: str
    removed: int
    whole: float
    drop_top: float
    drop_random: float
    drop_random_sd: float
    draws: int


def occlude(
    ensemble: Ensemble,
    vectors: Vectors,
    weights: Floats,
    number: int,
    part: float,
    draws: int,
    seed: int = 0,
) -> Generator[None, None, Occlusion | None]:
    """Remove the top patches, and random ones to compare with.

    Parameters
    ----------
    ensemble : Ensemble
        Whose mean probability is looked at.
    vectors : ndarray, shape (N, D)
        Features of the slide's patches.
    weights : ndarray, shape (N,)
        Their attention.
    number : int
        Index of the class.
    part : float
        Part of the patches removed; one at least.
    draws, seed : int
        Random sets, and where they come from.

    Returns
    -------
    Occlusion or None
        None for a slide of a single patch.
    """
    count = max(round(part * len(vectors)), 1)
    if count >= len(vectors):
        return None
    whole = float((yield from ensemble.predict(vectors))[number])
    top = np.argsort(weights)[-count:]
    without = yield from ensemble.predict(np.delete(vectors, top, axis=0))
    rng = np.random.default_rng([seed, 6])
    drops = []
    for _ in range(draws):
        gone = rng.choice(len(vectors), count, replace=False)
        left = yield from ensemble.predict(np.delete(vectors, gone, axis=0))
        drops.append(whole - float(left[number]))
    return Occlusion(
        ensemble.classes[number],
        count,
        whole,
        whole - float(without[number]),
        float(np.mean(drops)),
        float(np.std(drops, ddof=1)),
        draws,
    )
