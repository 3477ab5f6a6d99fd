"""Mean and max pooling: the baselines that attention must beat."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_mcm.core.mil.models.base import Aggregated, Aggregator, Projection


class MeanPooling(Aggregator):
    """Classify by the mean of the patches.

    ``Linear(D, hidden)``, ReLU, dropout; the patches' mean; ``Linear(hidden, C)``.

    Parameters
    ----------
    dim, classes : int
        Length D of a feature vector; number C of classes.
    hidden : int
        Length of the projected vectors.
    dropout : float
        Dropout on the projected vectors.
    """

    shown = "weight in the mean"
    caveat = "mean pooling: every patch has the same weight, so the map is uniform"

    def __init__(self, dim: int, classes: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.project = Projection(dim, hidden, dropout)
        self.classify = nn.Linear(hidden, classes)

    def aggregate(
        self, bag: Tensor, mask: Tensor | None = None, with_attention: bool = False
    ) -> Aggregated:
        """Pool by the mean; the attention is uniform.

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
        vectors = self.project(bag)
        if mask is None:
            weights = vectors.new_full(bag.shape[:2], 1 / bag.shape[1])
            return Aggregated(self.classify(vectors.mean(dim=1)), weights)
        # Each bag is divided by its own number of patches, not by the padded one.
        weights = mask.to(vectors.dtype) / mask.sum(dim=1, keepdim=True)  # (B, N)
        pooled = torch.einsum("bn,bnh->bh", weights, vectors)  # (B, H)
        return Aggregated(self.classify(pooled), weights)


class MaxPooling(MeanPooling):
    """Classify by the greatest value of each hidden dimension over the patches.

    Parameters as in :class:`MeanPooling`.
    """

    shown = "share of maxima"
    caveat = "max pooling: the share of hidden dimensions whose maximum is the patch's"

    def aggregate(
        self, bag: Tensor, mask: Tensor | None = None, with_attention: bool = False
    ) -> Aggregated:
        """Pool by the maximum; attention is each patch's share of the maxima.

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
        vectors = self.project(bag)
        if mask is not None:
            # Padding never has a maximum.
            vectors = vectors.masked_fill(~mask[..., None], float("-inf"))
        pooled, winners = vectors.max(dim=1)  # (B, H) each
        shares = vectors.new_zeros(bag.shape[:2])
        # Dimensions that are 0 everywhere after the ReLU have no winner.
        won = (pooled > 0).to(shares.dtype)
        won = torch.where(won.sum(dim=1, keepdim=True) > 0, won, torch.ones_like(won))
        shares.scatter_add_(1, winners, won.detach() / won.sum(dim=1, keepdim=True))
        return Aggregated(self.classify(pooled), shares)
