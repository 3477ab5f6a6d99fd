"""DSMIL: the most telling patch of each class, and all patches by likeness to it."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from napari_mcm.core.mil.models.base import (
    Aggregated,
    Aggregator,
    Dropout,
    masked_softmax,
)


class DSMIL(Aggregator):
    """Dual-stream MIL, multi-class.

    Li, Li and Eliceiri, "Dual-stream Multiple Instance Learning Network for Whole Slide
    Image Classification with Self-supervised Contrastive Learning", CVPR 2021. The first
    stream scores patches, ``Linear(D, C)``; each class's best is its critical patch. The
    second weighs patches by ``softmax(q q_critical / sqrt(width))``, with queries from
    ``Linear, ReLU, Linear, Tanh``, and scores the C means by a convolution over all of
    them. The auxiliary loss is that of the critical patches' own scores.

    Parameters
    ----------
    dim, classes : int
        Length D of a feature vector; number C of classes.
    width : int
        Length of a query.
    dropout : float
        On the features of the second stream.
    """

    per_class: ClassVar[bool] = True

    def __init__(self, dim: int, classes: int, width: int, dropout: float) -> None:
        super().__init__()
        self.score = nn.Linear(dim, classes)
        self.query = nn.Sequential(
            nn.Linear(dim, width), nn.ReLU(), nn.Linear(width, width), nn.Tanh()
        )
        self.dropout = Dropout(dropout)
        self.classify = nn.Conv1d(classes, classes, kernel_size=dim)
        self.auxiliary_weight = 0.5

    def aggregate(
        self, bag: Tensor, mask: Tensor | None = None, with_attention: bool = False
    ) -> Aggregated:
        """Score both streams; `instances` are the patches' own scores (B, N, C)."""
        scores = self.score(bag)
        if mask is not None:
            scores = scores.masked_fill(~mask[..., None], float("-inf"))
        critical = scores.argmax(dim=1)
        queries = self.query(bag)
        width = queries.shape[-1]
        wanted = critical[..., None].expand(-1, -1, width)
        likeness = queries.gather(1, wanted) @ queries.transpose(1, 2)
        attention = masked_softmax(likeness / math.sqrt(width), mask)
        pooled = attention @ self.dropout(bag)
        return Aggregated(self.classify(pooled).squeeze(-1), attention, scores)

    def auxiliary_loss(
        self, state: Aggregated, labels: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Compute the loss of the critical patches' scores."""
        assert state.instances is not None
        return F.cross_entropy(torch.amax(state.instances, dim=1), labels)
