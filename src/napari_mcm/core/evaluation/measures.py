"""The measures of one encoder: what is computed, from what, and what it is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.evaluation.config import ProtocolConfig
from napari_mcm.core.evaluation.estimate import (
    Estimate,
    balanced_accuracy,
    combine,
    macro_auroc,
)
from napari_mcm.core.evaluation.geometry import (
    anisotropy,
    effective_rank,
    feature_spread,
    similarity_auroc,
)
from napari_mcm.core.evaluation.labelled import LabelledPatches
from napari_mcm.core.evaluation.probes import (
    Labels,
    Matrix,
    few_shot,
    linear_probe,
    nearest_neighbours,
)
from napari_mcm.core.jobs import Job, Meter, Progress

TITLES = {
    "few_shot_auroc": "few-shot AUROC",
    "similarity_auroc": "similarity AUROC",
    "probe_auroc": "linear probe AUROC",
    "probe_accuracy": "linear probe balanced accuracy",
    "knn_auroc": "k-NN AUROC",
    "knn_accuracy": "k-NN balanced accuracy",
    "surroundings_auroc": "probe AUROC, neighbour mean",
    "neighbour_gain": "neighbour gain in AUROC",
    "anisotropy": "mean similarity",
    "effective_rank": "effective rank",
    "feature_std": "feature std",
}
"""Measures in the order in which they are shown; the first two are the primary ones."""

BY_CHANCE = {name: 0.5 for name in TITLES if name.endswith("auroc")}
"""What an encoder that knows nothing gets."""


@dataclass(frozen=True, eq=False)
class Measured:
    """A measure and what stands behind it.

    Attributes
    ----------
    estimate : Estimate
        Its value, and each patch's part in it.
    details : mapping
        By class or by draw; ready for JSON.
    """

    estimate: Estimate
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Task:
    """What is asked of an encoder: the same for all of them.

    Attributes
    ----------
    patches : LabelledPatches
        With their classes.
    folds : ndarray of int64, shape (N,)
        Where each patch is tested.
    positive : int or None
        The class that counts, None for the mean over all.
    protocol : ProtocolConfig
        How.
    """

    patches: LabelledPatches
    folds: Labels
    positive: int | None
    protocol: ProtocolConfig

    def auroc(self, scores: NDArray[np.float64]) -> Estimate:
        """Give the AUROC that counts, within folds' groups."""
        labels, groups = self.patches.labels, self.patches.groups
        return macro_auroc(scores, labels, groups, self.positive)


Made = Job[dict[str, Measured]]


@dataclass(frozen=True)
class Part:
    """Measures that come from one computation.

    Attributes
    ----------
    source : {"features", "surroundings"}
        What it is computed from.
    make : callable
        The computation.
    protocol : frozenset of str
        What it heeds of the protocol.
    """

    source: Literal["features", "surroundings"]
    make: Callable[[Matrix, Task], Made]
    protocol: frozenset[str] = frozenset()


def neighbour_gain(probe: Measured, surroundings: Measured) -> Measured:
    """Tell how much averaging neighbours adds to the linear probe."""
    return Measured(surroundings.estimate.minus(probe.estimate))


def _strength(task: Task) -> float | None:
    chosen = task.protocol.strength
    return None if chosen == "inner" else chosen


def _probe(features: Matrix, task: Task) -> Made:
    labels = task.patches.labels
    scores, chosen = yield from linear_probe(
        features, labels, task.folds, _strength(task)
    )
    details = {"strengths": chosen, **_by_group(scores, task)}
    return {
        "probe_auroc": Measured(task.auroc(scores), details),
        "probe_accuracy": Measured(balanced_accuracy(scores, labels)),
    }


def _surroundings(features: Matrix, task: Task) -> Made:
    scores, chosen = yield from linear_probe(
        features,
        task.patches.labels,
        task.folds,
        _strength(task),
        "Linear probe, neighbour mean",
    )
    details = {"strengths": chosen, **_by_group(scores, task)}
    return {"surroundings_auroc": Measured(task.auroc(scores), details)}


def _knn(features: Matrix, task: Task) -> Made:
    labels = task.patches.labels
    scores = yield from nearest_neighbours(
        features, labels, task.folds, task.protocol.neighbours
    )
    return {
        "knn_auroc": Measured(task.auroc(scores), _by_group(scores, task)),
        "knn_accuracy": Measured(balanced_accuracy(scores, labels)),
    }


def _few_shot(features: Matrix, task: Task) -> Made:
    protocol, parts = task.protocol, []
    meter = Meter("Few-shot probe", protocol.draws, "draws")
    yield meter.progress()
    for scores in few_shot(
        features,
        task.patches.labels,
        task.folds,
        protocol.few_shot,
        protocol.draws,
        protocol.seed,
    ):
        parts.append(task.auroc(scores))
        yield meter.advance()
    values = [part.value for part in parts]
    details = {"draws": values, "std_over_draws": float(np.std(values))}
    return {
        "few_shot_auroc": Measured(
            combine(parts, [1 / len(parts)] * len(parts)), details
        )
    }


def _similarity(features: Matrix, task: Task) -> Made:
    labels = task.patches.labels
    asked = None if task.positive is None else labels == task.positive
    estimate, by_query = yield from similarity_auroc(
        features, labels, task.patches.groups, task.protocol.candidates, asked
    )
    by_class = {
        name: _mean(by_query[labels == label])
        for label, name in enumerate(task.patches.classes)
    }
    return {"similarity_auroc": Measured(estimate, {"by_class": by_class})}


def _geometry(features: Matrix, task: Task) -> Made:
    yield Progress("Geometry of the features", 0, 3, "measures")
    found = {"anisotropy": Measured(anisotropy(features))}
    yield Progress("Geometry of the features", 1, 3, "measures")
    found["effective_rank"] = Measured(
        effective_rank(features), {"dimensions": int(features.shape[1])}
    )
    yield Progress("Geometry of the features", 2, 3, "measures")
    found["feature_std"] = Measured(feature_spread(features))
    return found


_FEW_SHOT = frozenset({"few_shot", "draws", "seed"})
PARTS = {
    "few_shot": Part("features", _few_shot, _FEW_SHOT),
    "similarity": Part("features", _similarity, frozenset({"candidates"})),
    "probe": Part("features", _probe, frozenset({"strength"})),
    "knn": Part("features", _knn, frozenset({"neighbours"})),
    "surroundings": Part("surroundings", _surroundings, frozenset({"strength"})),
    "geometry": Part("features", _geometry),
}


def _by_group(scores: NDArray[np.float64], task: Task) -> dict[str, Any]:
    by_group = task.auroc(scores).by_group
    if by_group is None:
        return {}
    names = task.patches.group_names
    values = [float(v) if np.isfinite(v) else None for v in by_group]
    return {"by_group": dict(zip(names, values, strict=True))}


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None
