"""CLAM: attention that also learns from the patches that it picks itself.

Lu et al., "Data-efficient and weakly supervised computational pathology on whole-slide
images", Nature Biomedical Engineering 2021. Written from the description.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from napari_mcm.core.mil.models.abmil import ABMIL, GatedAttention
from napari_mcm.core.mil.models.base import Aggregated, masked_softmax


class CLAMSB(ABMIL):
    """CLAM with a single attention branch.

    The bag is pooled as in ABMIL. Besides, each class has a classifier of patches,
    ``Linear(hidden, 2)``: for the bag's class it learns that the patches of greatest
    attention belong to it and those of least do not; with `subtyping` the other
    classes' learn that the patches of greatest attention are not theirs.

    Parameters
    ----------
    dim, classes, hidden, width, dropout
        As in :class:`~napari_mcm.core.mil.models.abmil.ABMIL`.
    instances : int
        Patches k taken from each end; at most half of the bag, so that none is taken
        from both. A bag of one patch has no instance loss.
    weight : float
        Part of the instance loss in the whole.
    loss : {"svm", "ce"}
        Smooth top-1 SVM (Berrada et al., ICLR 2018) or cross-entropy.
    subtyping : bool
        Whether classes exclude each other.
    """

    def __init__(
        self,
        dim: int,
        classes: int,
        hidden: int,
        width: int,
        dropout: float,
        *,
        instances: int = 8,
        weight: float = 0.3,
        loss: Literal["svm", "ce"] = "svm",
        subtyping: bool = False,
    ) -> None:
        super().__init__(dim, classes, hidden, width, dropout)
        self.judges = nn.ModuleList(nn.Linear(hidden, 2) for _ in range(classes))
        self.instances, self.auxiliary_weight = instances, weight
        self.margin = 1.0 if loss == "svm" else 0.0
        self.subtyping = subtyping

    def auxiliary_loss(
        self, state: Aggregated, labels: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Compute the instance loss, a mean over the bags."""
        assert state.attention is not None and state.instances is not None
        losses = []
        for bag, label in enumerate(labels.tolist()):
            own = slice(None) if mask is None else mask[bag]
            attention = state.attention[bag][..., own]
            losses.append(self._of_bag(attention, state.instances[bag][own], label))
        return torch.stack(losses).mean()

    def _of_bag(self, attention: Tensor, vectors: Tensor, label: int) -> Tensor:
        """Sum over classes for one bag: attention (N,) or (C, N), vectors (N, H)."""
        count = min(self.instances, len(vectors) // 2)
        total = vectors.new_zeros(())
        if count == 0:
            return total
        for number, judge in enumerate(self.judges):
            mine = attention[number] if attention.ndim == 2 else attention
            if number == label:
                total = total + self._in_class(judge, mine, vectors, count)
            elif self.subtyping:
                total = total + self._out_of_class(judge, mine, vectors, count)
        return total / len(self.judges) if self.subtyping else total

    def _in_class(
        self, judge: nn.Module, attention: Tensor, vectors: Tensor, count: int
    ) -> Tensor:
        most = attention.topk(count).indices
        least = attention.topk(count, largest=False).indices
        scores = judge(vectors[torch.cat([most, least])])
        return instance_loss(scores, [1] * count + [0] * count, self.margin)

    def _out_of_class(
        self, judge: nn.Module, attention: Tensor, vectors: Tensor, count: int
    ) -> Tensor:
        scores = judge(vectors[attention.topk(count).indices])
        return instance_loss(scores, [0] * count, self.margin)


class CLAMMB(CLAMSB):
    """CLAM with an attention branch and a bag classifier for each class.

    Attention has C rows; class c is scored by a ``Linear(hidden, 1)`` of its own on the
    mean that is weighted by its row. Parameters as in :class:`CLAMSB`.
    """

    per_class: ClassVar[bool] = True

    def __init__(
        self,
        dim: int,
        classes: int,
        hidden: int,
        width: int,
        dropout: float,
        *,
        instances: int = 8,
        weight: float = 0.3,
        loss: Literal["svm", "ce"] = "svm",
        subtyping: bool = False,
    ) -> None:
        super().__init__(
            dim,
            classes,
            hidden,
            width,
            dropout,
            instances=instances,
            weight=weight,
            loss=loss,
            subtyping=subtyping,
        )
        self.attend = GatedAttention(hidden, width, classes, dropout)

    def aggregate(
        self, bag: Tensor, mask: Tensor | None = None, with_attention: bool = False
    ) -> Aggregated:
        """Pool once a class; attention is (B, C, N)."""
        vectors = self.project(bag)
        attention = masked_softmax(self.attend(vectors), mask)
        pooled = attention @ vectors
        # Row c of the matrix is the classifier of class c, and sees its mean only.
        logits = torch.einsum("bch,ch->bc", pooled, self.classify.weight)
        return Aggregated(logits + self.classify.bias, attention, vectors)


def instance_loss(scores: Tensor, targets: list[int], margin: float) -> Tensor:
    """Score patches (K, 2) against what they are taken for.

    With `margin` 1 this is the smooth top-1 SVM loss at temperature 1 (Berrada, Zisserman
    and Kumar, ICLR 2018): a log-sum-exp of scores to which every wrong class adds the
    margin, less the right one's score. With 0 it is the cross-entropy.
    """
    wanted = torch.tensor(targets, device=scores.device)
    wrong = 1 - F.one_hot(wanted, 2).to(scores.dtype)
    return F.cross_entropy(scores + margin * wrong, wanted)
