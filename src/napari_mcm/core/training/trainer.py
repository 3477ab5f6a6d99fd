"""Trained weights with their optimiser: gradients summed over chunks, then one update.

A batch is computed a few samples at a time, so that memory stays small and a cancel is
acted on between two chunks. The gradients of the chunks add up, and the weights move once::

    g = Σ_chunks ∂L_chunk / ∂w,   w ← AdamW(w, g · min(1, clip_norm / |g|), factor · lr)
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from napari_mcm.core.encoders.seeding import SeededSteps
from napari_mcm.core.training.distributed import DistributedContext

Groups = list[dict[str, Any]]
"""Parameter groups of an optimiser, each with its own rate and decay."""
ChunkSums = Generator[None, None, Mapping[str, float]]
"""Computes the gradients of one chunk; returns sums of metrics over its samples."""


class Trainer:
    """Weights, their optimiser, and what a checkpoint holds of both.

    What a batch is and how it becomes a loss is up to the subclasses.

    Parameters
    ----------
    parts : mapping of str to nn.Module
        Modules that a checkpoint keeps; their names are the prefixes in it.
    optimiser : Optimizer
        Its groups hold the peak learning rates.
    clip_norm : float or None
        Bound on the norm of the gradient.
    device : torch.device
        The device of the modules.
    team : DistributedContext, optional
        The processes that train together; by default this one alone.

    Attributes
    ----------
    settled : bool
        False from when weights begin to change until the loop has counted the step and
        sets it: a checkpoint in between would not know which step it belongs to.
    moves_in_forward : bool
        Whether a forward pass already changes something, such as batch-norm statistics.
    precision : object
        The number formats that it computes in, ready for JSON; None where there is no
        choice.
    """

    moments: ClassVar[str] = "adam"
    """Prefix of the optimiser's moments in a checkpoint."""

    def __init__(
        self,
        parts: Mapping[str, nn.Module],
        optimiser: torch.optim.Optimizer,
        clip_norm: float | None,
        device: torch.device,
        team: DistributedContext | None = None,
    ) -> None:
        self._parts = dict(parts)
        self.optimiser, self.clip_norm, self.device = optimiser, clip_norm, device
        self.team = team or DistributedContext()
        self.settled, self.moves_in_forward = True, False
        self.precision: Any = None
        self._seeding = SeededSteps(device)
        # The schedule overwrites the rates, and a checkpoint stores none.
        self._peaks = [group["lr"] for group in optimiser.param_groups]

    def compute_in(self, precision: Any) -> None:
        """Compute as an interrupted run did, whatever ``auto`` means on this machine.

        Parameters
        ----------
        precision : object
            The `precision` of that run.
        """
        self.precision = precision

    def sum_gradients(
        self, chunks: Iterable[ChunkSums]
    ) -> Generator[None, None, dict[str, float]]:
        """Add up the gradients of a batch, chunk by chunk.

        Parameters
        ----------
        chunks : iterable of generators
            Each propagates its part of the batch's loss backwards.

        Yields
        ------
        None
            Wherever a chunk does; a cancel is acted on here.

        Returns
        -------
        dict of str to float
            Sums of the chunks' metrics; empty without chunks.
        """
        self.optimiser.zero_grad(set_to_none=True)
        self.settled = not self.moves_in_forward
        sums: dict[str, float] = {}
        for chunk in chunks:
            for name, value in (yield from chunk).items():
                sums[name] = sums.get(name, 0.0) + value
        return sums

    def move_weights(self, factor: float, idle: str | None = None) -> float:
        """Take one step of the optimiser along the summed gradients.

        Parameters
        ----------
        factor : float
            The schedule's factor on all peak rates.
        idle : str, optional
            Groups whose ``part`` this is do not move.

        Returns
        -------
        float
            Norm of the gradient before it is clipped. Where it is not finite, the
            weights stay as they are.
        """
        # From here on, weights and the number of steps do not agree.
        self.settled = False
        parameters: list[nn.Parameter] = []
        for group, peak in zip(self.optimiser.param_groups, self._peaks, strict=True):
            stays = idle is not None and group["part"] == idle
            group["lr"] = 0.0 if stays else peak * factor
            parameters += [] if stays else group["params"]
        # Before clipping: the norm is that of the whole batch, over all processes.
        self.team.total_gradients(parameters)
        limit = float("inf") if self.clip_norm is None else self.clip_norm
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit))
        # A step along NaN would spoil all weights; the loop reports the divergence.
        if np.isfinite(norm):
            self.optimiser.step()
        return norm

    def state(self) -> dict[str, Tensor]:
        """Collect all tensors from which the training can resume.

        Returns
        -------
        dict of str to Tensor
            Weights of the parts and moments of the optimiser, by prefixed name.
        """
        tensors = {
            f"{part}/{name}": tensor
            for part, module in self._parts.items()
            for name, tensor in module.state_dict().items()
        }
        for number, values in self.optimiser.state_dict()["state"].items():
            tensors |= {f"{self.moments}/{number}/{k}": v for k, v in values.items()}
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the tensors of a checkpoint.

        Parameters
        ----------
        tensors : mapping of str to Tensor
            As :meth:`state` returned them.
        """
        saved = by_prefix(tensors)
        for part, module in self._parts.items():
            module.load_state_dict(saved[part])
        moments = {
            int(number): values
            for number, values in by_prefix(saved.get(self.moments, {})).items()
        }
        state = self.optimiser.state_dict()
        self.optimiser.load_state_dict({**state, "state": moments})


def by_prefix(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Group tensors by what stands before the first slash of their names.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        Tensors by name, such as ``model/head.weight``.

    Returns
    -------
    dict of str to dict
        Tensors by prefix, and by the rest of the name.
    """
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        prefix, _, rest = name.partition("/")
        groups.setdefault(prefix, {})[rest] = tensor
    return groups


def decay_groups(module: nn.Module, lr: float, weight_decay: float) -> Groups:
    """Group the weights that are trained: biases, norms and other 1-D ones do not decay.

    Parameters
    ----------
    module : nn.Module
        Weights that require no gradient are left out.
    lr : float
        Peak learning rate.
    weight_decay : float
        AdamW's decay of the other weights.

    Returns
    -------
    list of dict
        At most two groups for AdamW; none of them empty.
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = []
    for flat in (False, True):
        chosen = [p for p in trained if (p.ndim <= 1) == flat]
        decay = 0.0 if flat else weight_decay
        groups.append({"params": chosen, "lr": lr, "weight_decay": decay})
    return [group for group in groups if group["params"]]
