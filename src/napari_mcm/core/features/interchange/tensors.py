"""Bare tensors in ``.pt`` files: never unpickled, only numbers are taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.layout import LARGEST_FILE
from napari_mcm.core.files import atomic_path


def read_tensor(path: Path) -> NDArray[np.float32]:
    """Read a tensor of shape (N, D) or (1, N, D).

    Raises
    ------
    FeatureError
        If it is missing, holds anything but one such tensor, or code to be run.
    """
    import torch

    if not path.is_file():
        raise FeatureError("no such file", path)
    if path.stat().st_size > LARGEST_FILE:
        raise FeatureError("is larger than any slide's features", path)
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    # torch and pickle raise errors of many kinds for what is damaged or forbidden.
    except Exception as error:  # noqa: BLE001
        reason = str(error).split(".")[0]
        raise FeatureError(f"is no file of a bare tensor ({reason})", path) from error
    if not isinstance(found, torch.Tensor):
        raise FeatureError(f"holds a {type(found).__name__}, not a tensor", path)
    if found.ndim == 3 and found.shape[0] == 1:
        found = found[0]
    if found.ndim != 2 or not found.is_floating_point():
        raise FeatureError(f"is {found.dtype} of shape {tuple(found.shape)}", path)
    # A tensor can claim any shape over a few bytes, by strides of zero.
    if found.numel() > found.untyped_storage().nbytes():
        raise FeatureError("claims more numbers than it holds", path)
    return np.asarray(found.detach().float().numpy())


def write_tensor(values: NDArray[np.float32], path: Path) -> Path:
    """Write a bare tensor, as ``torch.load`` reads it."""
    import torch

    with atomic_path(path) as part:
        torch.save(torch.from_numpy(np.ascontiguousarray(values)), part)
    return path
