"""Loading an encoder from what a user names."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import timm
import torch
from huggingface_hub import constants
from timm.data import resolve_model_data_config
from torch import nn

from napari_mcm.core.encoders.compute import (
    ComputeConfig,
    resolve_device,
    resolve_dtype,
)
from napari_mcm.core.encoders.encoder import Encoder
from napari_mcm.core.encoders.offline import OFFLINE, read_offline
from napari_mcm.core.encoders.recipe import (
    RECIPE,
    WEIGHTS,
    Recipe,
    fingerprint,
    load_state,
    load_weights,
    read_recipe,
)
from napari_mcm.core.errors import WeightsError

_Loaded = tuple[nn.Module, dict[str, Any]]


def load_encoder(spec: str | Path, compute: ComputeConfig | None = None) -> Encoder:
    """Load a patch encoder.

    Parameters
    ----------
    spec : str or Path
        A timm name (``resnet18``, ``hf-hub:org/model``), packaged weights
        (``offline:efficientnet_lite0``), a fine-tuned run's directory, an encoder's
        directory, a safetensors file with its recipe beside it, or random weights for
        measuring speed (``random:resnet18``).
    compute : ComputeConfig, optional
        Device and precision.

    Returns
    -------
    Encoder
        In evaluation mode, on its device.

    Raises
    ------
    WeightsError
        If there is no such encoder, or its weights are damaged or cannot be had.
    """
    compute = compute or ComputeConfig()
    device = resolve_device(compute)
    module, content = _load(str(spec))
    recipe = Recipe.model_validate(content)
    module = module.eval().to(device, memory_format=torch.channels_last)
    return Encoder(
        module=module,
        architecture=recipe.architecture,
        spec=str(spec),
        dim=int(module.num_features),
        mean=recipe.mean,
        std=recipe.std,
        input_size=recipe.input_size,
        recipe=content,
        fingerprint=fingerprint(module, recipe),
        device=device,
        dtype=resolve_dtype(compute, device),
    )


def _load(spec: str) -> _Loaded:
    kind, _, name = spec.partition(":")
    known: dict[str, Callable[[str], _Loaded]] = {
        "offline": _load_offline,
        "random": _load_random,
    }
    if kind in known and name:
        return known[kind](name)
    path = Path(spec).expanduser()
    if path.exists() or path.suffix == ".safetensors" or os.sep in spec.rstrip(os.sep):
        if kind != "hf-hub":
            return _load_file(path)
    return _load_timm(spec)


def _load_timm(name: str) -> _Loaded:
    if not name.startswith("hf-hub:") and not timm.is_model(name):
        close = timm.list_models(f"*{name.split('.')[0][:12]}*")[:4]
        hint = f"Did you mean {', '.join(close)}?" if close else "See timm's model list"
        raise WeightsError(
            "is neither a timm model nor a file or directory", name, hint
        )
    try:
        with _no_long_wait_without_network():
            module = timm.create_model(name, pretrained=True, num_classes=0)
    # Hubs and networks fail in many ways; all mean that the weights are out of reach.
    except Exception as error:  # noqa: BLE001
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise WeightsError(
            f"its weights cannot be had ({reason})",
            name,
            "Without a network use offline:efficientnet_lite0, a run directory or a "
            "safetensors file",
        ) from None
    config = module.pretrained_cfg
    return module, _recipe(
        name.removeprefix("hf-hub:").split("/")[-1]
        if name.startswith("hf-hub:") and timm.is_model(name.split("/")[-1])
        else config.get("architecture") or name.split(".")[0],
        module,
        source=f"timm: {name}",
        license=config.get("license"),
        hub=config.get("hf_hub_id"),
    )


@contextmanager
def _no_long_wait_without_network() -> Iterator[None]:
    """Tell the hub's client at once that there is no network, where there is none.

    By itself it tries again for most of a minute before it looks into its cache.
    """
    before = constants.HF_HUB_OFFLINE
    host = urlsplit(constants.ENDPOINT).hostname or ""
    try:
        if not before and not getproxies():
            socket.getaddrinfo(host, 443)
    except OSError:
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _load_random(name: str) -> _Loaded:
    if not timm.is_model(name):
        raise WeightsError("is no timm model", name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = timm.create_model(name, pretrained=False, num_classes=0)
    return module, _recipe(name, module, source="random weights, seed 0")


def _load_offline(name: str) -> _Loaded:
    if name not in OFFLINE:
        raise WeightsError(
            "is not among the packaged encoders",
            f"offline:{name}",
            f"There are {', '.join(OFFLINE)}",
        )
    architecture, package = OFFLINE[name]
    module = timm.create_model(architecture, pretrained=False)
    load_state(module, read_offline(name, module), package)
    module.reset_classifier(0)
    return module, _recipe(
        architecture, module, source=f"package {package}", license="apache-2.0"
    )


def _load_file(path: Path) -> _Loaded:
    file = _weights_in(path)
    recipe, content = read_recipe(file.with_name(RECIPE))
    if not timm.is_model(recipe.architecture):
        raise WeightsError(
            f"its model {recipe.architecture} is unknown to timm {timm.__version__}",
            file,
            "Update timm",
        )
    try:
        module = timm.create_model(
            recipe.architecture, pretrained=False, num_classes=0, **recipe.model_args
        )
    except (TypeError, RuntimeError, ValueError) as error:
        raise WeightsError(f"its recipe makes no model ({error})", file) from None
    load_weights(module, file)
    return module, content


def _weights_in(path: Path) -> Path:
    """Find the weights in a run, in an encoder's directory, or take the file itself."""
    if path.is_file():
        if path.suffix != ".safetensors":
            raise WeightsError(
                "is not a safetensors file",
                path,
                "Other formats can carry code and are not read",
            )
        return path
    if not path.exists():
        raise WeightsError("no such file or directory", path)
    for folder in (path / "encoder", path):
        if (folder / WEIGHTS).is_file():
            return folder / WEIGHTS
    raise WeightsError(
        "holds no encoder", path, "Is it a run that is not finished? Resume it first"
    )


def _recipe(architecture: str, module: nn.Module, **provenance: Any) -> dict[str, Any]:
    """Describe a model by its weights' own configuration."""
    config = resolve_model_data_config(module)
    return {
        "architecture": architecture,
        "mean": list(config["mean"]),
        "std": list(config["std"]),
        # Convolutional networks take any size: patches go in as they are.
        "input_size": config["input_size"][-1] if _takes_one_size(module) else None,
        **provenance,
    }


def _takes_one_size(module: nn.Module) -> bool:
    return bool(
        hasattr(module, "patch_embed")
        or module.pretrained_cfg.get("fixed_input_size", False)
    )
