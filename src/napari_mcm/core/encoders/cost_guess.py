"""What an encoder costs per patch, from its name alone: no weights are read, no torch.

:mod:`.cost` counts; this is for an estimate beforehand. The cost of a ViT of width w and
depth d for n tokens follows from its shape, in multiply-adds::

    d · (12 w² n + 2 w n²) + 3 p² w n          blocks, and the patches of p × p pixels
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from napari_mcm.core.encoders.cost import stated_cost

_KNOWN = {
    "efficientnet_lite0": 383_907_552,
    "efficientnet_lite1": 501_187_680,
    "efficientnet_lite2": 575_229_424,
    "resnet18": 1_813_561_344,
    "resnet34": 3_663_249_408,
    "resnet50": 4_087_136_256,
}
"""Multiply-adds per patch of 224 px; convolutions scale with its area."""
_KNOWN_SIDE = 224

VIT_SHAPES = {"tiny": (192, 12), "small": (384, 12), "base": (768, 12)}
VIT_SHAPES |= {"large": (1024, 24), "huge": (1280, 32), "giant": (1536, 40)}
"""Width and depth of ViTs by the name of their size."""
_VIT = re.compile(r"vit_(\w+?)_patch(\d+)\D*(?:_(\d{3}))?")


def vit_multiply_adds(width: int, depth: int, tokens: float) -> float:
    """Return the multiply-adds of a ViT's blocks for one image.

    Parameters
    ----------
    width, depth : int
        Of the ViT; its MLPs are four times as wide.
    tokens : float
        Tokens that the blocks see, the class token included.

    Returns
    -------
    float
    """
    return float(depth * (12 * width**2 * tokens + 2 * width * tokens**2))


def guess_multiply_adds(spec: str, side: int = _KNOWN_SIDE) -> float | None:
    """Guess the multiply-adds of an encoder for one patch.

    Parameters
    ----------
    spec : str
        As :func:`~napari_mcm.core.encoders.load.load_encoder` takes it; a folder's recipe
        is read.
    side : int, optional
        Side of the patch in pixels.

    Returns
    -------
    float or None
        None for an encoder that is not known.
    """
    name = spec.removeprefix("offline:").removeprefix("random:")
    if name in _KNOWN:
        return _KNOWN[name] * (side / _KNOWN_SIDE) ** 2
    if (found := _VIT.search(name)) and found[1] in VIT_SHAPES:
        # A ViT resizes patches to its own input size.
        width, depth = VIT_SHAPES[found[1]]
        patch, own = int(found[2]), int(found[3] or _KNOWN_SIDE)
        tokens = (own // patch) ** 2
        embedding = 3 * patch**2 * width * tokens
        return vit_multiply_adds(width, depth, tokens + 1) + embedding
    return _stated(spec)


def _stated(spec: str) -> float | None:
    """Read the cost that the recipe of a run or an encoder's folder states."""
    for file in (Path(spec) / "encoder" / "recipe.json", Path(spec) / "recipe.json"):
        try:
            recipe = json.loads(file.read_text(encoding="utf-8"))
            cost = stated_cost(recipe)
            if cost is not None:
                return float(cost.multiply_adds)
            return guess_multiply_adds(str(recipe["architecture"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
    return None
