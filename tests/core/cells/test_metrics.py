"""Scores: worked by hand, beside the majority vote, unreliable classes marked."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mcm.core.cells.metrics import calibration_error, score

CLASSES = ("a", "b", "c")


def certain(predicted, confidence=0.8):
    rest = (1 - confidence) / 2
    found = np.full((len(predicted), 3), rest)
    found[np.arange(len(predicted)), predicted] = confidence
    return found


def test_scores_of_a_small_example():
    targets = np.array([0] * 12 + [1] * 4)
    predicted = np.array([0] * 11 + [1] + [1, 1, 0, 0])
    found = score(certain(predicted), targets, CLASSES)
    values = found.values
    assert values["accuracy"] == pytest.approx(13 / 16)
    assert values["recall"] == pytest.approx((11 / 12 + 2 / 4) / 2)
    assert values["precision"] == pytest.approx((11 / 13 + 2 / 3) / 2)
    assert values["balanced_accuracy"] == pytest.approx(values["recall"])
    assert values["ece"] == pytest.approx(13 / 16 - 0.8)
    nll = -(13 * np.log(0.8) + 3 * np.log(0.1)) / 16
    assert values["nll"] == pytest.approx(nll)
    assert found.confusion.tolist() == [[11, 1, 0], [2, 2, 0], [0, 0, 0]]
    assert found.majority["accuracy"] == pytest.approx(12 / 16)
    assert found.majority["balanced_accuracy"] == pytest.approx(0.5)
    assert found.unreliable == ("b", "c")
    assert found.by_class["b"]["support"] == 4


def test_calling_everything_one_class_scores_as_the_majority():
    """As the source's 1 % row did: 1 059 of 1 728 right, macro F1 of .152."""
    support = [36, 126, 412, 95, 1059]
    targets = np.repeat(np.arange(5), support)
    found = np.tile([0.01, 0.01, 0.01, 0.01, 0.96], (len(targets), 1))
    scores = score(found, targets, ("B", "E", "L", "M", "N"))
    assert scores.values["accuracy"] == pytest.approx(0.6128, abs=1e-4)
    assert scores.values["f1"] == pytest.approx(0.1520, abs=1e-4)
    for name, value in scores.majority.items():
        assert scores.values[name] == pytest.approx(value)


def test_calibration_is_perfect_or_as_wrong_as_can_be():
    targets = np.array([0, 0, 0, 1, 1])
    sure = certain(np.array([0, 0, 0, 1, 1]), 1.0)
    assert calibration_error(sure, targets) == pytest.approx(0)
    assert calibration_error(sure, 1 - targets) == pytest.approx(1)
