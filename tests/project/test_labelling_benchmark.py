"""The simulated user of the benchmark of labels, and how labels are counted."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks import labelling
from benchmarks.labelling import Task, Variant, labels_needed, reach, simulate

from napari_mcm.core.evaluation.dataset import LabelledPatches


def make_task(n: int = 240) -> Task:
    """Three well separated classes on three slides, of which one is tested in turn."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 3
    slides = np.arange(n) // (n // 3)
    features = 3 * np.eye(3, 8)[labels] + 0.2 * rng.standard_normal((n, 8))
    kept = {"a": features.astype(np.float32)}
    patches = LabelledPatches(
        labels,
        ("x", "y", "z"),
        slides,
        ("s", "t", "u"),
        slides,
        ("s", "t", "u"),
        np.zeros((n, 2)),
        kept,
        kept,
        np.zeros(n, bool),
    )
    return Task(patches, slides)


@pytest.mark.parametrize("strategy", labelling.STRATEGIES)
@pytest.mark.parametrize("start", ["examples", "nothing"])
def test_the_user_labels_each_patch_once_and_learns(strategy: str, start: str) -> None:
    task = make_task()
    scores, labelled = simulate(task, Variant(0, start, most=40), strategy, 1, 0)
    assert len(set(labelled)) == len(labelled) >= 40
    assert len(scores) == 1 + len(labelled) // 8
    assert scores[-1] == pytest.approx([1, 1])
    if start == "nothing":
        # Without a label all patches have one score, and the first class wins.
        assert scores[0] == pytest.approx([0.5, 1 / 3])


def test_all_strategies_start_from_the_same_labels() -> None:
    task, variant = make_task(), Variant(0, most=11)
    starts = {
        tuple(simulate(task, variant, strategy, 2, 3)[1][:3])
        for strategy in labelling.STRATEGIES
    }
    (start,) = starts
    truth = task.patches.labels[task.splits != 2][list(start)]
    assert sorted(truth) == [0, 1, 2]
    assert start != tuple(simulate(task, variant, "random", 2, 4)[1][:3])


def test_labels_are_counted_where_a_curve_first_reaches_random_at_100() -> None:
    counts = [20, 60, 100, 140]
    random = np.asarray([0.5, 0.6, 0.8, 0.9])
    fast = np.asarray([0.7, 0.9, 0.9, 0.9])
    slow = np.asarray([0.5, 0.5, 0.6, 0.7])
    curves = {
        name: np.broadcast_to(curve[:, None], (2, 3, 4, 1))
        for name, curve in (("random", random), ("fast", fast), ("slow", slow))
    }
    needed = labels_needed(counts, curves, 0)
    assert needed["random"] == pytest.approx(100)
    # Half of the way from .7 at 20 to .9 at 60.
    assert needed["fast"] == pytest.approx(40)
    assert needed["slow"] == np.inf
    assert reach(counts, random, 0.4) == 20


def test_intervals_are_of_whole_splits_and_seeds() -> None:
    rng = np.random.default_rng(1)
    curves = {"random": rng.random((4, 5, 3, 1)), "balanced": rng.random((4, 5, 3, 1))}
    values = [set(curves[name].ravel()) for name in curves]
    for number, drawn in enumerate(labelling.resampled(curves)):
        for name, all_values in zip(curves, values, strict=True):
            assert drawn[name].shape == (4, 5, 3, 1)
            assert set(drawn[name].ravel()) <= all_values
        # The same splits and seeds for all strategies.
        at = np.argwhere(curves["random"] == drawn["random"][1, 2, 0, 0])[0]
        assert curves["balanced"][tuple(at)] == drawn["balanced"][1, 2, 0, 0]
        if number > 20:
            break
