"""The click test of the demo: a place of one generated section, looked for in the next."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from napari_mcm.core.evaluation.config import SerialConfig
from napari_mcm.core.evaluation.serial import NEAR, ClickTest, click_test
from napari_mcm.core.evaluation.squares import mean_over_squares
from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.features.neighbourhood import (
    NeighbourhoodConfig,
    average_neighbourhood,
)
from napari_mcm.core.registration import Registration

RADII = (0, 1)
"""Neighbourhoods that are tested: the patch alone, and 3 × 3 patches."""

QUERIES = 500

SQUARE_UM = 500.0
"""Squares of tissue for intervals, in µm; the sections are too small for those of 1 mm."""


def measure_clicks(
    features: Mapping[str, tuple[FeatureSet, FeatureSet]], registration: Registration
) -> dict[str, Any]:
    """Ask every encoder for the places of one section in the next.

    Parameters
    ----------
    features : mapping of str to tuple of FeatureSet
        Features of the first and the second section, by encoder.
    registration : Registration
        Map from the first section to the second.

    Returns
    -------
    dict
        Ready for JSON: ``queries``, ``candidates``, ``registration_error_um``, ``chance``
        (recall of a random order among the first 1 and 10), and ``encoders``: per encoder
        and radius, recall within 2 patches among the first 1 and 10, recall within 0.75 of
        a patch among the first, and the median rank of the place. ``gain``: of the fine-tuned
        encoder (`after`) over the untouched one (`before`), per radius, the difference in
        recall among the first with its 95 % interval over squares of tissue.
    """
    encoders: dict[str, dict[str, dict[str, float]]] = {}
    common: dict[str, Any] = {}
    tests: dict[tuple[str, int], ClickTest] = {}
    for name, pair in features.items():
        encoders[name] = {}
        for radius in RADII:
            first, second = (_around(part, radius) for part in pair)
            config = SerialConfig(queries=QUERIES)
            test = click_test(first, second, registration, config)
            tests[name, radius] = test
            encoders[name][str(radius)] = {
                "recall_1": test.recall(1),
                "recall_10": test.recall(10),
                "near_1": test.recall(1, NEAR),
                "median_rank": test.median_rank,
            }
            # The same places for every encoder and radius.
            common = {
                "queries": len(test),
                "candidates": test.candidates,
                "chance": {"recall_1": test.chance(1), "recall_10": test.chance(10)},
            }
    # NaN where the sections are too small for the error to be measured.
    error = registration.error_um
    known = None if math.isnan(error) else error
    gain = {
        str(radius): _gain(tests["before", radius], tests["after", radius])
        for radius in RADII
        if {("before", radius), ("after", radius)} <= tests.keys()
    }
    return {
        **common,
        "registration_error_um": known,
        "encoders": encoders,
        "gain": gain,
    }


def _gain(before: ClickTest, after: ClickTest) -> list[float | None]:
    """Return the paired difference in recall, and its interval; None where unknown."""
    hits = after.hits(1).astype(np.float64) - before.hits(1)
    slides = np.zeros(len(before), np.int64)
    found = mean_over_squares(hits, slides, before.centres_um, SQUARE_UM)
    return [None if math.isnan(value) else value for value in found]


def _around(features: FeatureSet, radius: int) -> FeatureSet:
    if not radius:
        return features
    return average_neighbourhood(features, NeighbourhoodConfig(radius=radius))
