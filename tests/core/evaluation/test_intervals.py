"""AUROC and its kin by hand, influences against finite differences, intervals."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import binomtest, norm

from napari_mcm.core.evaluation.intervals import (
    Estimate,
    auroc,
    balanced_accuracy,
    combine,
    grouped_auroc,
    macro_auroc,
    make_resampling,
    placements,
    widen_at_edge,
)


def test_auroc_by_hand():
    # Of 2 x 3 pairs 4 are in order and one is a tie.
    scores = np.array([0.1, 0.4, 0.4, 0.8, 0.9])
    positive = np.array([False, True, False, False, True])
    assert auroc(scores, positive) == pytest.approx((0.5 + 1 + 3) / 6)
    assert_allclose(placements(scores, positive), [1, 0.5, 0.75, 0.5, 1])
    assert auroc(-scores, positive) == pytest.approx(1 - 4.5 / 6)
    assert np.isnan(auroc(scores, np.ones(5, bool)))
    assert auroc(np.zeros(5), positive) == 0.5


def test_groups_are_compared_within_and_not_across():
    # Perfect within each group, though the groups' scores do not share a scale.
    scores = np.array([0.0, 1, 10, 11])
    positive = np.array([False, True, False, True])
    groups = np.array([0, 0, 1, 1])
    found = grouped_auroc(scores, positive, groups)
    assert found.value == 1
    assert auroc(scores, positive) == 0.75
    assert found.by_group is not None
    assert_allclose(found.by_group, [1, 1])


def test_groups_of_one_class_are_compared_with_each_other():
    scores = np.array([0.1, 0.2, 0.3, 0.15])
    positive = np.array([False, False, True, True])
    found = grouped_auroc(scores, positive, np.array([0, 0, 1, 1]))
    assert found.value == pytest.approx(0.75)
    assert found.by_group is None


def test_a_group_without_both_kinds_does_not_count():
    scores = np.array([0.1, 0.2, 0.3, 0.15, 9, 9])
    positive = np.array([False, True, False, True, True, True])
    found = grouped_auroc(scores, positive, np.array([0, 0, 1, 1, 2, 2]))
    assert found.value == pytest.approx((1 + 0) / 2)
    assert_allclose(found.influence[4:], 0)
    assert_allclose(found.of_groups(np.array([0, 0, 1, 1, 2, 2])), [0.25, -0.25, 0])


def _auroc_with(scores, positive, weights):
    p, n = positive, ~positive
    pairs = weights[p][:, None] * weights[n]
    won = (scores[p][:, None] > scores[n]) + 0.5 * (scores[p][:, None] == scores[n])
    return (pairs * won).sum() / pairs.sum()


def test_the_influence_of_a_patch_is_what_its_weight_changes():
    rng = np.random.default_rng(0)
    scores, positive = rng.normal(size=30), rng.random(30) < 0.4
    found = macro_auroc(
        np.column_stack([-scores, scores]), positive.astype(int), np.zeros(30, int)
    )
    for patch in range(30):
        weights = np.ones(30)
        weights[patch] += 1e-6
        slope = (_auroc_with(scores, positive, weights) - found.value) / 1e-6
        assert found.influence[patch] == pytest.approx(slope, abs=1e-6)


def test_balanced_accuracy_by_hand():
    # Class 0: 2 of 4 found; class 1: 1 of 1.
    labels = np.array([0, 0, 0, 0, 1])
    said = np.array([0, 0, 1, 1, 1])
    found = balanced_accuracy(np.eye(2)[said], labels)
    assert found.value == pytest.approx(0.75)
    assert balanced_accuracy(np.eye(2)[np.zeros(5, int)], labels).value == 0.5
    assert found.influence.sum() == pytest.approx(0)


def test_several_classes_are_averaged_one_against_the_rest():
    labels = np.array([0, 1, 2])
    scores = np.array([[1.0, 0, 0], [0, 0, 1], [0, 1, 1]])
    groups = np.zeros(3, int)
    each = [auroc(scores[:, k], labels == k) for k in range(3)]
    assert macro_auroc(scores, labels, groups).value == pytest.approx(np.mean(each))
    assert macro_auroc(scores, labels, groups, 1).value == each[1]


def test_group_values_are_kept_only_where_they_count_alike():
    one = Estimate(0.5, np.zeros(2), np.array([0.4, 0.6]))
    other = Estimate(0.6, np.zeros(2), np.array([0.6, np.nan]))
    assert combine([one, other], [0.5, 0.5]).by_group is None
    both = combine([one, one], [0.5, 0.5])
    assert both.by_group is not None
    assert_allclose(both.by_group, [0.4, 0.6])


# -- intervals


def _resampling(groups, **given):
    places = given.pop("places", np.zeros((len(groups), 2)))
    slides = given.pop("slides", groups)
    return make_resampling(groups, slides, places, count=400, **given)


def test_groups_are_drawn_where_there_are_five_and_blocks_where_there_are_fewer():
    five = _resampling(np.repeat(np.arange(5), 4))
    assert five.level == "group" and "5 groups" in five.note
    places = np.array([[0, 0], [900, 0], [1100, 0], [0, 1100]] * 4, float)
    four = _resampling(np.repeat(np.arange(4), 4), places=places)
    assert four.level == "block" and "too narrow" in four.note
    # 0 to 1 mm and beyond, on each of four slides.
    assert len(set(four.units.tolist())) == 4 * 3
    assert four.units[0] == four.units[1] != four.units[2]


def test_intervals_are_the_same_by_the_same_seed():
    groups = np.repeat(np.arange(6), 3)
    rng = np.random.default_rng(0)
    estimate = Estimate(0.7, rng.normal(size=18) / 18)
    again = [_resampling(groups, seed=s).interval(estimate) for s in (1, 1, 2)]
    assert again[0] == again[1] != again[2]


def _patients(rng, count=30, patches=8, apart=1.0):
    """Scores of two classes, with an offset that a patient's patches share."""
    groups = np.repeat(np.arange(count), patches)
    positive = np.tile(np.arange(patches) % 2 == 1, count)
    shift = np.repeat(rng.normal(0, 0.8, count), patches)
    scores = rng.normal(size=len(groups)) + positive * (apart + shift)
    return scores, positive, groups


