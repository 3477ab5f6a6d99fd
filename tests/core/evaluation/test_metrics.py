"""Probes and geometry on features whose structure is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import norm

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.evaluation.intervals import auroc, macro_auroc
from napari_mcm.core.evaluation.metrics import (
    anisotropy,
    effective_rank,
    feature_spread,
    similarity_auroc,
)
from napari_mcm.core.evaluation.probes import (
    Scale,
    deal_folds,
    draw_labels,
    few_shot,
    linear_probe,
    nearest_neighbours,
)
from napari_mcm.core.runtime.jobs import run


def gaussian(n=1200, d=16, apart=1.0, groups=4, seed=0):
    """Two classes, unit covariance, means `apart` from each other."""
    rng = np.random.default_rng(seed)
    labels = np.tile([0, 0, 1], n // 3)
    features = rng.normal(size=(n, d)).astype(np.float32)
    features[:, 0] += apart * labels
    return features, labels, rng.permutation(np.arange(n) % groups)


def value(scores, labels, groups):
    return macro_auroc(scores, labels, groups).value


# -- linear probe


def test_the_linear_probe_finds_the_auroc_that_gaussian_classes_allow():
    features, labels, groups = gaussian(3000, 8, apart=1.5)
    scores, strengths = run(linear_probe(features, labels, groups))
    assert value(scores, labels, groups) == pytest.approx(
        norm.cdf(1.5 / np.sqrt(2)), abs=0.02
    )
    assert len(strengths) == 4


def test_without_structure_the_probe_finds_none():
    features, labels, groups = gaussian(apart=0)
    scores, _ = run(linear_probe(features, labels, groups))
    assert value(scores, labels, groups) == pytest.approx(0.5, abs=0.04)


def leaking(seed=0):
    """Features that name the patch's group, whose labels are a coin's."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(6), 40)
    labels = np.where(rng.random(240) < 0.9, groups % 2, 1 - groups % 2)
    features = np.eye(6, dtype=np.float32)[groups]
    features = np.hstack([features * 5, rng.normal(size=(240, 4))])
    return features.astype(np.float32), labels, groups


@pytest.mark.parametrize("how", ["probe", "knn", "few"])
def test_a_group_that_is_tested_is_never_learned_from(how):
    features, labels, groups = leaking()
    mixed = np.random.default_rng(1).permutation(np.arange(240) % 6)

    def found(folds):
        if how == "probe":
            scores = run(linear_probe(features, labels, folds, 1.0))[0]
        elif how == "knn":
            scores = run(nearest_neighbours(features, labels, folds, 5))
        else:
            scores = next(few_shot(features, labels, folds, k=30, draws=1))
        return auroc(scores[:, 1], labels == 1)

    assert found(mixed) > 0.8  # what a leak looks like
    assert found(groups) < 0.65


def test_labels_of_a_tested_group_change_none_of_its_scores():
    features, labels, groups = gaussian(300)
    others = np.where(groups == 2, 1 - labels, labels)
    for make in (
        lambda y: run(linear_probe(features, y, groups))[0],
        lambda y: run(nearest_neighbours(features, y, groups)),
        lambda y: next(few_shot(features, y, groups)),
    ):
        one, two = make(labels), make(others)
        assert_array_equal(one[groups == 2], two[groups == 2])
        assert (one[groups != 2] != two[groups != 2]).any()


def test_units_of_features_do_not_matter_to_the_probe():
    features, labels, groups = gaussian(600)
    scaled = features * np.float32([1e-2, 1e3] * 8) + np.float32(5)
    for fit in (
        lambda x: run(linear_probe(x, labels, groups, 1.0))[0],
        lambda x: next(few_shot(x, labels, groups)),
    ):
        assert value(fit(features), labels, groups) == pytest.approx(
            value(fit(scaled), labels, groups), abs=0.005
        )


def test_features_that_do_not_vary_are_left_out():
    features = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    features[:, 2] = 3
    scaled = Scale.of(features)(features + 100 * np.float32([0, 0, 1, 0]))
    assert_array_equal(scaled[:, 2], 0)
    assert_allclose(scaled[:, 0].std(), 1 / 2, rtol=1e-5)


