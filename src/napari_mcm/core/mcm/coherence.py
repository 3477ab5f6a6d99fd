"""Coherence of the gradient: whether different steps have gradients of one direction.

The student's gradients g of the even and of the odd steps of a block are added up apart, and
the block's coherence is the cosine of the two sums::

    c = cos( Σ_even g,  Σ_odd g )

For gradients that are a common signal and independent noise, c is the part of the signal in
the power of either sum, S / (S + N): 0 for noise alone, 1 without noise, and 1/2 where eight
steps carry as much of one as of the other. Below 0, each step undoes a part of the one
before, as it does at high rates. It says nothing of what is learned: in our studies the best
arms were below 0, and the control that collapsed was the most coherent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

BLOCK = 16
"""Steps of a block, half of them in each sum."""


class GradientCoherence:
    """Compare the gradients of a block's even steps with those of its odd ones.

    Parameters
    ----------
    parameters : iterable of Parameter
        Weights whose gradients count; others of theirs are ignored.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._parameters = [p for p in parameters if p.requires_grad]
        # Two sums of the gradient's size; one step's gradient goes into one of them.
        self._sums: tuple[list[Tensor], list[Tensor]] = ([], [])
        self._steps = 0

    def add(self) -> float:
        """Add the gradients that the weights have now, as those of one step.

        Returns
        -------
        float
            Coherence of the block that this step ends; NaN within a block, and where
            either half has no gradient at all.
        """
        if not self._parameters:
            return float("nan")
        if not self._sums[0]:
            self._sums = (self._zeros(), self._zeros())
        own = self._sums[self._steps % 2]
        there = [
            (total, p.grad)
            for total, p in zip(own, self._parameters, strict=True)
            if p.grad is not None
        ]
        if there:
            totals, gradients = (list(part) for part in zip(*there, strict=True))
            torch._foreach_add_(totals, gradients)
        self._steps += 1
        if self._steps < BLOCK:
            return float("nan")
        cosine = _cosine(*self._sums)
        for total in (*self._sums[0], *self._sums[1]):
            total.zero_()
        self._steps = 0
        return cosine

    def state(self) -> dict[str, Tensor]:
        """Collect the sums of a block that has begun.

        Returns
        -------
        dict of str to Tensor
            Sums by half and number of the weight, and the number of steps in them; empty
            between two blocks.
        """
        if not self._steps:
            return {}
        named = {
            f"{half}/{number}": total
            for half, totals in enumerate(self._sums)
            for number, total in enumerate(totals)
        }
        return {"steps": torch.tensor(self._steps), **named}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the sums of a block that had begun.

        Parameters
        ----------
        tensors : mapping of str to Tensor
            As :meth:`state` returned them; empty starts a block.
        """
        self._steps = int(tensors["steps"]) if tensors else 0
        self._sums = ([], [])
        if self._steps:
            count = range(len(self._parameters))
            first, second = (
                [
                    tensors[f"{half}/{number}"].to(self._parameters[number].device)
                    for number in count
                ]
                for half in (0, 1)
            )
            self._sums = (first, second)

    def _zeros(self) -> list[Tensor]:
        return [torch.zeros_like(p) for p in self._parameters]


@torch.no_grad()
def _cosine(one: list[Tensor], other: list[Tensor]) -> float:
    def dot(a: list[Tensor], b: list[Tensor]) -> float:
        # float64: millions of small products add up.
        parts = [(x.double() * y).sum() for x, y in zip(a, b, strict=True)]
        return float(torch.stack(parts).sum())

    lengths = (dot(one, one) * dot(other, other)) ** 0.5
    return dot(one, other) / lengths if lengths else float("nan")
