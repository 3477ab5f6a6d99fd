"""The click test of the demo: a place of one generated section, looked for in the next."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from napari_mcm.core.evaluation.config import SerialConfig
from napari_mcm.core.evaluation.serial import NEAR, click_test
from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.features.neighbourhood import (
    NeighbourhoodConfig,
    average_neighbourhood,
)
from napari_mcm.core.registration import Registration

RADII = (0, 1)
"""Neighbourhoods that are tested: the patch alone, and 3 × 3 patches."""

QUERIES = 500


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
        a patch among the first, and the median rank of the place.
    """
    encoders: dict[str, dict[str, dict[str, float]]] = {}
    common: dict[str, Any] = {}
    for name, pair in features.items():
        encoders[name] = {}
        for radius in RADII:
            first, second = (_around(part, radius) for part in pair)
            config = SerialConfig(queries=QUERIES)
            test = click_test(first, second, registration, config)
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
    return {**common, "registration_error_um": known, "encoders": encoders}


def _around(features: FeatureSet, radius: int) -> FeatureSet:
    if not radius:
        return features
    return average_neighbourhood(features, NeighbourhoodConfig(radius=radius))
