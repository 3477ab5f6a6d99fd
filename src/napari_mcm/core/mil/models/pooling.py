"""Mean and max pooling: the baselines that attention must beat."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_mcm.core.mil.models.base import Aggregated, Aggregator, Projection


class MeanPooling(Aggregator):
    """``Linear(D, hidden)``, ReLU, dropout; the patches' mean; ``Linear(hidden, C)``.

    Parameters
    ----------
    dim, classes : int
        Length D of a feature vector; number C of classes.
    hidden : int
        Length of the projected vectors.
    dropout : float
        On the projected vectors.
    """

    shown = "weight in the mean"
    caveat = "mean pooling: every patch counts the same, there is nothing to see"

    def __init__(self, dim: int, classes: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.project = Projection(dim, hidden, dropout)
        self.classify = nn.Linear(hidden, classes)

    def aggregate(
        self, bag: Tensor, mask: Tensor | None = None, with_attention: bool = False
    ) -> Aggregated:
        """Pool by the mean; the attention is uniform."""
        vectors = self.project(bag)
        if mask is None:
            weights = vectors.new_full(bag.shape[:2], 1 / bag.shape[1])
            return Aggregated(self.classify(vectors.mean(dim=1)), weights)
        weights = mask.to(vectors.dtype) / mask.sum(dim=1, keepdim=True)
        pooled = torch.einsum("bn,bnh->bh", weights, vectors)
        return Aggregated(self.classify(pooled), weights)


class MaxPooling(MeanPooling):
    """As :class:`MeanPooling`, with the greatest value of each hidden dimension."""

    shown = "share of maxima"
    caveat = "max pooling: the share of hidden dimensions in which a patch wins"

    def aggregate(
        self, bag: Tensor, mask: Tensor | None = None, with_attention: bool = False
    ) -> Aggregated:
        """Pool by the maximum; attention is each patch's share of the maxima."""
        vectors = self.project(bag)
        if mask is not None:
            vectors = vectors.masked_fill(~mask[..., None], float("-inf"))
        pooled, winners = vectors.max(dim=1)
        shares = vectors.new_zeros(bag.shape[:2])
        # Where all are 0 after the ReLU nobody has won.
        won = (pooled > 0).to(shares.dtype)
        won = torch.where(won.sum(dim=1, keepdim=True) > 0, won, torch.ones_like(won))
        shares.scatter_add_(1, winners, won.detach() / won.sum(dim=1, keepdim=True))
        return Aggregated(self.classify(pooled), shares)