def test_intervals_cover_the_truth_nearly_as_often_as_they_say():
    # Within a patient, the difference of two scores is N(apart + shift, 2).
    truth = norm.cdf(1 / np.sqrt(2 + 0.8**2))
    hits = 0
    for trial in range(200):
        scores, positive, groups = _patients(np.random.default_rng(trial))
        estimate = grouped_auroc(scores, positive, groups)
        low, high = _resampling(groups, seed=trial).interval(estimate)
        hits += low <= truth <= high
    assert 181 <= hits <= 199


def test_patches_taken_singly_would_be_too_sure_of_themselves():
    hits = 0
    truth = norm.cdf(1 / np.sqrt(2 + 0.8**2))
    for trial in range(100):
        rng = np.random.default_rng(trial)
        scores, positive, groups = _patients(rng, count=10, patches=40)
        estimate = grouped_auroc(scores, positive, groups)
        alone = _resampling(np.arange(len(groups)), seed=trial)
        low, high = alone.interval(Estimate(estimate.value, estimate.influence))
        hits += low <= truth <= high
    assert hits < 80


def test_blocks_cover_the_truth_of_their_slides():
    truth = norm.cdf(1 / np.sqrt(2))
    hits = 0
    for trial in range(200):
        rng = np.random.default_rng(trial)
        slides = np.repeat(np.arange(3), 100)
        places = rng.random((300, 2)) * 6000
        positive = rng.random(300) < 0.4
        scores = rng.normal(size=300) + positive
        estimate = grouped_auroc(scores, positive, slides)
        low, high = _resampling(slides, places=places, seed=trial).interval(estimate)
        hits += low <= truth <= high
    assert 181 <= hits <= 199


def test_a_paired_interval_is_narrower_than_an_unpaired_one():
    rng = np.random.default_rng(3)
    scores, positive, groups = _patients(rng)
    better = scores + 0.2 * positive + rng.normal(0, 0.2, len(scores))
    one, other = (grouped_auroc(s, positive, groups) for s in (scores, better))
    drawn = _resampling(groups)
    low, high = drawn.interval(other.minus(one))
    width = [np.ptp(drawn.interval(e)) for e in (one, other)]
    assert 0 < low < other.value - one.value < high
    assert high - low < 0.5 * np.hypot(*width)


def test_where_nothing_can_be_told_there_is_no_interval():
    groups = np.repeat(np.arange(6), 2)
    found = _resampling(groups).interval(Estimate(float("nan"), np.zeros(12)))
    assert np.isnan(found).all()


@pytest.mark.parametrize("units", [1, 4, 20, 300])
def test_a_measure_at_the_edge_has_the_interval_of_clopper_and_pearson(units):
    expected = binomtest(units, units).proportion_ci(0.95, "exact")
    assert widen_at_edge(1.0, (1.0, 1.0), units) == pytest.approx(tuple(expected))
    low, high = widen_at_edge(0.0, (0.0, 0.0), units)
    assert low == 0 and high == pytest.approx(1 - expected.low)
    assert widen_at_edge(0.97, (0.9, 1.0), units) == (0.9, 1.0)
