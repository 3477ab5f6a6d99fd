"""Fixed positions of patches: sines and cosines in two dimensions."""

from __future__ import annotations

import torch
from torch import Tensor


def grid_positions(side: int, width: int) -> Tensor:
    """Make the position embeddings of a square of patches.

    Half of the width tells the column, half the row, each by sines and cosines of
    wavelengths from 2π to 10000·2π (He et al., CVPR 2022, appendix A.1).

    Parameters
    ----------
    side : int
        Patches along the square's side.
    width : int
        Length of an embedding; a multiple of 4.

    Returns
    -------
    Tensor, shape (side·side, width)
        Row-major; none is zero, and no two are the same.
    """
    frequency = 10_000.0 ** -(
        torch.arange(width // 4, dtype=torch.float64) / (width // 4)
    )
    angle = torch.arange(side, dtype=torch.float64)[:, None] * frequency
    wave = torch.cat([angle.sin(), angle.cos()], dim=1)
    column = wave[None].expand(side, side, -1)
    row = wave[:, None].expand(side, side, -1)
    return torch.cat([column, row], dim=2).reshape(side * side, width).float()


def with_class_token(positions: Tensor) -> Tensor:
    """Put the class token's position, which is nowhere, before those of the patches.

    Returns
    -------
    Tensor, shape (1, 1 + N, width)
    """
    return torch.cat([torch.zeros_like(positions[:1]), positions])[None]
