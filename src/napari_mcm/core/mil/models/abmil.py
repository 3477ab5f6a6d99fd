"""Attention-based MIL with gated attention (ABMIL).

Patches are projected, weighted by gated attention, averaged and classified::

    h_n = ReLU(W x_n)
    a_n = softmax_n( w^T (tanh(V h_n) * sigmoid(U h_n)) )
    logits = C Σ_n a_n h_n

References
----------
Ilse, Tomczak and Welling, "Attention-based Deep Multiple Instance Learning", ICML 2018.
"""

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
    """Score patches by gated attention: ``w (tanh(V h) * sigmoid(U h))``.

    Ilse, Tomczak and Welling, "Attention-based Deep Multiple Instance Learning", ICML
    2018, equation 9. V and U are one matrix here: one product instead of two.

    Parameters
    ----------
    hidden, width : int
        Length of patch vectors, and of the gate.
    rows : int
        Rows of attention: 1, or one per class.
    dropout : float
        Dropout on both branches of the gate.
    """

    def __init__(self, hidden: int, width: int, rows: int, dropout: float) -> None:
        super().__init__()
        self.branches = nn.Linear(hidden, 2 * width)
        self.scores = nn.Linear(width, rows)
        self.dropout = Dropout(dropout)

    def forward(self, vectors: Tensor) -> Tensor:
        """Score patch vectors.

        Parameters
        ----------
        vectors : Tensor, shape (B, N, H)
            Hidden vectors of the patches.

        Returns
        -------
        Tensor, shape (B, rows, N)
            Scores, before the softmax.
        """
        value, gate = self.branches(vectors).chunk(2, dim=-1)  # (B, N, width) each
        gated = self.dropout(torch.tanh(value)) * self.dropout(torch.sigmoid(gate))
        scores: Tensor = self.scores(gated).transpose(1, 2)  # (B, rows, N)
        return scores


class ABMIL(Aggregator):
    """Classify by gated attention pooling (Ilse et al., ICML 2018), multi-class.

    ``Linear(D, hidden)``, ReLU, dropout; gated attention; the mean of the patches,
    weighted by attention; ``Linear(hidden, C)``.

    Parameters
    ----------
    dim, classes : int
        Length D of a feature vector; number C of classes.
    hidden, width : int
        Length of the projected vectors, and of the gate.
    dropout : float
        Dropout on the projected vectors and the gate.
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
        """Pool by attention; `instances` are the hidden vectors, shape (B, N, H).

        Parameters
        ----------
        bag : Tensor, shape (B, N, D)
            Features of patches; shorter bags of a batch are padded.
        mask : Tensor of bool, shape (B, N), optional
            False for padding.
        with_attention : bool, optional
            Whether attention is needed, if it costs extra.

        Returns
        -------
        Aggregated
            Logits, attention, and the input of the auxiliary loss.
        """
        vectors = self.project(bag)  # (B, N, H)
        attention = masked_softmax(self.attend(vectors), mask)  # (B, 1, N)
        pooled = (attention @ vectors).squeeze(1)  # (B, H)
        return Aggregated(self.classify(pooled), attention.squeeze(1), vectors)
