"""Attention-based MIL with gated attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_mcm.core.mil.models.base import (
    Aggregated,
    Aggregator,
    Dropout,
    Projection,
    masked_softmax,
)


class GatedAttention(nn.Module):
    """Scores of patches: ``w (tanh(V h) * sigmoid(U h))``, one row or several.

    Ilse, Tomczak and Welling, "Attention-based Deep Multiple Instance Learning", ICML
    2018, equation 9. V and U are one matrix here: one product rather than two.

    Parameters
    ----------
    hidden, width : int
        Length of patch vectors, and of the gate.
    rows : int
        Rows of attention.
    dropout : float
        On both branches of the gate.
    """

    def __init__(self, hidden: int, width: int, rows: int, dropout: float) -> None:
        super().__init__()
        self.branches = nn.Linear(hidden, 2 * width)
        self.scores = nn.Linear(width, rows)
        self.dropout = Dropout(dropout)

    def forward(self, vectors: Tensor) -> Tensor:
        """Score vectors (B, N, H); gives (B, rows, N)."""
        value, gate = self.branches(vectors).chunk(2, dim=-1)
        gated = self.dropout(torch.tanh(value)) * self.dropout(torch.sigmoid(gate))
        scores: Tensor = self.scores(gated).transpose(1, 2)
        return scores


class ABMIL(Aggregator):
    """Gated attention pooling (Ilse et al., ICML 2018), multi-class.

    ``Linear(D, hidden)``, ReLU, dropout; gated attention; the mean of the patches,
    weighted by it; ``Linear(hidden, C)``.

    Parameters
    ----------
    dim, classes : int
        Length D of a feature vector; number C of classes.
    hidden, width : int
        Length of the projected vectors, and of the gate.
    dropout : float
        On the projected vectors and the gate.
    """

    def __init__(
        self, dim: int, classes: int, hidden: int, width: int, dropout: float
    ) -> None:
        super().__init__()
        self.project = Projection(dim, hidden, dropout)
        self.attend = GatedAttention(hidden, width, 1, dropout)
        self.classify = nn.Linear(hidden, classes)

    def aggregate(
        self, bag: Tensor, mask: Tensor | None = None, with_attention: bool = False
    ) -> Aggregated:
        """Pool by attention; its `instances` are the hidden vectors (B, N, H)."""
        vectors = self.project(bag)
        attention = masked_softmax(self.attend(vectors), mask)
        pooled = (attention @ vectors).squeeze(1)
        return Aggregated(self.classify(pooled), attention.squeeze(1), vectors)
