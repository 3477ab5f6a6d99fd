"""Encoders on disk: safetensors in timm's naming, with a recipe and a model card."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from napari_mcm.core.errors import WeightsError
from napari_mcm.core.files import atomic_path, write_json, write_text

WEIGHTS, RECIPE, CARD = "model.safetensors", "recipe.json", "README.md"

Triple = tuple[float, float, float]


class Recipe(BaseModel):
    """What it takes to use an encoder's weights. Further keys are provenance."""

    model_config = ConfigDict(extra="allow", frozen=True)

    architecture: str = Field(pattern=r"^[\w./-]+$", max_length=200)
    mean: Triple
    std: Triple
    input_size: int | None = Field(None, ge=8, le=8192)
    model_args: dict[str, Any] = Field(default_factory=dict)


def save_encoder(
    folder: Path, module: nn.Module, recipe: Mapping[str, Any], card: str
) -> Path:
    """Write an encoder so that timm alone can load it.

    Parameters
    ----------
    folder : Path
        Gets ``model.safetensors``, ``recipe.json`` and ``README.md``; the weights come
        last, so that a folder with weights is complete.
    module : torch.nn.Module
        A timm model without a classifier.
    recipe : mapping
        At least what :class:`Recipe` asks for.
    card : str
        The model card, as Markdown.

    Returns
    -------
    Path
        The folder.
    """
    Recipe.model_validate(dict(recipe))
    folder = Path(folder)
    write_json(folder / RECIPE, dict(recipe))
    write_text(folder / CARD, card)
    state = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in module.state_dict().items()
    }
    with atomic_path(folder / WEIGHTS) as part:
        save_file(state, part, metadata={"format": "pt"})
    return folder


def read_recipe(file: Path) -> tuple[Recipe, dict[str, Any]]:
    """Read a recipe from a file that may come from anywhere.

    Raises
    ------
    WeightsError
        If it is missing or says too little.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return Recipe.model_validate(content), content
    except OSError as error:
        raise WeightsError(
            f"cannot be read ({error.strerror})",
            file,
            "A safetensors file needs its recipe.json beside it",
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise WeightsError(f"{name}: {first['msg']}", file) from None
    except ValueError as error:
        raise WeightsError(f"is not JSON ({error})", file) from None


def load_weights(module: nn.Module, file: Path) -> None:
    """Load a safetensors file into a model, name by name.

    Raises
    ------
    WeightsError
        If it is missing, damaged, or of another model.
    """
    try:
        state = load_file(file)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot be read ({error})", file) from None
    load_state(module, state, file)


def load_state(
    module: nn.Module, state: Mapping[str, torch.Tensor], where: object
) -> None:
    """Load weights into a model; every name and shape has to fit."""
    try:
        module.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:3]]
        raise WeightsError(
            f"does not fit the model: {' '.join(lines)[:300]}", where
        ) from None


def fingerprint(module: nn.Module, recipe: Recipe) -> str:
    """Hash a model's weights and preprocessing, 16 hex digits."""
    digest = hashlib.blake2b(digest_size=8)
    used = recipe.model_dump(include={"architecture", "mean", "std", "input_size"})
    digest.update(json.dumps(used, sort_keys=True).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(memoryview(flat.view(torch.uint8).numpy()))
    return digest.hexdigest()
