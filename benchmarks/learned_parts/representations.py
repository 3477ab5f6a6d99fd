"""All features that are compared: means, a head's tokens and predictions, controls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from benchmarks.learned_parts.heads import LEARNED, Sets
from benchmarks.learned_parts.windows import Filled, Placements, contextualise
from numpy.typing import NDArray
from torch import nn

from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.core.features.neighbourhood import average_neighbourhood, has_features
from napari_mcm.core.mcm.model import ContextModel
from napari_mcm.core.registration import Registration


@dataclass(frozen=True)
class Material:
    """What is measured: features by section, registrations, and heads by name."""

    student: Sets
    registrations: Mapping[str, Registration]
    heads: Mapping[str, ContextModel]
    untrained: ContextModel
    s: int


def representations(material: Material) -> Iterator[tuple[str, Sets]]:
    """Make all features that are compared, one after the other."""
    student, s = material.student, material.s
    yield "patch alone", student
    means = {}
    for radius in (1, 2):
        config = NeighbourhoodConfig(radius=radius)
        means[radius] = {
            name: average_neighbourhood(one, config) for name, one in student.items()
        }
        yield f"mean of {config.describe()}", means[radius]
    for name, head in material.heads.items():
        yield from _of_head(name, head, student, means[1], s)
    for kind, sets in _contextualised(Filled(material.untrained), student, s).items():
        yield f"K (untrained head), {kind} windows", sets


def _of_head(
    name: str, head: ContextModel, student: Sets, means: Sets, s: int
) -> Iterator[tuple[str, Sets]]:
    width = len(head.mask_token)
    both = _contextualised(Filled(head, predict=True), student, s)
    tokens = {kind: _columns(sets, 0, width) for kind, sets in both.items()}
    for kind, sets in tokens.items():
        yield f"K ({name}), {kind} windows", sets
    yield f"prediction ({name})", _columns(both["central"], width, None)
    yield f"3 × 3 mean beside K ({name})", _beside(means, tokens["central"])
    radius = NeighbourhoodConfig(radius=1)
    averaged = {
        k: average_neighbourhood(v, radius) for k, v in tokens["central"].items()
    }
    yield f"3 × 3 mean of K ({name})", averaged
    del both
    shuffled = _contextualised(Filled(head), student, s, shuffle=0)
    yield f"K ({name}), shuffled positions", shuffled["central"]
    masked = _contextualised(Filled(head, predict=True), student, s, hide=True)
    alone = _columns(masked["central"], width, None)
    yield f"prediction ({name}), patch masked", alone
    of_means = _contextualised(Filled(head), means, s)
    yield f"K of the 3 × 3 mean ({name})", of_means["central"]


def _contextualised(
    head: nn.Module, sets: Sets, s: int, **options: Any
) -> dict[Placements, Sets]:
    by_section = {n: contextualise(head, one, s, **options) for n, one in sets.items()}
    kinds = next(iter(by_section.values()))
    return {kind: {n: one[kind] for n, one in by_section.items()} for kind in kinds}


def _columns(sets: Sets, start: int, stop: int | None) -> Sets:
    return {n: replace(f, features=f.features[:, start:stop]) for n, f in sets.items()}


def _beside(one: Sets, other: Sets) -> Sets:
    """Join two representations, each of unit length."""
    joined = {}
    for name, features in one.items():
        pair = [_unit(f.features) for f in (features, other[name])]
        joined[name] = replace(features, features=np.concatenate(pair, axis=1))
    return joined


def _unit(values: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.maximum(length, 1e-12), np.float32)


def centre(sets: Sets) -> Sets:
    """Subtract the mean over the sections of the training set."""
    known = np.concatenate([sets[n].features[has_features(sets[n])] for n in LEARNED])
    mean = known.mean(axis=0, dtype=np.float64).astype(np.float32)
    return {k: replace(v, features=v.features - mean) for k, v in sets.items()}
