"""The noun `Encoder`: a timm model, its preprocessing, and what its weights are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_mcm.core.encoders.fold import fold_batch_norms
from napari_mcm.core.errors import WeightsError

CPU_CHUNK = 16
"""Patches that a CPU encodes at once; larger batches are no faster there."""


@dataclass(frozen=True, eq=False)
class Encoder:
    """A patch encoder. Made by :func:`load_encoder`.

    Attributes
    ----------
    module : torch.nn.Module
        timm model without a classifier: images (B, 3, H, W) to features (B, dim).
    architecture : str
        timm's name of the model.
    spec : str
        What the user asked for.
    dim : int
        Length of a feature vector.
    mean, std : tuple of float
        Normalisation of the weights' own configuration, for pixels from 0 to 1.
    input_size : int or None
        Side of the only images it takes; None where any size will do.
    recipe : mapping
        Where the weights come from and how they are used, ready for JSON.
    fingerprint : str
        A hash of weights and preprocessing as loaded, 16 hex digits.
    device, dtype
        Where and in what it computes.
    """

    module: nn.Module
    architecture: str
    spec: str
    dim: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    input_size: int | None
    recipe: dict[str, Any]
    fingerprint: str
    device: torch.device
    dtype: torch.dtype

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How pixels become the model's input, ready for JSON."""
        return {
            "mean": list(self.mean),
            "std": list(self.std),
            "input_size": self.input_size,
        }

    @property
    def precision(self) -> str:
        """``float32`` or ``bfloat16``."""
        return str(self.dtype).removeprefix("torch.")

    def describe(self) -> dict[str, Any]:
        """Give what a feature file records of its encoder."""
        return {
            "spec": self.spec,
            "architecture": self.architecture,
            "dim": self.dim,
            "fingerprint": self.fingerprint,
            "precision": self.precision,
            **self.preprocessing,
            "recipe": self.recipe,
        }

    def normalise(self, pixels: Tensor) -> Tensor:
        """Turn pixels into the model's input.

        Parameters
        ----------
        pixels : Tensor of uint8, shape (B, H, W, 3)

        Returns
        -------
        Tensor of float32, shape (B, 3, H, W)
            On the encoder's device, channels last in memory; resized only where the
            model takes one size alone.
        """
        images = pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float()
        mean = torch.tensor(self.mean, device=self.device).view(1, 3, 1, 1) * 255
        std = torch.tensor(self.std, device=self.device).view(1, 3, 1, 1) * 255
        images = (images - mean) / std
        size = self.input_size
        if size is not None and images.shape[-2:] != (size, size):
            images = F.interpolate(
                images,
                (size, size),
                mode="bicubic",
                antialias=True,
                align_corners=False,
            )
        return images.contiguous(memory_format=torch.channels_last)

    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute features of patches.

        Parameters
        ----------
        pixels : ndarray of uint8, shape (B, H, W, 3)

        Returns
        -------
        ndarray of float32, shape (B, dim)
            A patch's features do not depend on the batch that it came in.

        Raises
        ------
        WeightsError
            If the model gives numbers that are not finite.
        """
        patches = torch.from_numpy(np.ascontiguousarray(pixels))
        step = CPU_CHUNK if self.device.type == "cpu" else max(len(patches), 1)
        with torch.inference_mode():
            parts = [self._forward(p, step) for p in patches.split(step)]
        features = torch.cat(parts) if parts else torch.empty(0, self.dim)
        if not bool(torch.isfinite(features).all()):
            raise WeightsError("gives features that are not finite", self.spec)
        return np.asarray(features.numpy(), np.float32)

    def _forward(self, patches: Tensor, size: int) -> Tensor:
        # Kernels are chosen by the batch's size, and round differently: a CPU always
        # gets the same, so that the same patch gives the same bits.
        missing = size - len(patches) if self.device.type == "cpu" else 0
        padded = F.pad(patches, (0, 0, 0, 0, 0, 0, 0, missing)) if missing else patches
        mixed = self.dtype != torch.float32
        with torch.autocast(self.device.type, self.dtype, enabled=mixed):
            features = self._for_inference(self.normalise(padded))
        return features[: len(patches)].float().cpu()

    @cached_property
    def _for_inference(self) -> nn.Module:
        """The model for encoding: a copy, so that training the module changes nothing."""
        return fold_batch_norms(self.module).to(memory_format=torch.channels_last)
