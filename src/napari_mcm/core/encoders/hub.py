"""Weights by timm's names, from the hub or from its local cache."""

from __future__ import annotations

import difflib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import timm
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from timm.models import load_model_config_from_hf
from torch import nn

from napari_mcm.core.encoders.offline import OFFLINE, PREFIX
from napari_mcm.core.errors import WeightsError

HUB_PREFIXES = ("hf-hub:", "hf_hub:")
OFFLINE_HINT = (
    f"Without a network use {PREFIX}{OFFLINE[0]} (pip install 'napari-mcm[offline]'), "
    "a fine-tuned run's folder, or a .safetensors file with its recipe.json"
)
_PROBE_SECONDS = 5.0


def load_pretrained(name: str) -> tuple[nn.Module, dict[str, Any]]:
    """Build a timm model with its pretrained weights.

    Parameters
    ----------
    name : str
        ``resnet18``, ``vit_small_patch16_224.augreg_in21k``, ``hf-hub:org/name``.

    Returns
    -------
    nn.Module
        Without classifier.
    dict
        Where the weights are from, their licence, and arguments of the model.

    Raises
    ------
    WeightsError
        If there is no such model, or its weights cannot be fetched or loaded.
    """
    _check_name(name)
    try:
        with _offline_if_unreachable():
            arguments = _arguments(name)
            module = timm.create_model(name, pretrained=True, num_classes=0)
    except GatedRepoError as error:
        raise WeightsError(
            "its licence must be accepted before its weights can be fetched",
            name,
            "Ask for access on the model's page, then run: hf auth login",
        ) from error
    except RepositoryNotFoundError as error:
        raise WeightsError(
            "the hub has no such model, or shows it only to who may see it",
            name,
            "Check the name, or log in with: hf auth login",
        ) from error
    except OSError as error:
        raise WeightsError(
            "weights are not on this computer and cannot be fetched", name, OFFLINE_HINT
        ) from error
    # timm and checkpoints fail in many ways of their own; to the user all are one.
    except Exception as error:  # noqa: BLE001
        reason = str(error).strip().split("\n")[0]
        raise WeightsError(f"weights cannot be loaded ({reason})", name) from error
    licence = pretrained_config(module).get("license")
    return module, {"weights": name, "license": licence, "model_args": arguments}


def is_timm_name(name: str) -> bool:
    """Tell whether timm builds models of that name, or fetches them from the hub."""
    return name.startswith(HUB_PREFIXES) or timm.is_model(name.partition(".")[0])


def _check_name(name: str) -> None:
    if is_timm_name(name):
        return
    similar = difflib.get_close_matches(name, timm.list_models(), 3)
    hint = f"Did you mean {' or '.join(similar)}? " if similar else ""
    raise WeightsError(
        "is neither a model that timm knows, nor a file or folder that exists",
        name,
        hint + OFFLINE_HINT,
    )


def pretrained_config(module: nn.Module) -> dict[str, Any]:
    """Give what timm says of a model's weights."""
    config: Any = module.pretrained_cfg
    return dict(config)


def _arguments(name: str) -> dict[str, Any]:
    if not name.startswith(HUB_PREFIXES):
        return {}
    return dict(load_model_config_from_hf(name.partition(":")[2])[2] or {})


@contextmanager
def _offline_if_unreachable() -> Iterator[None]:
    """Spare the user a minute of retries where there is no network."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _reachable()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _reachable() -> bool:
    if getproxies():
        return True
    parts = urlsplit(constants.ENDPOINT)
    port = parts.port or (80 if parts.scheme == "http" else 443)
    try:
        with socket.create_connection((parts.hostname, port), _PROBE_SECONDS):
            return True
    except OSError:
        return False
