"""Weights and optimiser, and the step that moves them a chunk of images at a time."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from napari_mcm.core.encoders import ComputeConfig
from napari_mcm.core.encoders.compute import choose_device, settle_training
from napari_mcm.core.encoders.seeding import SeededSteps

Sample = TypeVar("Sample")
Groups = list[dict[str, Any]]

# About half a second of a slow core, forwards and backwards.
_CHUNK_WORK = 5e9


class Trainer(Generic[Sample]):
    """What a step changes; how images become a loss is told by those derived from it.

    Parameters
    ----------
    module : nn.Module
        Everything that learns; moved to the device.
    groups : list of dict
        For AdamW, each with its ``lr`` at the peak.
    betas : tuple of float
        AdamW's.
    clip_norm : float or None
        Bound on the gradient's norm.
    seed : int
        Seeds dropout, where there is any.
    compute : ComputeConfig
        Where and in what it computes.

    Attributes
    ----------
    settled : bool
        False from when weights begin to change until whoever drives has counted the step
        and sets it: a checkpoint in between would not know which step it is of.
    chunk : int
        Images computed at a time.
    moves_in_forward : bool
        Whether a forward pass changes something (batch-norm statistics).
    """

    def __init__(
        self,
        module: nn.Module,
        groups: Groups,
        betas: tuple[float, float],
        clip_norm: float | None,
        seed: int,
        compute: ComputeConfig,
    ) -> None:
        self.device = choose_device(compute)
        # A run that is resumed on another kind of machine sets it to what it began with.
        self.precision = settle_training(compute).precision
        if compute.threads:
            torch.set_num_threads(compute.threads)
        self.module = module.to(self.device)
        self._seeding = SeededSteps(self.device)
        self.seed, self.clip_norm = seed, clip_norm
        # Fused, a step of a ViT-Base on two cores takes 0.06 s rather than 0.4.
        self.optimiser = torch.optim.AdamW(groups, betas=betas, fused=True)
        self._peaks = [group["lr"] for group in self.optimiser.param_groups]
        self.settled = True
        self.moves_in_forward = False
        self.chunk = 1

    def losses(self, samples: Sequence[Sample]) -> tuple[Tensor, dict[str, float]]:
        """Give the sum of the samples' losses, and sums of other figures."""
        raise NotImplementedError

    def set_mode(self) -> None:
        """Put the module in training mode."""
        self.module.train()

    def step(
        self, samples: Sequence[Sample], factor: float, number: int
    ) -> Generator[None, None, dict[str, float]]:
        """Take one optimiser step, yielding after each chunk.

        Parameters
        ----------
        samples : sequence
            The batch.
        factor : float
            The schedule's factor on all rates.
        number : int
            Of the step, from 0.

        Returns
        -------
        dict of str to float
            ``loss`` and other figures, averaged over samples, and ``grad_norm``.
        """
        self.set_mode()
        self.optimiser.zero_grad(set_to_none=True)
        self.settled = not self.moves_in_forward
        sums: dict[str, float] = {}
        for start in range(0, len(samples), self.chunk):
            part = samples[start : start + self.chunk]
            with self._seeding.seed(_key(self.seed, number, start)):
                loss, figures = self.losses(part)
            (loss / len(samples)).backward()
            for name, value in {"loss": float(loss.detach()), **figures}.items():
                sums[name] = sums.get(name, 0.0) + value
            yield
        self.settled = False
        norm = self._update(factor)
        means = {name: value / len(samples) for name, value in sums.items()}
        return {**means, "grad_norm": norm}

    def autocast(self) -> torch.autocast:
        """Compute in the configured precision."""
        mixed = self.precision != "float32"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=mixed)

    def _update(self, factor: float) -> float:
        parameters: list[Tensor] = []
        for group, peak in zip(self.optimiser.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor
            parameters += group["params"]
        limit = float("inf") if self.clip_norm is None else self.clip_norm
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit))
        if np.isfinite(norm):
            self.optimiser.step()
        return norm

    def state(self) -> dict[str, Tensor]:
        """All tensors from which training can go on."""
        tensors = {f"model/{k}": v for k, v in self.module.state_dict().items()}
        for number, values in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam/{number}/{name}": v for name, v in values.items()}
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Go on from tensors that :meth:`state` gave."""
        model: dict[str, Tensor] = {}
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            part, _, rest = name.partition("/")
            if part == "model":
                model[rest] = tensor
            else:
                number, _, key = rest.partition("/")
                moments.setdefault(int(number), {})[key] = tensor
        self.module.load_state_dict(model)
        state = self.optimiser.state_dict()
        self.optimiser.load_state_dict({**state, "state": moments})


def decay_groups(module: nn.Module, lr: float, weight_decay: float) -> Groups:
    """Sort weights that learn: biases, norms and other 1-D ones do not decay."""
    learning = [p for p in module.parameters() if p.requires_grad]
    groups = []
    for flat in (False, True):
        chosen = [p for p in learning if (p.ndim <= 1) == flat]
        decay = 0.0 if flat else weight_decay
        groups.append({"params": chosen, "lr": lr, "weight_decay": decay})
    return [group for group in groups if group["params"]]


def chunk_for(device: torch.device, work: float) -> int:
    """Tell how many images are computed at a time.

    Parameters
    ----------
    work : float
        Multiply-adds of an image, forwards.
    """
    if device.type != "cpu":
        return 256
    return min(max(int(_CHUNK_WORK / max(work, 1.0)), 1), 64)


def to_images(
    pixels: Sequence[Any], device: torch.device, mean: Sequence[float], std: Any
) -> Tensor:
    """Scale images of uint8 (H, W, 3) to a batch (B, 3, H, W) of float32."""
    batch = torch.from_numpy(np.stack(list(pixels))).to(device, non_blocking=True)
    shape = (1, 3, 1, 1)
    middle = torch.tensor(mean, device=device).reshape(shape)
    spread = torch.tensor(std, device=device).reshape(shape)
    scaled: Tensor = (batch.permute(0, 3, 1, 2).float() / 255 - middle) / spread
    return scaled.contiguous()


def _key(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
