"""The format of feature files as a JSON Schema, the one source of what is valid."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from napari_mcm.core.errors import FeatureError

FILE = "features.schema.json"
_LONGEST = 120


@cache
def load_schema() -> dict[str, Any]:
    """Give the schema (draft 2020-12) that is installed with this package."""
    text = files("napari_mcm.core.features").joinpath(FILE).read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def read_metadata(path: Path) -> dict[str, Any]:
    """Read what the schema is about: attributes, and each array's metadata.

    Parameters
    ----------
    path : Path
        The feature file.

    Returns
    -------
    dict
        ``attributes``, and ``arrays`` by their names.

    Raises
    ------
    FeatureError
        If metadata cannot be read, saying which.
    """
    names = sorted(part.parent.name for part in path.glob("*/zarr.json"))
    return {
        "attributes": _read(path, "zarr.json").get("attributes", {}),
        "arrays": {name: _read(path, f"{name}/zarr.json") for name in names},
    }


def check_metadata(metadata: Mapping[str, Any]) -> None:
    """Check what :func:`read_metadata` gives against the schema.

    Raises
    ------
    FeatureError
        If it does not fit, with the first place where it does not.
    """
    # It takes a while to import, and nothing but a verification needs it.
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    worst = best_match(Draft202012Validator(load_schema()).iter_errors(metadata))
    if worst is not None:
        said = worst.message
        if len(said) > _LONGEST:
            said = f"{said[:_LONGEST]}..."
        place = ".".join(map(str, worst.absolute_path))
        raise FeatureError(f"{place}: {said}" if place else said)


def _read(path: Path, name: str) -> dict[str, Any]:
    try:
        text = (path / name).read_text(encoding="utf-8")
        content = json.loads(text, parse_constant=_refuse)
    except FileNotFoundError as error:
        raise FeatureError(f"{name} is missing") from error
    except (ValueError, RecursionError) as error:
        raise FeatureError(f"{name} is no JSON") from error
    if not isinstance(content, dict):
        raise FeatureError(f"{name} is no JSON object")
    return content


def _refuse(constant: str) -> None:
    """Take no NaN: it is no JSON, and would be within any bounds."""
    raise ValueError(constant)
