"""What all aggregators share: the interface, masks, and repeatable dropout."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Aggregated:
    """Output of an aggregator for a batch of bags.

    Attributes
    ----------
    logits : Tensor, shape (B, C)
        Scores of the classes.
    attention : Tensor, shape (B, N) or (B, C, N), or None
        Weights that sum to 1 over a bag's patches; 0 where the mask is False. None where
        they were not requested and are not a by-product.
    instances : Tensor or None
        Input of the auxiliary loss: hidden vectors, shape (B, N, H), or patch scores, shape
        (B, N, C).
    """

    logits: Tensor
    attention: Tensor | None = None
    instances: Tensor | None = None


class Aggregator(nn.Module, ABC):
    """Map the features of a bag's patches to the scores of a slide's classes.

    Attributes
    ----------
    per_class : bool
        Whether attention has one row per class.
    auxiliary_weight : float
        Weight of the auxiliary loss in the total, 0 to 1; the bag's loss has the rest.
    shown : str
        What is drawn as attention, for the map's title.
    caveat : str
        What a reader of the map must know; empty where it is plain attention.
    """

    per_class: ClassVar[bool] = False
    shown: ClassVar[str] = "attention"
    caveat: ClassVar[str] = ""
    auxiliary_weight: float = 0.0

    @abstractmethod
    def aggregate(
        self, bag: Tensor, mask: Tensor | None = None, with_attention: bool = False
    ) -> Aggregated:
        """Score bags and keep what the auxiliary loss needs.

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

    def forward(
        self, bag: Tensor, mask: Tensor | None = None, return_attention: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Score bags.

        Parameters
        ----------
        bag : Tensor, shape (B, N, D)
            Features of patches; shorter bags of a batch are padded.
        mask : Tensor of bool, shape (B, N), optional
            True for a bag's own patches, False for padding; each bag has at least one
            patch.
        return_attention : bool, optional
            Whether to return the attention, too.

        Returns
        -------
        Tensor, shape (B, C), or tuple of Tensor
            Logits; with `return_attention` also the attention, shape (B, N), or (B, C, N)
            where `per_class`. It sums to 1 over a bag's patches.
        """
        state = self.aggregate(bag, mask, return_attention)
        if not return_attention:
            return state.logits
        assert state.attention is not None
        return state.logits, state.attention

    def auxiliary_loss(
        self, state: Aggregated, labels: Tensor, mask: Tensor | None = None
    ) -> Tensor | None:
        """Compute the auxiliary loss beside that of the bags' labels.

        Parameters
        ----------
        state : Aggregated
            Output of :meth:`aggregate`.
        labels : Tensor of int64, shape (B,)
            Classes of the bags.
        mask : Tensor of bool, shape (B, N), optional
            As in :meth:`forward`.

        Returns
        -------
        Tensor or None
            Mean over the bags; None where the method has no auxiliary loss.
        """
        return None


def masked_softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Compute the softmax over patches, without padding.

    Parameters
    ----------
    scores : Tensor, shape (B, ..., N)
        Scores of the patches.
    mask : Tensor of bool, shape (B, N), or None
        False for padding.

    Returns
    -------
    Tensor, shape (B, ..., N)
        Weights that sum to 1 over N; 0 for padding.
    """
    if mask is not None:
        shape = (mask.shape[0], *[1] * (scores.ndim - 2), mask.shape[1])
        scores = scores.masked_fill(~mask.view(shape), float("-inf"))  # (B, ..., N)
    return scores.softmax(dim=-1)  # (B, ..., N)


class Dropout(nn.Module):
    """Dropout whose draws depend on a given key only, on any device and thread.

    Parameters
    ----------
    p : float
        Fraction of the values to drop, rounded to the nearest 1/256: one random byte
        decides about each value.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self._bytes: np.random.Generator | None = None

    def seed(self, key: tuple[int, ...]) -> None:
        """Make the next draws depend on a key.

        Parameters
        ----------
        key : tuple of int
            Any numbers.
        """
        self._bytes = np.random.Generator(np.random.SFC64(key))

    def forward(self, values: Tensor) -> Tensor:
        """Drop values and scale up the rest in training mode; else return them unchanged.

        Parameters
        ----------
        values : Tensor
            Values of any shape.

        Returns
        -------
        Tensor
            Same shape.
        """
        level = round(self.p * 256)
        if not self.training or level == 0:
            return values
        if self._bytes is None:
            self.seed((0,))
            assert self._bytes is not None
        # NumPy's generator, because torch's gives other numbers on each device.
        drawn = np.frombuffer(self._bytes.bytes(values.numel()), np.uint8)
        kept = torch.from_numpy(drawn >= level).to(values.device)
        return values * kept.view(values.shape) * (256 / (256 - level))


def seed_dropout(model: nn.Module, *key: int) -> None:
    """Give every dropout layer of a model its own draws, which depend on a key only.

    Parameters
    ----------
    model : Module
        The model.
    *key : int
        Any numbers.
    """
    found = [part for part in model.modules() if isinstance(part, Dropout)]
    for number, part in enumerate(found):
        part.seed((*key, number))


class Projection(nn.Sequential):
    """Project features to hidden vectors: linear, ReLU, dropout.

    Parameters
    ----------
    dim, hidden : int
        Length of a feature vector, and of a hidden vector.
    dropout : float
        Dropout on the hidden vectors.
    """

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__(
            nn.Linear(dim, hidden), nn.ReLU(inplace=True), Dropout(dropout)
        )
