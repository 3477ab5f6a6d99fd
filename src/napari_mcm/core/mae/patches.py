"""Patches of images as tokens: cutting, masking, statistics, position embeddings.

An image (B, 3, H, W) becomes N = (H / p)² patches of p·p·3 values, in row-major order.
The fixed 2-D position embedding concatenates sines and cosines of column c and row r::

    p(c, r) = [ sin(c ω), cos(c ω), sin(r ω), cos(r ω) ],   ω_k = 10000^(-k / (width / 4))
"""

from __future__ import annotations

import torch
from torch import Tensor

PATCH_EPS = 1e-6
"""Added to a patch's variance before its root is taken."""


def kept_count(patches: int, mask_ratio: float) -> int:
    """Return how many of an image's patches stay visible.

    Parameters
    ----------
    patches : int
        Number of patches in an image.
    mask_ratio : float
        Fraction to hide.

    Returns
    -------
    int
        At least 1; at least one patch is hidden.
    """
    # The encoder needs a token, and the loss a hidden patch.
    return min(max(int(patches * (1 - mask_ratio)), 1), patches - 1)


def take(tokens: Tensor, index: Tensor) -> Tensor:
    """Pick tokens by their places.

    Parameters
    ----------
    tokens : Tensor, shape (B, N, D)
        Tokens.
    index : Tensor of int64, shape (B, K)
        Places.

    Returns
    -------
    Tensor, shape (B, K, D)
        The tokens at these places.
    """
    # (B, N, D), (B, K) -> (B, K, D)
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def hidden_mask(order: Tensor, kept: int) -> Tensor:
    """Mark hidden patches with 1.

    Parameters
    ----------
    order : Tensor of int64, shape (B, N)
        Patches in random order; the first `kept` are visible.
    kept : int
        Number of visible patches.

    Returns
    -------
    Tensor of float32, shape (B, N)
        In row-major order of the patches.
    """
    mask = torch.ones(order.shape, device=order.device)  # (B, N)
    return mask.scatter(1, order[:, :kept], 0.0)


def patchify(images: Tensor, patch: int) -> Tensor:
    """Divide images into patches.

    Parameters
    ----------
    images : Tensor, shape (B, 3, H, W)
        Images.
    patch : int
        Side of a patch, in pixels; divides H and W.

    Returns
    -------
    Tensor, shape (B, N, patch·patch·3)
        Patches in row-major order; values by row, column, channel.
    """
    batch, channels, height, width = images.shape
    # (B, C, rows, p, columns, p)
    parts = images.reshape(
        batch, channels, height // patch, patch, width // patch, patch
    )
    # -> (B, rows, columns, p, p, C) -> (B, N, p·p·C)
    return parts.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, patch * patch * channels)


def unpatchify(patches: Tensor, patch: int) -> Tensor:
    """Put the patches of square images together, the inverse of :func:`patchify`.

    Parameters
    ----------
    patches : Tensor, shape (B, N, patch·patch·3)
        Patches in row-major order.
    patch : int
        Side of a patch, in pixels.

    Returns
    -------
    Tensor, shape (B, 3, H, H)
        Images.
    """
    batch, count, values = patches.shape
    side, channels = round(count**0.5), values // patch**2
    # (B, N, p·p·C) -> (B, rows, columns, p, p, C) -> (B, C, H, W)
    parts = patches.reshape(batch, side, side, patch, patch, channels)
    return parts.permute(0, 5, 1, 3, 2, 4).reshape(
        batch, channels, side * patch, side * patch
    )


def patch_statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Return each patch's mean and standard deviation.

    Parameters
    ----------
    patches : Tensor, shape (B, N, V)
        Patches.

    Returns
    -------
    mean, std : Tensor, shape (B, N, 1)
        Over the values of a patch; the root of the unbiased variance plus 1e-6.
    """
    mean = patches.mean(dim=-1, keepdim=True)
    # Unbiased, as in the authors' code.
    variance = patches.var(dim=-1, keepdim=True)
    return mean, (variance + PATCH_EPS).sqrt()


def grid_positions(side: int, width: int) -> Tensor:
    """Compute fixed position embeddings of a square of patches.

    Half of the width encodes the column and half the row, each by sines and cosines of
    wavelengths from 2π to 10000·2π (He et al., CVPR 2022, appendix A.1).

    Parameters
    ----------
    side : int
        Patches per side of the square.
    width : int
        Length of an embedding, a multiple of 4.

    Returns
    -------
    Tensor, shape (side·side, width)
        Row-major; none is zero, and no two are the same.
    """
    # float64, as in the authors' code: rounded only once, at the end.
    frequency = 10_000.0 ** -(
        torch.arange(width // 4, dtype=torch.float64) / (width // 4)
    )
    angle = torch.arange(side, dtype=torch.float64)[:, None] * frequency
    wave = torch.cat([angle.sin(), angle.cos()], dim=1)  # (side, width / 2)
    column = wave[None].expand(side, side, -1)
    row = wave[:, None].expand(side, side, -1)
    return torch.cat([column, row], dim=2).reshape(side * side, width).float()


def with_class_token(positions: Tensor) -> Tensor:
    """Put a zero position for the class token before the positions of the patches.

    Parameters
    ----------
    positions : Tensor, shape (N, width)
        Positions of the patches.

    Returns
    -------
    Tensor, shape (1, 1 + N, width)
        With a leading batch axis.
    """
    return torch.cat([torch.zeros_like(positions[:1]), positions])[None]
