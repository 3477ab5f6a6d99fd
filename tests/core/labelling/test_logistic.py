"""The fit and the calibration, against scikit-learn and against known truths."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from napari_mcm.core.labelling import ClassifierConfig, fit_classifier
from napari_mcm.core.labelling.calibration import fit_temperature, smoothed_targets
from napari_mcm.core.labelling.folds import ALWAYS, deal_labels
from napari_mcm.core.labelling.logistic import fit_logistic, narrow_product


def made_rows(n: int = 90, dim: int = 20, kinds: int = 3):
    """Give rows of overlapping classes, and their classes."""
    rng = np.random.default_rng(5)
    classes = rng.integers(0, kinds, n)
    classes[:kinds] = range(kinds)
    rows = rng.normal(size=(kinds, dim))[classes] + 2 * rng.normal(size=(n, dim))
    return rows, classes


@pytest.mark.parametrize("strength", [0.1, 1.0, 30.0])
def test_all_models_are_those_of_scikit_learn(strength: float) -> None:
    rows, classes = made_rows()
    rng = np.random.default_rng(0)
    weights = np.stack([np.ones(90), rng.random(90), (np.arange(90) % 3 > 0) * 1.0])
    weights[2, :3] = 1  # all classes are there
    found = fit_logistic(rows, classes, weights, strength, tolerance=1e-8)
    for model, own in zip(found, weights, strict=True):
        # scikit-learn stops by the change of the loss, too, hence the scale of 1e-4.
        reference = LogisticRegression(C=strength, max_iter=5000, tol=1e-9)
        reference.fit(rows, classes, own)
        np.testing.assert_allclose(model[:, :-1], reference.coef_, atol=2e-4)
        np.testing.assert_allclose(model[:, -1], reference.intercept_, atol=2e-4)


def test_a_row_without_weight_changes_nothing() -> None:
    rows, classes = made_rows()
    weights = np.ones((1, 90))
    weights[0, -1] = 0
    before = fit_logistic(rows, classes, weights, 1.0)
    rows[-1] += 1000
    assert (fit_logistic(rows, classes, weights, 1.0) == before).all()


def test_a_product_in_blocks_is_the_product() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(9, 768)), rng.normal(size=(768, 200))
    np.testing.assert_allclose(narrow_product(left, right), left @ right)


def test_a_temperature_that_was_put_in_is_found() -> None:
    rng = np.random.default_rng(1)
    true = 3 * rng.normal(size=(20_000, 3))
    likely = np.exp(true) / np.exp(true).sum(axis=1, keepdims=True)
    classes = (likely.cumsum(axis=1) < rng.random((20_000, 1))).sum(axis=1)
    for temperature in (0.25, 1.0, 4.0):
        found = fit_temperature(true * temperature, classes)
        assert found == pytest.approx(temperature, rel=0.05)


def test_targets_are_smoothed_more_for_rare_classes() -> None:
    targets = smoothed_targets(np.array([0, 0, 0, 1]), 3)
    np.testing.assert_allclose(targets[0], [4 / 5, 1 / 10, 1 / 10])
    np.testing.assert_allclose(targets[3], [1 / 6, 2 / 3, 1 / 6])


@pytest.mark.parametrize("regularization", [100.0, 0.01])
def test_probabilities_from_forty_labels_on_are_as_true_as_they_say(
    regularization: float,
) -> None:
    """Whether the model itself is too careful (100) or too sure (0.01)."""
    rng = np.random.default_rng(2)
    config, gaps = ClassifierConfig(regularization=regularization), []
    classes = np.arange(2040) % 2
    for _ in range(20):
        centres = 0.5 * rng.normal(size=(2, 64))
        values = centres[classes] + 2 * rng.normal(size=(2040, 64))
        values = values.astype(np.float32)
        made = fit_classifier(values[:40], classes[:40], "ab", config)
        assert made.calibrated
        gaps.append([_gap(made, values), _gap(replace(made, temperature=1), values)])
    calibrated, raw = np.mean(gaps, axis=0)
    assert abs(raw) > 0.1
    assert abs(calibrated) < 0.06


def _gap(made, values) -> float:
    """Return by how much patches are surer of their class than they are right."""
    found = made.probabilities(values[40:])
    right = found.argmax(axis=1) == np.arange(2000) % 2
    return float(found.max(axis=1).mean() - right.mean())


def test_nineteen_labels_are_not_calibrated_and_twenty_are() -> None:
    rows, classes = made_rows()
    values = rows.astype(np.float32)
    made = [
        fit_classifier(values[:n], classes[:n], "abc", ClassifierConfig())
        for n in (19, 20)
    ]
    assert [one.calibrated for one in made] == [False, True]
    assert made[0].temperature == 1.0
    assert made[1].temperature != 1.0


def test_folds_hold_out_whole_slides_where_that_leaves_all_classes() -> None:
    classes = np.array([0, 1] * 12)
    slides = np.repeat([5, 7, 9], 8)
    folds = deal_labels(classes, slides, 5)
    assert folds is not None
    assert all(len(set(folds[slides == s])) == 1 for s in (5, 7, 9))
    assert len(set(folds)) == 3
    # Class 1 is on one slide only: labels are dealt instead.
    lonely = np.where(slides == 5, 1, 0)
    folds = deal_labels(lonely, slides, 5)
    assert folds is not None
    for fold in range(5):
        assert set(lonely[folds != fold]) == {0, 1}
    assert deal_labels(np.array([0, 0, 1]), None, 5) is None


def test_the_only_label_of_a_class_is_always_in_the_training_set() -> None:
    classes = np.array([0, 0, 0, 1, 1, 2])
    folds = deal_labels(classes, None, 5)
    assert folds is not None
    assert folds[-1] == ALWAYS
    assert (folds[:-1] >= 0).all()
    rows, kinds = made_rows(21)
    kinds = np.where(kinds == 2, 0, kinds)
    kinds[4] = 2
    made = fit_classifier(rows.astype(np.float32), kinds, "abc", ClassifierConfig())
    assert made.calibrated
    assert np.isfinite(made.temperature)
