"""Which patches are hidden, and taking an image apart into patches."""

from __future__ import annotations

import torch
from torch import Tensor

PATCH_EPS = 1e-6
"""Added to a patch's variance before its root is taken."""


def kept_count(patches: int, mask_ratio: float) -> int:
    """Tell how many of an image's patches stay visible; one at least, and one hidden."""
    return min(max(int(patches * (1 - mask_ratio)), 1), patches - 1)


def take(tokens: Tensor, index: Tensor) -> Tensor:
    """Pick tokens (B, N, D) by their places (B, K)."""
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def hidden_mask(order: Tensor, kept: int) -> Tensor:
    """Mark hidden patches with 1.

    Parameters
    ----------
    order : Tensor of int64, shape (B, N)
        Patches in random order; the first `kept` are visible.

    Returns
    -------
    Tensor of float32, shape (B, N)
        In the patches' own order.
    """
    mask = torch.ones(order.shape, device=order.device)
    return mask.scatter(1, order[:, :kept], 0.0)


def patchify(images: Tensor, patch: int) -> Tensor:
    """Take images (B, 3, H, W) apart into patches (B, N, patch·patch·3), row-major."""
    batch, channels, height, width = images.shape
    parts = images.reshape(
        batch, channels, height // patch, patch, width // patch, patch
    )
    return parts.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, patch * patch * channels)


def unpatchify(patches: Tensor, patch: int) -> Tensor:
    """Put patches (B, N, patch·patch·3) of square images together again."""
    batch, count, values = patches.shape
    side, channels = round(count**0.5), values // patch**2
    parts = patches.reshape(batch, side, side, patch, patch, channels)
    return parts.permute(0, 5, 1, 3, 2, 4).reshape(
        batch, channels, side * patch, side * patch
    )


def patch_statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Give each patch's mean and standard deviation (B, N, 1), of unbiased variance."""
    mean = patches.mean(dim=-1, keepdim=True)
    variance = patches.var(dim=-1, keepdim=True)
    return mean, (variance + PATCH_EPS).sqrt()