def test_many_groups_share_folds_and_no_group_is_cut():
    groups = np.repeat(np.arange(25), np.arange(1, 26))
    folds = deal_folds(groups, 10)
    assert set(folds.tolist()) == set(range(10))
    assert all(len(set(folds[groups == g].tolist())) == 1 for g in range(25))
    assert np.ptp(np.bincount(folds)) <= 10
    few = np.repeat(np.arange(10), 3)
    assert_array_equal(deal_folds(few, 10), few)


def test_the_inner_split_takes_the_penalty_that_fits():
    # Many useless features and little to learn from: only a strong penalty helps.
    rng = np.random.default_rng(5)
    labels, groups = np.tile([0, 1], 60), np.repeat(np.arange(4), 30)
    noise = rng.normal(size=(120, 400)).astype(np.float32)
    noise[:, :40] += 0.35 * labels[:, None].astype(np.float32)
    _, strengths = run(linear_probe(noise, labels, groups))
    assert max(strengths) <= 10


# -- neighbours, few labels


def test_neighbours_vote_by_direction():
    rng = np.random.default_rng(0)
    labels, groups = np.tile([0, 1], 40), np.repeat([0, 1], 40)
    angle = np.where(labels, 0.2, 1.2) + rng.normal(0, 0.05, 80)
    length = rng.uniform(0.1, 100, 80)
    features = (length * np.array([np.cos(angle), np.sin(angle)])).T.astype(np.float32)
    scores = run(nearest_neighbours(features, labels, groups, 5))
    assert_array_equal(scores.argmax(1), labels)
    assert_allclose(scores.sum(1), 1)


def test_few_labels_do_what_a_probe_of_those_labels_does():
    from sklearn.linear_model import LogisticRegression

    features, labels, groups = gaussian(300, d=60)
    scores = next(few_shot(features, labels, groups, k=5, seed=9))
    rows = draw_labels(labels, groups != 0, 5, (9, 0, 0))
    assert np.bincount(labels[rows]).tolist() == [5, 5]
    assert (groups[rows] != 0).all()
    scale = Scale.of(features[groups != 0])
    whole = LogisticRegression(C=1.0, tol=1e-8, max_iter=1000)
    whole.fit(scale(features[rows]), labels[rows])
    expected = whole.decision_function(scale(features[groups == 0]))
    assert_allclose(scores[groups == 0][:, 1], expected, atol=2e-3)


def test_encoders_are_tried_on_the_same_draws():
    features, labels, groups = gaussian(300)
    one = [s.argmax(1) for s in few_shot(features, labels, groups, draws=3, seed=1)]
    two = [s.argmax(1) for s in few_shot(features * 2, labels, groups, draws=3, seed=1)]
    other = [s.argmax(1) for s in few_shot(features, labels, groups, draws=3, seed=2)]
    assert_array_equal(one, two)
    assert (np.array(one) != np.array(other)).any()
    assert (one[0] != one[1]).any()


def test_too_few_labels_are_told():
    with pytest.raises(FeatureError, match="class 1 has 2 training patches, and 5 are"):
        draw_labels(np.array([0] * 9 + [1] * 2), np.ones(11, bool), 5, (0,))


# -- similarity


def test_similarity_by_hand():
    # From the first patch: 0.9 and 0.1 away its own class, 0.5 another.
    angles = np.array([0.0, 0.1, 0.5, 0.9])
    features = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    labels = np.array([0, 0, 1, 0])
    estimate, by_query = run(
        similarity_auroc(features, labels, np.zeros(4, int), "all")
    )
    assert_allclose(by_query, [0.5, 0.5, np.nan, 0.0])
    assert estimate.value == pytest.approx(1 / 3)


