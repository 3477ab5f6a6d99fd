"""Trained aggregators on disk: safetensors, and a recipe that rebuilds the module."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from napari_mcm.core.errors import WeightsError
from napari_mcm.core.files import atomic_path, write_json
from napari_mcm.core.mil.bags import Origin
from napari_mcm.core.mil.config import AggregatorConfig
from napari_mcm.core.mil.models import Aggregator, make_aggregator

SCHEMA, VERSION = "napari-mcm/mil", 1
_MOST = 65_536


@dataclass(frozen=True, eq=False)
class SavedModel:
    """A trained aggregator.

    Attributes
    ----------
    model : Aggregator
        On the CPU, ready to score.
    config : AggregatorConfig
        Which one it is, settled.
    classes : tuple of str
        In the order of its scores.
    origin : Origin
        Of the features that it was trained on.
    fold : str
        Name of the fold whose test slides it has not seen.
    seed : int
        Of its training.
    """

    model: Aggregator
    config: AggregatorConfig
    classes: tuple[str, ...]
    origin: Origin
    fold: str
    seed: int


def save_model(
    folder: Path,
    weights: dict[str, Tensor],
    config: AggregatorConfig,
    classes: Sequence[str],
    origin: Origin,
    fold: str,
    seed: int,
) -> None:
    """Write ``model.safetensors`` and ``recipe.json`` into a folder."""
    ready = {name: t.detach().cpu().contiguous() for name, t in weights.items()}
    with atomic_path(folder / "model.safetensors") as part:
        save_file(ready, part)
    recipe = {
        "schema": SCHEMA,
        "version": VERSION,
        "aggregator": config.settled.model_dump(mode="json"),
        "classes": list(classes),
        "features": {
            "dim": origin.dim,
            "encoder": origin.encoder,
            "fingerprint": origin.fingerprint,
        },
        "fold": fold,
        "seed": seed,
    }
    write_json(folder / "recipe.json", recipe)


def load_model(folder: Path) -> SavedModel:
    """Load a trained aggregator.

    Raises
    ------
    WeightsError
        If it is missing, damaged, of another version, or its weights do not fit.
    """
    recipe = _read_recipe(folder / "recipe.json")
    file = folder / "model.safetensors"
    try:
        config = AggregatorConfig.model_validate(recipe["aggregator"])
        classes = tuple(str(name) for name in recipe["classes"])
        origin = Origin(
            int(recipe["features"]["dim"]),
            str(recipe["features"]["encoder"]),
            str(recipe["features"]["fingerprint"]),
        )
        fold, seed = str(recipe["fold"]), int(recipe["seed"])
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(
            f"is incomplete ({reason})", folder / "recipe.json"
        ) from None
    if not (1 <= origin.dim <= _MOST and 2 <= len(classes) <= _MOST):
        raise WeightsError("states impossible sizes", folder / "recipe.json")
    model = make_aggregator(config, origin.dim, len(classes))
    _load_weights(model, file)
    return SavedModel(model.eval(), config, classes, origin, fold, seed)


def _load_weights(model: Aggregator, file: Path) -> None:
    if not file.is_file():
        raise WeightsError("is missing", file, "Train again, or copy the whole run")
    try:
        weights = load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"is damaged ({error})", file) from error
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    found = {name: tensor.shape for name, tensor in weights.items()}
    if wanted != found:
        wrong = sorted(n for n in wanted | found if wanted.get(n) != found.get(n))
        raise WeightsError(
            f"does not fit its recipe.json (first at {wrong[0]})",
            file,
            "They belong to two trainings; copy the whole run",
        )
    model.load_state_dict(weights)


def _read_recipe(file: Path) -> dict[str, Any]:
    try:
        recipe = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot be read ({error})", file) from error
    if not isinstance(recipe, dict) or recipe.get("schema") != SCHEMA:
        raise WeightsError("is no slide classifier of napari-mcm", file)
    if recipe.get("version") != VERSION:
        raise WeightsError(
            f"has version {recipe.get('version')}, this program reads {VERSION}",
            file,
            "Update napari-mcm",
        )
    return recipe
