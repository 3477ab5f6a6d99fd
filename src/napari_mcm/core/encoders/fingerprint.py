"""Telling encoders apart by what they compute."""

from __future__ import annotations

import hashlib
import json

import torch
from torch import nn

from napari_mcm.core.encoders.recipe import Recipe


def fingerprint(module: nn.Module, recipe: Recipe) -> str:
    """Hash an encoder's weights, architecture and preprocessing.

    Where the weights came from, their licence and how they were learned do not count:
    two copies of the same weights are the same encoder.

    Returns
    -------
    str
        16 hex digits.
    """
    what = recipe.model_dump(
        mode="json", include={"architecture", "model_args", "preprocessing"}
    )
    digest = hashlib.blake2b(json.dumps(what, sort_keys=True).encode(), digest_size=8)
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        # Plain bytes, as numpy has no bfloat16.
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(flat.numpy().data)
    return digest.hexdigest()