@pytest.mark.parametrize("which", ["other", "same", "all"])
def test_similarity_is_the_auroc_of_each_query(which):
    features, labels, groups = gaussian(90, d=6, apart=2, groups=3)
    features[5] = features[4]  # a tie
    estimate, by_query = run(similarity_auroc(features, labels, groups, which))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    for query in range(90):
        there = {
            "other": groups != groups[query],
            "same": groups == groups[query],
            "all": np.ones(90, bool),
        }[which] & (np.arange(90) != query)
        expected = auroc(unit[there] @ unit[query], labels[there] == labels[query])
        assert by_query[query] == pytest.approx(expected, abs=1e-3)
    assert estimate.value == pytest.approx(by_query.mean())


def test_what_a_patch_adds_to_the_similarity_is_what_its_weight_changes():
    features, labels, groups = gaussian(60, d=4, apart=1, groups=3)
    estimate, _ = run(similarity_auroc(features, labels, groups, "other"))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = unit @ unit.T

    def with_weights(weights):
        total = 0.0
        for query in range(60):
            there = groups != groups[query]
            same = there & (labels == labels[query])
            rest = there & (labels != labels[query])
            pairs = weights[same][:, None] * weights[rest]
            won = cosines[query, same][:, None] > cosines[query, rest]
            total += weights[query] * (pairs * won).sum() / pairs.sum()
        return total / weights.sum()

    base = with_weights(np.ones(60))
    assert estimate.value == pytest.approx(base, abs=1e-6)
    for patch in range(0, 60, 7):
        weights = np.ones(60)
        weights[patch] += 1e-5
        slope = (with_weights(weights) - base) / 1e-5
        assert estimate.influence[patch] == pytest.approx(slope, abs=1e-5)


def test_an_encoder_that_has_collapsed_knows_nothing():
    _, labels, groups = gaussian(60)
    same = np.ones((60, 8), np.float32)
    assert run(similarity_auroc(same, labels, groups))[0].value == 0.5
    assert value(next(few_shot(same, labels, groups, k=3)), labels, groups) == 0.5
    assert effective_rank(same).value == 0
    assert anisotropy(same).value == pytest.approx(1)
    assert feature_spread(same).value == 0


# -- geometry


def test_features_that_spread_everywhere_have_full_rank():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(4000, 32)).astype(np.float32)
    assert effective_rank(features).value == pytest.approx(32, abs=0.2)
    assert abs(anisotropy(features).value) < 0.01
    assert feature_spread(features).value == pytest.approx(1, abs=0.01)
    line = np.outer(rng.normal(size=100), rng.normal(size=32)).astype(np.float32)
    assert effective_rank(line).value == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("shape", [(40, 10), (10, 40)])
def test_effective_rank_is_that_of_its_definition(shape):
    features = np.random.default_rng(1).gamma(1.0, size=shape).astype(np.float32)
    values = np.linalg.svd(features - features.mean(0), compute_uv=False)
    shares = values[values > 1e-5] / values.sum()
    expected = np.exp(-(shares * np.log(shares)).sum())
    assert effective_rank(features).value == pytest.approx(expected, rel=1e-4)


def test_mean_similarity_is_over_all_pairs():
    features = np.random.default_rng(2).normal(1, 1, size=(30, 5)).astype(np.float32)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = (unit @ unit.T)[~np.eye(30, dtype=bool)]
    assert anisotropy(features).value == pytest.approx(cosines.mean(), abs=1e-6)


@pytest.mark.parametrize("measure", [effective_rank, anisotropy, feature_spread])
def test_influences_of_geometry_are_close_to_leaving_a_patch_out(measure):
    features = np.random.default_rng(3).gamma(2.0, size=(1500, 6)).astype(np.float32)
    features *= np.arange(1, 7, dtype=np.float32)  # directions that are told apart
    found = measure(features)
    assert found.influence.sum() == pytest.approx(0, abs=1e-6 * abs(found.value))
    out = [found.value - measure(np.delete(features, i, 0)).value for i in range(40)]
    assert np.corrcoef(out, found.influence[:40])[0, 1] > 0.99
    assert_allclose(out, found.influence[:40], atol=0.1 * np.abs(out).max())
