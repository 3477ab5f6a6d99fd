"""Judgements on the metrics of a training: has it diverged, have the features collapsed.

A metric is judged by the ratio of its latest to its first values, each averaged over
`SPAN` steps: a loss that has tripled diverges, a spread of the features that fell below
30 % collapses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

COLLAPSED = 0.3
"""Ratio to its first value below which a measure of the features counts as collapsed."""
DIVERGED = 3.0
"""Ratio to its first value above which the loss counts as diverged."""
SPAN = 5
"""Steps over which metrics are averaged before they are judged."""

_GAUGES = {"feature_std": "spread", "feature_rank": "effective rank"}


def effective_rank(features: Tensor) -> float:
    """Return the number of directions in which features spread.

    The exponential of the entropy of the singular values' shares, after centring: 1
    where all lie on a line, at most the number of features or of dimensions.

    Roy & Vetterli, "The effective rank", EUSIPCO 2007.

    Parameters
    ----------
    features : Tensor, shape (n_patches, n_features)
        Feature vectors.

    Returns
    -------
    float
        The effective rank; 0 where all features are the same, NaN where some are not
        finite.
    """
    # float64: small singular values decide about the entropy.
    centred = (features - features.mean(dim=0)).double()
    if len(centred) < 2 or not bool(torch.isfinite(centred).all()):
        return float("nan")
    values = torch.linalg.svdvals(centred)
    if float(values.sum()) < 1e-12:
        return 0.0
    shares = values / values.sum()
    return float(torch.exp(torch.special.entr(shares).sum()))


class DivergenceMonitor:
    """Judge a training by its first and its latest steps.

    Parameters
    ----------
    past : mapping of str to sequence of float
        Metrics of the steps so far, as in ``metrics.csv``; NaN where there is none.
    least_loss : float, optional
        A first loss below this counts as this, so that a training that starts from
        almost nothing may rise to it; infinity never judges the loss.
    """

    def __init__(
        self, past: Mapping[str, Sequence[float]], least_loss: float = 0.0
    ) -> None:
        names = ("loss", *_GAUGES)
        self._values = {name: list(past.get(name, ())) for name in names}
        self._least = {"loss": least_loss}
        # A resumed run repeats its warnings once.
        self._reported: set[str] = set()

    def add(self, values: Mapping[str, float]) -> None:
        """Add the metrics of a step.

        Parameters
        ----------
        values : mapping of str to float
            ``loss``, ``feature_std`` and ``feature_rank`` are judged; what is missing or
            NaN does not count.
        """
        for name, past in self._values.items():
            past.append(values.get(name, float("nan")))

    @property
    def diverged(self) -> bool:
        """Whether the loss is far above its first values.

        Returns
        -------
        bool
            Whether it is more than `DIVERGED` times as high.
        """
        return self._ratio("loss", 0.0) > DIVERGED

    @property
    def healthy(self) -> bool:
        """Whether the loss is low enough for a checkpoint to be worth resuming from.

        Returns
        -------
        bool
            Whether it is less than 1.5 times as high as at first.
        """
        # A quarter of the way to divergence: the checkpoint before it is the better one.
        return self._ratio("loss", 0.0) < 1 + (DIVERGED - 1) / 4

    def collapse(self) -> str:
        """Describe a collapse of the student's features, once per measure.

        Returns
        -------
        str
            Which measure collapsed, and when; empty where none has.
        """
        for name, what in _GAUGES.items():
            ratio = self._ratio(name, 1.0)
            if name not in self._reported and ratio < COLLAPSED:
                self._reported.add(name)
                return (
                    f"the student's features collapse: their {what} is {ratio:.0%} of "
                    f"what it was (step {len(self._values[name])})"
                )
        return ""

    def _ratio(self, name: str, unknown: float) -> float:
        values = self._values[name]
        # The loss of a single step is noise.
        first, last = values[:SPAN], values[-SPAN:]
        if len(values) <= SPAN or not (
            np.isfinite(first).any() and np.isfinite(last).any()
        ):
            return unknown
        start = max(float(np.nanmean(first)), self._least.get(name, 0.0))
        return float(np.nanmean(last)) / start if start > 0 else unknown


def first_and_last(losses: Sequence[float]) -> dict[str, float | None]:
    """Average the loss over the first and the last tenth of the steps.

    Parameters
    ----------
    losses : sequence of float
        The loss of each step; NaN where a step had none.

    Returns
    -------
    dict of str to float or None
        ``loss_first`` and ``loss_last``; None where no step has a loss.
    """
    tenth = max(len(losses) // 10, 1)
    parts = {"loss_first": losses[:tenth], "loss_last": losses[-tenth:]}
    return {
        name: float(np.nanmean(part)) if np.isfinite(part).any() else None
        for name, part in parts.items()
    }


def losses_of(summary: Mapping[str, Any]) -> tuple[float, float]:
    """Read the first and the last loss of a finished run.

    Parameters
    ----------
    summary : mapping
        Holds what :func:`first_and_last` returned.

    Returns
    -------
    tuple of float
        The two losses; NaN where no step had one.
    """
    first, last = summary["loss_first"], summary["loss_last"]
    nan = float("nan")
    return nan if first is None else first, nan if last is None else last


def median(values: Sequence[float]) -> float:
    """Return the median of the finite values.

    Parameters
    ----------
    values : sequence of float
        Values of any unit.

    Returns
    -------
    float
        Their median; NaN where no value is finite.
    """
    finite = np.asarray(values)[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else float("nan")
