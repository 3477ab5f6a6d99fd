"""Training of one model by several processes, as ``torchrun`` starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

from napari_mcm.core.encoders.compute import ComputeConfig
from napari_mcm.core.errors import TrainingError

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class DistributedContext:
    """Share the work of a training between its processes; by default there is one.

    Attributes
    ----------
    rank : int
        Number of this process, from 0. The first one writes the run.
    size : int
        Number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main_process(self) -> bool:
        """Whether this process is the one that writes.

        Returns
        -------
        bool
            True for the first one.
        """
        return self.rank == 0

    def place(self, compute: ComputeConfig) -> ComputeConfig:
        """Choose a GPU for this process, so that each process of a machine has its own.

        Parameters
        ----------
        compute : ComputeConfig
            Device and precision as configured.

        Returns
        -------
        ComputeConfig
            With this process' GPU; unchanged where a certain device is configured.
        """
        several = self.size > 1 and torch.cuda.is_available()
        if not several or compute.device not in ("auto", "cuda"):
            return compute
        # The rank within this machine; more processes than GPUs share them.
        number = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
        return compute.model_copy(update={"device": f"cuda:{number}"})

    def share(self, items: Sequence[_Item]) -> list[_Item]:
        """Return this process' part of a step.

        Parameters
        ----------
        items : sequence
            Samples of the step.

        Returns
        -------
        list
            Every `size`-th of them.
        """
        # Every k-th item: the parts differ by one item at most.
        return list(items[self.rank :: self.size])

    def total(self, values: Tensor) -> Tensor:
        """Add up a tensor over all processes.

        Parameters
        ----------
        values : Tensor
            This process' part.

        Returns
        -------
        Tensor
            The sum; the tensor itself where there is one process.

        Raises
        ------
        TrainingError
            If another process has ended.
        """
        if self.size == 1:
            return values
        # all_reduce writes in place, and the caller keeps its own values.
        summed = values.clone()
        with _explain_lost_process():
            distributed.all_reduce(summed)
        return summed

    def total_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add up gradients over all processes, in place and in one message.

        Parameters
        ----------
        parameters : sequence of nn.Parameter
            Weights whose gradients are summed; None counts as zero.
        """
        if self.size == 1 or not parameters:
            return
        parts = [
            # All processes send the same shapes, also where one has no gradient.
            torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten()
            for p in parameters
        ]
        summed = self.total(torch.cat(parts))
        for p, part in zip(
            parameters, summed.split([p.numel() for p in parameters]), strict=True
        ):
            # A copy, or every gradient would keep the whole message in memory.
            p.grad = part.view_as(p).clone(memory_format=torch.preserve_format)

    @torch.no_grad()
    def share_weights(self, module: nn.Module) -> None:
        """Copy the first process' weights of a module to all others.

        Parameters
        ----------
        module : nn.Module
            Changed in place.
        """
        if self.size == 1:
            return
        for weight in module.state_dict().values():
            # A sum with zeros is a broadcast, by the one operation that all backends have.
            own = weight if self.is_main_process else torch.zeros_like(weight)
            weight.copy_(self.total(own))

    def wait(self) -> None:
        """Wait until all processes have reached this call."""
        if self.size > 1:
            self.total(torch.zeros(1))


@contextmanager
def join_process_group() -> Iterator[DistributedContext]:
    """Join the processes that ``torchrun`` started; without it, train alone.

    Gradients are exchanged by gloo, which needs no GPU, or by NCCL where there is one.

    Yields
    ------
    DistributedContext
        The processes, while the block runs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or distributed.is_initialized():
        alone = not distributed.is_initialized()
        yield (
            DistributedContext()
            if alone
            else DistributedContext(distributed.get_rank(), size)
        )
        return
    backend = "cuda:nccl,cpu:gloo" if torch.cuda.is_available() else "gloo"
    with _explain_lost_process():
        distributed.init_process_group(backend)
    try:
        yield DistributedContext(distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()


@contextmanager
def _explain_lost_process() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise TrainingError(
            "another process of this training has ended",
            hint="Start it again with the same command and --resume",
        ) from error
