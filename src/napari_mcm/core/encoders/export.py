"""Writing an encoder so that timm alone can load it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import nn

from napari_mcm.core.encoders.recipe import (
    CARD_FILE,
    RECIPE_FILE,
    WEIGHTS_FILE,
    Recipe,
)
from napari_mcm.core.errors import WeightsError
from napari_mcm.core.files import atomic_path, write_json, write_text


def save_encoder(
    folder: Path, module: nn.Module, recipe: Mapping[str, Any], card: str
) -> Path:
    """Write an encoder's weights, recipe and model card.

    ``timm.create_model(recipe["architecture"], num_classes=0)`` with
    ``load_state_dict`` loads the result without this package.

    Parameters
    ----------
    folder : Path
        Gets ``model.safetensors``, ``recipe.json`` and ``README.md``.
    module : nn.Module
        A timm model.
    recipe : mapping
        As :attr:`Encoder.recipe`; further entries are kept.
    card : str
        The model card, Markdown.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    WeightsError
        If the recipe does not say what is needed to load the weights.
    """
    try:
        checked = Recipe.model_validate(dict(recipe))
    except ValidationError as error:
        raise WeightsError(
            f"recipe is incomplete ({error.errors()[0]['msg']})"
        ) from None
    # Weights that are shared or strided in a training's way are written as plain ones.
    state = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in module.state_dict().items()
    }
    folder = Path(folder)
    with atomic_path(folder / WEIGHTS_FILE) as part:
        save_file(state, part, metadata={"format": "pt"})
    write_text(folder / CARD_FILE, card)
    # The recipe last: a folder with a recipe is whole.
    write_json(folder / RECIPE_FILE, checked.plain())
    return folder
