"""Multinomial logistic regression on few rows, and the same for all folds at once.

The objective is that of scikit-learn's ``LogisticRegression``::

    min_W,b  1/(2 C s) ||W||² + 1/s Σ_i w_i · ( - log softmax(W z_i + b)_{y_i} ),  s = Σ w_i

and so is the solution. What is added is speed at the size of a label set: M models
that differ in their weights w only, such as those of M folds, are fitted together by
L-BFGS, and products are made of blocks that stay in one thread. Waiting for other
threads costs more than they bring, while the same cores draw a window.
"""

from __future__ import annotations

from collections import deque
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Classes = NDArray[np.int64]
_Float = TypeVar("_Float", bound=np.floating[Any])

_ITERATIONS, _TOLERANCE = 300, 1e-4
_HISTORY, _HALVINGS, _DESCENT = 10, 30, 1e-4

ONE_THREAD = 1 << 18
"""Multiply-adds up to which a matrix product stays in one thread (OpenBLAS)."""


def fit_logistic(
    rows: Floats,
    classes: Classes,
    weights: Floats,
    strength: float,
    start: Floats | None = None,
    tolerance: float = _TOLERANCE,
) -> Floats:
    """Fit M models to the same rows, each with weights of its own.

    Parameters
    ----------
    rows : ndarray of float64, shape (n, D)
        Standardised features.
    classes : ndarray of int64, shape (n,)
        Class of each row, 0 to K - 1.
    weights : ndarray of float64, shape (M, n)
        What each row counts in each model; 0 leaves it out.
    strength : float
        scikit-learn's C, the inverse strength of the penalty.
    start : ndarray of float64, shape (K, D + 1), optional
        Coefficients that all models start from; by default 0.
    tolerance : float, optional
        Largest component of the gradient at which the fit ends.

    Returns
    -------
    ndarray of float64, shape (M, K, D + 1)
        Weights, and last the bias.
    """
    problem = _Problem(rows, classes, weights, strength)
    first = np.zeros(problem.shape)
    if start is not None:
        first[:] = start
    found = _minimise(problem, first.reshape(len(weights), -1), tolerance)
    return found.reshape(problem.shape)


class _Problem:
    """The objectives of M models, and their gradients."""

    def __init__(
        self, rows: Floats, classes: Classes, weights: Floats, strength: float
    ) -> None:
        n, count = len(rows), int(classes.max()) + 1
        self._rows = np.column_stack([rows, np.ones(n)])  # the bias is a feature
        total = weights.sum(axis=1)  # (M,)
        self._weights = weights / total[:, None]  # (M, n)
        self._penalty = 1 / (strength * total)  # (M,)
        self._classes, self._numbers = classes, np.arange(n)
        self.shape = (len(weights), count, self._rows.shape[1])  # (M, K, D + 1)

    def __call__(self, flat: Floats) -> tuple[Floats, Floats]:
        """Return the objectives (M,) and gradients (M, P) at coefficients (M, P)."""
        models, count, _ = self.shape
        coefficients = flat.reshape(-1, self.shape[2])  # (M · K, D + 1)
        logits = narrow_product(coefficients, self._rows.T)
        logits = logits.reshape(models, count, -1)
        logits -= logits.max(axis=1, keepdims=True)
        rest = np.exp(logits)
        sums = rest.sum(axis=1)  # (M, n)
        likely = logits[:, self._classes, self._numbers] - np.log(sums)
        rest /= sums[:, None]
        rest[:, self._classes, self._numbers] -= 1
        rest *= self._weights[:, None]
        gradient = narrow_product(rest.reshape(models * count, -1), self._rows)
        gradient = gradient.reshape(self.shape)
        # The bias, last, is not penalised.
        shrunk = coefficients.reshape(self.shape)[:, :, :-1]
        gradient[:, :, :-1] += self._penalty[:, None, None] * shrunk
        squares = np.einsum("mkd,mkd->m", shrunk, shrunk)
        losses = 0.5 * self._penalty * squares - (self._weights * likely).sum(axis=1)
        return losses, gradient.reshape(models, -1)


def _minimise(problem: _Problem, at: Floats, tolerance: float) -> Floats:
    """Minimise M smooth convex functions (M, P) by L-BFGS, each with its own steps."""
    losses, gradients = problem(at)
    pairs: deque[tuple[Floats, Floats, Floats]] = deque(maxlen=_HISTORY)
    scale = 1 / np.maximum(np.linalg.norm(gradients, axis=1), 1.0)  # (M,)
    for _ in range(_ITERATIONS):
        open_ = np.abs(gradients).max(axis=1) > tolerance
        if not open_.any():
            break
        directions = _directions(gradients, pairs, scale)
        slopes = _dot(gradients, directions)
        steps = np.where(open_ & (slopes < 0), 1.0, 0.0)
        for _ in range(_HALVINGS):
            moved = at + steps[:, None] * directions
            new_losses, new_gradients = problem(moved)
            # Rounding must not keep a model from ending where it is flat.
            bound = losses + _DESCENT * steps * slopes + 1e-15 * np.abs(losses)
            failed = new_losses > bound
            if not failed.any():
                break
            steps[failed] /= 2
        else:
            break
        change, curve = moved - at, new_gradients - gradients
        product, length = _dot(change, curve), _dot(curve, curve)
        bent = product > 1e-12 * length
        safe = np.where(bent, product, 1)
        pairs.append((change, curve, np.where(bent, 1 / safe, 0)))
        scale = np.where(bent, safe / np.where(bent, length, 1), scale)
        at, losses, gradients = moved, new_losses, new_gradients
    return at


def _directions(
    gradients: Floats, pairs: deque[tuple[Floats, Floats, Floats]], scale: Floats
) -> Floats:
    """Return the quasi-Newton directions (M, P) (Nocedal, 1980)."""
    left = -gradients
    factors = []
    for change, curve, inverse in reversed(pairs):
        factor = inverse * _dot(change, left)
        left = left - factor[:, None] * curve
        factors.append(factor)
    left *= scale[:, None]
    for (change, curve, inverse), factor in zip(pairs, reversed(factors), strict=True):
        left += (factor - inverse * _dot(curve, left))[:, None] * change
    return left


def _dot(left: Floats, right: Floats) -> Floats:
    return np.asarray(np.einsum("mp,mp->m", left, right))


def narrow_product(left: NDArray[_Float], right: NDArray[_Float]) -> NDArray[_Float]:
    """Return a product of matrices, made of blocks that stay in one thread.

    Parameters
    ----------
    left : ndarray, shape (a, b)
        With few rows.
    right : ndarray, shape (b, c)
        Split by columns; the bits of the result depend on the shapes only, not on the
        number of threads.

    Returns
    -------
    ndarray, shape (a, c)
        In the type of `left`.
    """
    made = np.empty((len(left), right.shape[1]), left.dtype)
    step = max(ONE_THREAD // max(left.size, 1), 1)
    for first in range(0, right.shape[1], step):
        some = slice(first, first + step)
        np.matmul(left, right[:, some], out=made[:, some])
    return made
