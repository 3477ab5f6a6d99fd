"""The recipe, a file beside weights from which an encoder can be built again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from napari_mcm.core.errors import WeightsError

RECIPE_FILE = "recipe.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"

_LARGEST_RECIPE = 2**22
_Rgb = tuple[float, float, float]
_Argument = bool | int | float | str | list[int | float | str] | None

# Arguments of timm's factory that make it read other files than the weights.
_NOT_OF_THE_MODEL = ("pretrained", "checkpoint", "cache", "in_chans", "num_classes")


class Preprocessing(BaseModel):
    """Convert pixels to the input that the weights were trained on."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    mean: _Rgb = Field(description="Mean of each channel, of pixels from 0 to 1.")
    std: _Rgb = Field(
        description="Standard deviation of each channel, of pixels from 0 to 1."
    )
    input_size: int | None = Field(
        None, ge=8, le=4096, description="Side that patches are resized to, in pixels."
    )
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"

    @field_validator("std")
    @classmethod
    def _positive(cls, std: _Rgb) -> _Rgb:
        if min(std) <= 0:
            raise ValueError("std must be positive")
        return std


class Recipe(BaseModel):
    """Architecture, preprocessing and origin of an encoder's weights.

    Further entries, such as the summary of a fine-tuning, are kept unchanged.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    architecture: str = Field(pattern=r"^[a-zA-Z0-9_]+$")
    model_args: dict[str, _Argument] = {}
    preprocessing: Preprocessing
    weights: str = ""
    license: str | None = None

    @field_validator("model_args")
    @classmethod
    def _only_the_model(cls, arguments: dict[str, _Argument]) -> dict[str, _Argument]:
        for name in arguments:
            if name.startswith(_NOT_OF_THE_MODEL):
                raise ValueError(f"'{name}' is not an argument of a model")
        return arguments

    def plain(self) -> dict[str, Any]:
        """Return the recipe as JSON types.

        Returns
        -------
        dict
            What ``recipe.json`` holds.
        """
        return self.model_dump(mode="json")


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe from a file.

    Parameters
    ----------
    path : Path
        A ``recipe.json``.

    Returns
    -------
    Recipe
        The checked recipe.

    Raises
    ------
    WeightsError
        If the file is missing, too large, or lacks a required entry.
    """
    if not path.is_file():
        raise WeightsError(
            "there is no recipe.json beside these weights",
            path.parent,
            "It states architecture and preprocessing; the docs describe its format",
        )
    try:
        # A recipe comes with downloaded weights: nothing in it is trusted.
        if path.stat().st_size > _LARGEST_RECIPE:
            raise WeightsError("is not a valid recipe (too large)", path)
        return Recipe.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"])
        raise WeightsError(
            f"is not a valid recipe ({at}: {first['msg']})", path
        ) from error
    except OSError as error:
        raise WeightsError(
            f"cannot be read ({error.strerror or error})",
            path,
            "Check its permissions",
        ) from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"is not a valid recipe ({error})", path) from error
