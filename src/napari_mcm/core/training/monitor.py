"""Gauges of a training, and what they say: has it collapsed, has it diverged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

COLLAPSED = 0.3
"""Part of its first value at which a gauge of the features counts as collapsed."""
DIVERGED = 3.0
"""Times its first value at which the loss counts as diverged."""
SPAN = 5
"""Steps over which figures are averaged before they are judged."""

_GAUGES = {"feature_std": "spread", "feature_rank": "effective rank"}


def effective_rank(features: Tensor) -> float:
    """Tell in how many directions features spread.

    The exponential of the entropy of the singular values' shares, after centring: 1
    where all lie on a line, at most the number of features or of dimensions.

    Roy & Vetterli, "The effective rank", EUSIPCO 2007.

    Parameters
    ----------
    features : Tensor, shape (N, dim)

    Returns
    -------
    float
        0 where all features are the same.
    """
    centred = (features - features.mean(dim=0)).double()
    if len(centred) < 2 or not bool(torch.isfinite(centred).all()):
        return float("nan")
    values = torch.linalg.svdvals(centred)
    if float(values.sum()) < 1e-12:
        return 0.0
    shares = values / values.sum()
    return float(torch.exp(torch.special.entr(shares).sum()))


class DivergenceMonitor:
    """Judges a training by its first and its latest steps.

    Parameters
    ----------
    past : mapping of str to sequence of float
        Figures of the steps before this process, as in ``metrics.csv``.
    """

    def __init__(self, past: Mapping[str, Sequence[float]]) -> None:
        names = ("loss", *_GAUGES)
        self._figures = {name: list(past.get(name, ())) for name in names}
        # What was told before a resume is told again, once.
        self._told: set[str] = set()

    def add(self, values: Mapping[str, float]) -> None:
        """Take a step's figures."""
        for name, figures in self._figures.items():
            figures.append(values.get(name, float("nan")))

    @property
    def diverged(self) -> bool:
        """Whether the loss is far above where it began."""
        share = self._share("loss")
        return share is not None and share > DIVERGED

    @property
    def healthy(self) -> bool:
        """Whether the loss is near enough to where it began to be gone on from."""
        share = self._share("loss")
        return share is None or share < 1 + (DIVERGED - 1) / 4

    def collapse(self) -> str:
        """Say which gauge of the features has collapsed, once; "" where none has."""
        for name, what in _GAUGES.items():
            share = self._share(name)
            if name not in self._told and share is not None and share < COLLAPSED:
                self._told.add(name)
                return (
                    f"the student's features collapse: their {what} is {share:.0%} of "
                    f"what it was (step {len(self._figures[name])})"
                )
        return ""

    def _share(self, name: str) -> float | None:
        figures = self._figures[name]
        if len(figures) <= SPAN:
            return None
        first, last = figures[:SPAN], figures[-SPAN:]
        if not (np.isfinite(first).any() and np.isfinite(last).any()):
            return None
        begun = float(np.nanmean(first))
        return float(np.nanmean(last)) / begun if begun > 0 else None
