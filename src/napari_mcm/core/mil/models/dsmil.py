"""DSMIL: the critical patch of each class, and all patches weighted by similarity to it.

::

    m_c = argmax_n s_c(x_n)                        (critical patch)
    a_cn = softmax_n( q(x_n) · q(x_{m_c}) / √width )
    L = ½ CE(conv(Σ_n a_cn x_n)) + ½ CE(max_n s(x_n))

References
----------
Li, Li and Eliceiri, "Dual-stream Multiple Instance Learning Network for Whole Slide Image
Classification with Self-supervised Contrastive Learning", CVPR 2021.
"""

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
    """Dual-stream MIL (Li et al., CVPR 2021), multi-class.

    The first stream scores patches, ``Linear(D, C)``; the best of each class is its
    critical patch. The second weights patches by ``softmax(q q_critical /
    sqrt(width))``, with queries from ``Linear, ReLU, Linear, Tanh``, and scores the C
    means by a convolution over all of them. The auxiliary loss is that of the critical
    patches' own scores.

    Parameters
    ----------
    dim, classes : int
        Length D of a feature vector; number C of classes.
    width : int
        Length of a query.
    dropout : float
        Dropout on the features of the second stream.
    """

    per_class: ClassVar[bool] = True

    def __init__(self, dim: int, classes: int, width: int, dropout: float) -> None:
        super().__init__()
        self.score = nn.Linear(dim, classes)
        self.query = nn.Sequential(
            nn.Linear(dim, width), nn.ReLU(), nn.Linear(width, width), nn.Tanh()
        )
        self.dropout = Dropout(dropout)
        # Kernels as long as a vector: each class is scored from the means of all classes.
        self.classify = nn.Conv1d(classes, classes, kernel_size=dim)
        # Both streams count the same, as in the paper.
        self.auxiliary_weight = 0.5

    def aggregate(
        self, bag: Tensor, mask: Tensor | None = None, with_attention: bool = False
    ) -> Aggregated:
        """Score both streams; `instances` are the patches' own scores, shape (B, N, C).

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
        scores = self.score(bag)  # (B, N, C)
        if mask is not None:
            scores = scores.masked_fill(~mask[..., None], float("-inf"))
        critical = scores.argmax(dim=1)  # (B, C)
        queries = self.query(bag)  # (B, N, width)
        width = queries.shape[-1]
        index = critical[..., None].expand(-1, -1, width)  # (B, C, width)
        similarity = queries.gather(1, index) @ queries.transpose(1, 2)  # (B, C, N)
        attention = masked_softmax(similarity / math.sqrt(width), mask)  # (B, C, N)
        pooled = attention @ self.dropout(bag)  # (B, C, D)
        return Aggregated(self.classify(pooled).squeeze(-1), attention, scores)

    def auxiliary_loss(
        self, state: Aggregated, labels: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Compute the cross-entropy of the critical patches' scores.

        Parameters
        ----------
        state : Aggregated
            Output of :meth:`aggregate`.
        labels : Tensor of int64, shape (B,)
            Classes of the bags.
        mask : Tensor of bool, shape (B, N), optional
            False for padding.

        Returns
        -------
        Tensor, shape ()
            Mean over the bags.
        """
        assert state.instances is not None
        return F.cross_entropy(torch.amax(state.instances, dim=1), labels)
