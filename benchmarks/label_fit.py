"""From a label to a class map, without a window: what each step of the engine takes.

For label sets of several sizes, on features of random classes, each step is timed as the
Classes widget runs it: find the labelled patches, average their features over their
neighbours, fit, calibrate, compute the probabilities of all patches, decide, measure
areas. Processor time is printed beside wall time, as it hardly depends on what else the
machine does.

    python benchmarks/label_fit.py [--patches 100000] [--dim 768] [--classes 4] [--n 20]
"""

from __future__ import annotations

import argparse
import math
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from napari_mcm.core.features.feature_set import FeatureSet, NeighbourhoodConfig
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.labelling import (
    ClassifierConfig,
    LabelSet,
    class_areas,
    labels_of_rows,
    patch_probabilities,
    prepare_maps,
)
from napari_mcm.core.labelling.training import gather_labels, train_on

_T = TypeVar("_T")

STEPS = ("gather", "fit", "calibrate", "map", "decide", "areas")
LABELS = (2, 20, 100, 500)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patches", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--classes", type=int, default=4)
    parser.add_argument("--n", type=int, default=20, help="repetitions")
    options = parser.parse_args()
    features, truth = make_features(options.patches, options.dim, options.classes)
    print("| context | labels | " + " | ".join(STEPS) + " | all, median | all, p95 |")
    print("|---|---|" + "---|" * (len(STEPS) + 2))
    for radius in (0, 1):
        config = ClassifierConfig(neighbourhood=NeighbourhoodConfig(radius=radius))
        prepare_maps(features, config.neighbourhood)
        for count in LABELS:
            labels = make_labels(features.grid, truth, count)
            print(row(features, labels, config, options.n), flush=True)


def make_features(
    patches: int, dim: int, classes: int
) -> tuple[FeatureSet, np.ndarray[Any, Any]]:
    """Return features that scatter around a centre per class, and the classes."""
    side = math.isqrt(patches)
    lattice = np.stack(np.divmod(np.arange(side * side), side), axis=1)
    slide = {"name": "made", "fingerprint": "made", "size": [side * 448] * 2}
    described = {
        "patch_size": 224,
        "mpp": 0.5,
        "patch_size_level0": (448.0, 448.0),
        "origin": (0.0, 0.0),
        "shape": (side, side),
        "slide": {**slide, "mpp": [0.25, 0.25]},
    }
    grid = PatchGrid.from_description(described, lattice[:, ::-1] * 448, lattice)
    rng = np.random.default_rng(0)
    truth = (lattice // 40).sum(axis=1) % classes
    values = rng.standard_normal((len(grid), dim), np.float32) * 3
    values += rng.standard_normal((classes, dim), np.float32)[truth]
    status = np.zeros(len(grid), np.uint8)
    return FeatureSet(values, grid, status, {"fingerprint": "made"}), truth


def make_labels(grid: PatchGrid, truth: np.ndarray[Any, Any], count: int) -> LabelSet:
    """Label patches at random, the first of each class among them."""
    classes = int(truth.max()) + 1
    rows = np.random.default_rng(1).permutation(len(grid))
    first = [rows[truth[rows] == k][0] for k in range(min(classes, count))]
    rows = np.concatenate([first, np.setdiff1d(rows, first, assume_unique=True)])[
        :count
    ]
    labels = LabelSet().with_names(f"class {k}" for k in range(classes))
    for k, name in enumerate(labels.names):
        own = rows[truth[rows] == k]
        labels = labels.with_labels(labels_of_rows(grid, own, name))
    return labels


def row(
    features: FeatureSet, labels: LabelSet, config: ClassifierConfig, times: int
) -> str:
    """Return a line: median wall (processor) time of each step in ms."""
    wall: dict[str, list[float]] = defaultdict(list)
    busy: dict[str, list[float]] = defaultdict(list)

    def timed(step: str, work: Callable[[], _T]) -> _T:
        began, used = time.perf_counter(), time.process_time()
        result = work()
        busy[step].append(1e3 * (time.process_time() - used))
        wall[step].append(1e3 * (time.perf_counter() - began))
        return result

    for _ in range(times):
        one = timed("gather", lambda: gather_labels(labels, [features], config))
        timed("fit", lambda one=one: train_on(one, config, calibrate=False))
        made = timed("both", lambda one=one: train_on(one, config))
        p = timed("map", lambda made=made: patch_probabilities(made, features))
        decided = timed("decide", lambda made=made, p=p: made.decide(p))
        names = made.names
        timed("areas", lambda d=decided, p=p, n=names: class_areas(features, d, p, n))
    for spent in (wall, busy):
        pairs = zip(spent["both"], spent["fit"], strict=True)
        spent["calibrate"] = [max(both - fit, 0.0) for both, fit in pairs]
    cells = [f"{np.median(wall[s]):.0f} ({np.median(busy[s]):.0f})" for s in STEPS]
    whole = np.sum([wall[step] for step in STEPS], axis=0)
    used = np.sum([busy[step] for step in STEPS], axis=0)
    cells.append(f"{np.median(whole):.0f} ({np.median(used):.0f})")
    cells.append(f"{np.percentile(whole, 95):.0f} ({np.percentile(used, 95):.0f})")
    context = config.neighbourhood.describe()
    return f"| {context} | {len(labels)} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
