"""Targets and the distance to them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from napari_mcm.core.mcm.config import TargetConfig

WHITENED_VARIANCE = 0.95


@dataclass(frozen=True, eq=False)
class Target:
    """How the teacher's features become targets, and how predictions are judged.

    Attributes
    ----------
    config : TargetConfig
        Scaling and loss.
    mean : Tensor or None, shape (teacher_dim,)
        Over patches, for the scalings ``"standardise"`` and ``"whiten"``.
    std : Tensor or None, shape (teacher_dim,)
        For the scaling ``"standardise"``.
    whitening : Tensor or None, shape (teacher_dim, teacher_dim)
        For the scaling ``"whiten"``.
    """

    config: TargetConfig
    mean: Tensor | None = None
    std: Tensor | None = None
    whitening: Tensor | None = None

    def measured(self, features: Tensor) -> Target:
        """Take the statistics that the scaling needs from features (N, teacher_dim)."""
        mean = features.mean(dim=0)
        if self.config.target_norm == "standardise":
            return replace(self, mean=mean, std=features.std(dim=0).clamp_min(1e-6))
        if self.config.target_norm == "whiten":
            return replace(self, mean=mean, whitening=_whitening(features - mean))
        return self

    def statistics(self) -> dict[str, Tensor]:
        """Give the statistics that were taken, by name."""
        named = {"mean": self.mean, "std": self.std, "whitening": self.whitening}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def scale(self, features: Tensor) -> Tensor:
        """Scale the teacher's features (M, teacher_dim).

        A plain l1 is ruled by the few dimensions with the largest spread; a layer norm
        without weights is the usual remedy in feature distillation.
        """
        if self.config.target_norm == "layernorm":
            return F.layer_norm(features, features.shape[-1:])
        if self.config.target_norm == "standardise":
            if self.mean is None or self.std is None:
                raise ValueError("standardised targets need statistics")
            return (features - self.mean) / self.std
        if self.config.target_norm == "whiten":
            if self.mean is None or self.whitening is None:
                raise ValueError("whitened targets need statistics")
            return (features - self.mean) @ self.whitening
        return features

    def loss(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Sum of the patches' distances; divide by their number for the mean.

        Parameters
        ----------
        predictions, targets : Tensor, shape (M, teacher_dim)
            Of masked patches with tissue, and no others.
        """
        if self.config.loss == "l1":
            # The article's only equation: the mean over dimensions of |ŷ - y|.
            return (predictions - targets).abs().mean(dim=1).sum()
        angle = 1 - F.cosine_similarity(predictions, targets, dim=1)
        smooth = F.smooth_l1_loss(predictions, targets, reduction="none").mean(dim=1)
        return (0.9 * angle + 0.1 * smooth).sum()


def _whitening(centred: Tensor) -> Tensor:
    """Make the matrix that gives equal spread to the directions that matter.

    Those are the principal directions with 95 % of the variance; few patches say nothing
    of the others, which would be noise blown up. Turned back, so that targets keep their
    length, and scaled to unit variance a dimension on average.
    """
    _, spread, directions = torch.linalg.svd(centred, full_matrices=False)
    share = (spread**2).cumsum(0) / (spread**2).sum()
    count = int((share < WHITENED_VARIANCE).sum()) + 1
    basis = directions[:count]
    scale = (len(centred) * centred.shape[1] / count) ** 0.5
    whitening: Tensor = (basis.T / spread[:count]) @ basis * scale
    return whitening
