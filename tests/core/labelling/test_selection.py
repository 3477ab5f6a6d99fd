"""What to label next, against choices made by plain loops and by construction."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mcm.core.errors import LabelError
from napari_mcm.core.labelling.selection import STRATEGIES, choose_next

SURE, UNSURE = 0.9, 0.2


def patches(n=300, dim=12, classes=4, seed=0):
    """Random features and probabilities; the first class is common."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, dim)).astype(np.float32)
    share = np.asarray([8.0, *np.ones(classes - 1)])
    probabilities = rng.dirichlet(share / 4, n).astype(np.float32)
    return features, probabilities, rng.choice(n, 40, replace=False)


def margin_of(row):
    best, second = sorted(row, reverse=True)[:2]
    return best - second


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def by_loops(features, probabilities, labelled, count):
    """Choose as the module's docstring says, one comparison at a time."""
    classes = range(probabilities.shape[1])
    free = [i for i in range(len(features)) if i not in set(labelled.tolist())]
    predicted = [int(np.argmax(row)) for row in probabilities]
    candidates = {
        k: sorted(
            (i for i in free if predicted[i] == k),
            key=lambda i: margin_of(probabilities[i]),
        )[:count]
        for k in classes
    }
    mean = np.mean([features[i] for some in candidates.values() for i in some], axis=0)
    known = [features[i] - mean for i in labelled]
    counts = [sum(predicted[i] == k for i in labelled) for k in classes]
    chosen = []
    for _ in range(count):
        kind = min((k for k in classes if candidates[k]), key=lambda k: counts[k])
        best = min(
            candidates[kind],
            key=lambda i: max(cosine(features[i] - mean, one) for one in known),
        )
        candidates[kind].remove(best)
        known.append(features[best] - mean)
        counts[kind] += 1
        chosen.append(best)
    return chosen


@pytest.mark.parametrize("seed", range(3))
def test_balanced_is_what_plain_loops_choose(seed):
    features, probabilities, labelled = patches(seed=seed)
    found = choose_next(
        features, probabilities, labelled, 12, drawn=1000, strategy="balanced"
    )
    assert found.tolist() == by_loops(features, probabilities, labelled, 12)


def test_margin_takes_the_two_likeliest_classes_that_are_closest():
    features, probabilities, labelled = patches()
    found = choose_next(features, probabilities, labelled, 10, 0, "margin")
    free = np.setdiff1d(np.arange(300), labelled)
    expected = sorted(free, key=lambda i: margin_of(probabilities[i]))[:10]
    assert found.tolist() == expected


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("known", [True, False])
def test_only_patches_with_features_and_without_label(strategy, known):
    features, probabilities, labelled = patches()
    features[::3] = np.nan
    probabilities[::3] = np.nan
    given = probabilities if known else None
    found = choose_next(features, given, labelled, 10_000, 0, strategy)
    left = np.setdiff1d(np.flatnonzero(np.arange(300) % 3), labelled)
    assert sorted(found) == left.tolist()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("known", [True, False])
def test_the_same_seed_gives_the_same_patches(strategy, known):
    features, probabilities, labelled = patches()
    given = probabilities if known else None
    first = choose_next(features, given, labelled, 8, 5, strategy)
    assert (
        first.tolist()
        == choose_next(features.copy(), given, labelled[::-1], 8, 5, strategy).tolist()
    )
    if strategy == "random":
        other = choose_next(features, given, labelled, 8, 6, strategy)
        assert first.tolist() != other.tolist()


def test_rare_classes_come_before_common_ones():
    # 100 patches of class 0, all less sure than the few of classes 1 and 2.
    probabilities = np.full((110, 3), (1 - UNSURE) / 3, np.float32)
    probabilities[:100, 0] += UNSURE
    probabilities[100:105] = [(1 - SURE) / 2, SURE, (1 - SURE) / 2]
    probabilities[105:] = [(1 - SURE) / 2, (1 - SURE) / 2, SURE]
    features = np.random.default_rng(0).standard_normal((110, 6)).astype(np.float32)
    labelled = np.arange(10)  # ten labels of class 0, none of the others
    found = choose_next(
        features, probabilities, labelled, 8, drawn=1000, strategy="balanced"
    )
    assert sorted(probabilities[found].argmax(axis=1)) == [1] * 4 + [2] * 4
    assert (choose_next(features, probabilities, labelled, 8, 0, "margin") < 100).all()


