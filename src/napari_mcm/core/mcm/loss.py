"""Targets and the distance to them."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from napari_mcm.core.mcm.config import TargetConfig


@dataclass(frozen=True, eq=False)
class Target:
    """How the teacher's features become targets, and how predictions are judged.

    Attributes
    ----------
    config : TargetConfig
        Scaling and loss.
    mean, std : Tensor or None, shape (teacher_dim,)
        Statistics over patches, for the scaling ``"standardise"``.
    """

    config: TargetConfig
    mean: Tensor | None = None
    std: Tensor | None = None

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
