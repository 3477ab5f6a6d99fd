"""CLAM: attention pooling with an instance loss on the patches that attention selects.

The bag is pooled as in ABMIL. For the bag's class c, the k patches of greatest
attention are positive and the k of least attention negative examples of a patch
classifier::

    L = (1 - w) · CE(logits, c) + w · instance_loss(top k -> 1, bottom k -> 0)

References
----------
Lu et al., "Data-efficient and weakly supervised computational pathology on whole-slide
images", Nature Biomedical Engineering, 2021. Written from the description.
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

    Each class has a patch classifier, ``Linear(hidden, 2)``. That of the bag's class is
    trained on the patches of greatest attention as positives and of least attention as
    negatives. With `subtyping`, those of the other classes take the patches of greatest
    attention as negatives.

    Parameters
    ----------
    dim, classes : int
        Length D of a feature vector; number C of classes.
    hidden, width : int
        Length of the projected vectors, and of the gate.
    dropout : float
        Dropout on the projected vectors and the gate.
    instances : int, optional
        Number k of patches from each end; at most half of the bag, so that none is taken
        twice. A bag of one patch has no instance loss.
    weight : float, optional
        Weight of the instance loss in the total, 0 to 1.
    loss : {"svm", "ce"}, optional
        Smooth top-1 SVM (Berrada et al., ICLR 2018) or cross-entropy.
    subtyping : bool, optional
        Whether classes are mutually exclusive.
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
        # One patch classifier per class: evidence for a class is none against others.
        self.judges = nn.ModuleList(nn.Linear(hidden, 2) for _ in range(classes))
        self.instances, self.auxiliary_weight = instances, weight
        # The smooth SVM loss without margin is the cross-entropy.
        self.margin = 1.0 if loss == "svm" else 0.0
        self.subtyping = subtyping

    def auxiliary_loss(
        self, state: Aggregated, labels: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Compute the instance loss.

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
        assert state.attention is not None and state.instances is not None
        losses = []
        for bag, label in enumerate(labels.tolist()):
            own = slice(None) if mask is None else mask[bag]
            # (B, [C,] N) -> ([C,] n): padding, without attention, would be the bottom k.
            attention = state.attention[bag][..., own]
            losses.append(self._of_bag(attention, state.instances[bag][own], label))
        return torch.stack(losses).mean()

    def _of_bag(self, attention: Tensor, vectors: Tensor, label: int) -> Tensor:
        """Compute the instance loss of one bag, summed over classes.

        Attention is (N,) or (C, N), vectors are (N, H).
        """
        # topk fails on fewer patches than k, and no patch may be both top and bottom.
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
        most = attention.topk(count).indices  # (k,)
        least = attention.topk(count, largest=False).indices  # (k,)
        scores = judge(vectors[torch.cat([most, least])])  # (2 k, 2)
        return instance_loss(scores, [1] * count + [0] * count, self.margin)

    def _out_of_class(
        self, judge: nn.Module, attention: Tensor, vectors: Tensor, count: int
    ) -> Tensor:
        # Classes exclude each other: even the patches of most attention are negatives.
        scores = judge(vectors[attention.topk(count).indices])
        return instance_loss(scores, [0] * count, self.margin)


class CLAMMB(CLAMSB):
    """CLAM with one attention branch and one bag classifier per class.

    Attention has C rows. Class c is scored by its own ``Linear(hidden, 1)`` on the mean
    that its row weights.

    Parameters
    ----------
    dim, classes : int
        Length D of a feature vector; number C of classes.
    hidden, width : int
        Length of the projected vectors, and of the gate.
    dropout : float
        Dropout on the projected vectors and the gate.
    instances : int, optional
        As in :class:`CLAMSB`.
    weight : float, optional
        As in :class:`CLAMSB`.
    loss : {"svm", "ce"}, optional
        As in :class:`CLAMSB`.
    subtyping : bool, optional
        As in :class:`CLAMSB`.
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
        # In place of ABMIL's single row; `classify` has one row per class already.
        self.attend = GatedAttention(hidden, width, classes, dropout)

    def aggregate(
        self, bag: Tensor, mask: Tensor | None = None, with_attention: bool = False
    ) -> Aggregated:
        """Pool once per class; attention has shape (B, C, N).

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
        attention = masked_softmax(self.attend(vectors), mask)  # (B, C, N)
        pooled = attention @ vectors  # (B, C, H)
        # Row c of the matrix classifies class c, from its own mean only: (B, C).
        logits = torch.einsum("bch,ch->bc", pooled, self.classify.weight)
        return Aggregated(logits + self.classify.bias, attention, vectors)


def instance_loss(scores: Tensor, targets: list[int], margin: float) -> Tensor:
    """Compute the loss of patch scores against their pseudo-labels.

    With `margin` 1 this is the smooth top-1 SVM loss at temperature 1 (Berrada, Zisserman
    and Kumar, ICLR 2018)::

        L = log Σ_j exp(s_j + margin · [j ≠ y]) - s_y

    With 0 it is the cross-entropy.

    Parameters
    ----------
    scores : Tensor, shape (K, 2)
        Scores of K patches.
    targets : list of int
        Pseudo-label of each patch, 0 or 1.
    margin : float
        Margin of the wrong class.

    Returns
    -------
    Tensor, shape ()
        Mean over the patches.
    """
    wanted = torch.tensor(targets, device=scores.device)
    wrong = 1 - F.one_hot(wanted, 2).to(scores.dtype)  # (n, 2): [j ≠ y]
    return F.cross_entropy(scores + margin * wrong, wanted)