def test_of_each_class_the_least_sure_patches_of_a_draw_are_chosen():
    rng = np.random.default_rng(0)
    # Margins from 0 to 1, in the order of the rows; the class alternates.
    first = 0.5 + np.linspace(0, 0.5, 4000)
    probabilities = (
        np.where(np.arange(4000)[:, None] % 2, [0, 1], [1, 0]) * first[:, None]
    )
    probabilities += (1 - probabilities.max(1))[:, None] * (probabilities == 0)
    features = rng.standard_normal((4000, 4)).astype(np.float32)
    labelled = rng.choice(4000, 40, replace=False)
    found = [
        choose_next(
            features, probabilities, labelled, 4, seed, drawn=8, strategy="balanced"
        )
        for seed in range(300)
    ]
    # Of each class 16 are drawn, and 2 of its 4 smallest are chosen: the k-th smallest
    # of 16 uniform values is k / 17 on average.
    assert np.mean(found) / 4000 == pytest.approx(np.mean([1, 2, 3, 4]) / 17, abs=0.015)
    assert (
        np.mean(
            [
                choose_next(
                    features,
                    probabilities,
                    labelled,
                    4,
                    drawn=4000,
                    strategy="balanced",
                )
            ]
        )
        < 8
    )


def test_a_class_of_three_patches_is_never_missed():
    probabilities = np.tile(np.float32([0.8, 0.2]), (5000, 1))
    probabilities[[40, 400, 4000]] = [0.1, 0.9]
    features = np.random.default_rng(0).standard_normal((5000, 4)).astype(np.float32)
    for seed in range(5):
        found = choose_next(
            features, probabilities, np.arange(8), 8, seed, strategy="balanced"
        )
        assert {40, 400, 4000} < set(found.tolist())


def test_copies_of_a_chosen_patch_wait():
    # Five kinds of patches with four copies each, all of one margin.
    features = np.repeat(np.eye(5, 8, dtype=np.float32), 4, axis=0)
    probabilities = np.tile(np.float32([0.55, 0.45]), (20, 1))
    # All twenty are candidates; two kinds are labelled, or chosen, already.
    found = choose_next(
        features, probabilities, np.asarray([0]), 19, strategy="balanced"
    )
    assert sorted(found[:4] // 4) == [1, 2, 3, 4]


def blobs(sizes=(60, 50, 40, 30), dim=16):
    """Well separated kinds of patches of decreasing size."""
    rng = np.random.default_rng(3)
    kinds = np.repeat(np.arange(len(sizes)), sizes)
    noise = 0.05 * rng.standard_normal((len(kinds), dim))
    return (10 * np.eye(len(sizes), dim)[kinds] + noise).astype(np.float32), kinds


@pytest.mark.parametrize("probabilities", [None, np.ones((180, 1), np.float32)])
@pytest.mark.parametrize("strategy", ["margin", "balanced"])
def test_without_two_classes_each_kind_of_patch_comes_first(
    probabilities, strategy, monkeypatch
):
    monkeypatch.setattr("napari_mcm.core.labelling.selection.CLUSTERS", 24)
    features, kinds = blobs()
    none = np.empty(0, np.int64)
    for seed in range(5):
        found = choose_next(features, probabilities, none, 24, seed, strategy)
        assert set(kinds[found]) == {0, 1, 2, 3}


def test_a_kind_with_labels_waits(monkeypatch):
    monkeypatch.setattr("napari_mcm.core.labelling.selection.CLUSTERS", 180)
    features, _ = blobs()
    # Each patch is a cluster; the last kind has one patch left, near 29 labels.
    found = choose_next(
        features, None, np.arange(150, 179), 150, 0, strategy="balanced"
    )
    assert sorted(found) == list(range(150))


def test_the_most_typical_patch_of_a_cluster_comes_first(monkeypatch):
    monkeypatch.setattr("napari_mcm.core.labelling.selection.CLUSTERS", 1)
    features, _ = blobs()
    first, *rest = choose_next(
        features, None, np.empty(0, np.int64), 180, 0, strategy="balanced"
    ).tolist()
    directions = features - features.mean(axis=0)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    closeness = directions @ directions.sum(axis=0)
    assert first == int(closeness.argmax())
    assert rest[-1] == int(closeness.argmin())


def test_nothing_is_left():
    features, probabilities, _ = patches()
    for strategy in STRATEGIES:
        found = choose_next(
            features, probabilities, np.arange(300), 8, strategy=strategy
        )
        assert found.shape == (0,)
    assert (
        len(choose_next(features, None, np.empty(0, np.int64), 0, strategy="balanced"))
        == 0
    )


def test_what_cannot_be_chosen_from_is_refused():
    features, probabilities, labelled = patches()
    with pytest.raises(LabelError, match="random, margin, balanced"):
        choose_next(features, probabilities, labelled, 8, 0, "best")
    with pytest.raises(LabelError, match="299 patches for 300"):
        choose_next(features, probabilities[1:], labelled, 8, strategy="balanced")


def test_a_strip_is_filled_by_the_only_predicted_class():
    features, probabilities, _ = patches()
    probabilities[:] = [0.7, 0.1, 0.1, 0.1]
    found = choose_next(
        features, probabilities, np.arange(5), 12, drawn=1, strategy="balanced"
    )
    assert len(set(found.tolist())) == 12


def test_by_default_patches_are_drawn_at_random():
    features, probabilities, labelled = patches()
    free = np.setdiff1d(np.arange(len(features)), labelled)
    expected = np.random.default_rng(5).choice(free, 8, replace=False)
    assert (choose_next(features, probabilities, labelled, 8, 5) == expected).all()
