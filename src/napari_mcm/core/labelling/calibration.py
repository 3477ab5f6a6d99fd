"""Calibration of probabilities by one temperature.

Logits of held-out labels are divided by the temperature that makes their classes most
likely (Guo et al., "On calibration of modern neural networks", 2017). As few labels are
often separated without an error, which would ask for a temperature of 0, targets are
smoothed as in Platt's scaling: a label of a class with n labels counts (n + 1) / (n + 2)
for its class, and the rest for the others (Platt, "Probabilistic outputs for support
vector machines", 1999).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

Floats = NDArray[np.float64]

COLDEST, HOTTEST = 0.05, 20.0
"""Bounds of the temperature."""

_STEPS = 40


def fit_temperature(logits: Floats, classes: NDArray[np.int64]) -> float:
    """Return the temperature that fits held-out logits best.

    Parameters
    ----------
    logits : ndarray of float64, shape (n, K)
        Of labels that the model was not trained on.
    classes : ndarray of int64, shape (n,)
        Their classes, 0 to K - 1.

    Returns
    -------
    float
        From `COLDEST` to `HOTTEST`; over 1 where the model is too sure of itself.
    """
    targets = smoothed_targets(classes, logits.shape[1])

    def loss(log_temperature: float) -> float:
        likely = log_softmax(logits / np.exp(log_temperature), axis=1)
        return float(-(targets * likely).mean())

    # Convex in the inverse temperature, hence with one minimum: a golden section finds it.
    low, high = np.log(COLDEST), np.log(HOTTEST)
    golden = (np.sqrt(5) - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = loss(left), loss(right)
    for _ in range(_STEPS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = loss(right)
    return float(np.exp((low + high) / 2))


def smoothed_targets(classes: NDArray[np.int64], count: int) -> Floats:
    """Return the probabilities that labels are to have.

    Parameters
    ----------
    classes : ndarray of int64, shape (n,)
        Class of each label.
    count : int
        Number of classes, K.

    Returns
    -------
    ndarray of float64, shape (n, K)
        Rows sum to 1.
    """
    own = np.bincount(classes, minlength=count)[classes]  # (n,)
    rest = 1 / (own + 2)
    targets = np.repeat(rest[:, None] / max(count - 1, 1), count, axis=1)
    targets[np.arange(len(classes)), classes] = 1 - rest
    return targets
