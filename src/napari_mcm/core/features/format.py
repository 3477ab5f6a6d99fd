"""What is in a feature file: names, kinds, identity, and what its errors are called.

:mod:`.store` writes such files, :mod:`.reading` reads them, :mod:`.verify` checks them.
``docs/feature-format.md`` describes the format, ``features.schema.json`` states it.
"""

from __future__ import annotations

import glob
import json
import math
import re
from collections.abc import Mapping
from functools import cache
from hashlib import blake2b
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import zarr

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.feature_set import Status
from napari_mcm.core.features.patches import MEASURES
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.slides import Slide

SCHEMA, VERSION = "napari-mcm/features", 1

SUFFIX = ".features.zarr"

MOST_PROBLEMS = 100

LARGEST_FILE = 64 * 2**30
"""Bytes of arrays beyond which a file is taken to be damaged and not read."""


class Array(NamedTuple):
    """What an array of a feature file is like; the first dimension is the patch."""

    dtype: str
    dims: tuple[str, ...]
    fill: float


ARRAYS = {
    "coords": Array("int64", ("patch", "xy"), 0),
    "lattice": Array("int32", ("patch", "row_column"), 0),
    "features": Array("float32", ("patch", "feature"), math.nan),
    "status": Array("uint8", ("patch",), Status.PENDING),
}

OPTIONAL = dict.fromkeys(MEASURES, Array("float32", ("patch",), math.nan))


def feature_path(out: Path, slide: Slide) -> Path:
    """Name the feature file of a slide in a folder."""
    return Path(out) / f"{slide.name}{SUFFIX}"


def beside_path(path: Path, grid: PatchGrid, encoder: Mapping[str, Any]) -> Path:
    """Name the file that goes beside one of the same slide that was made otherwise.

    Returns
    -------
    Path
        ``<slide>.<first 8 hex digits of the identity's hash>.features.zarr``.
    """
    text = json.dumps(identity_of(grid, encoder), sort_keys=True)
    digest = blake2b(text.encode(), digest_size=4).hexdigest()
    return path.with_name(f"{path.name.removesuffix(SUFFIX)}.{digest}{SUFFIX}")


def place_of(path: Path, grid: PatchGrid, encoder: Mapping[str, Any]) -> Path:
    """Name the file to write: this one, or one beside it if it was made otherwise."""
    there = attributes_of(path).get("identity")
    if not isinstance(there, Mapping) or there == identity_of(grid, encoder):
        return path
    return beside_path(path, grid, encoder)


def files_of(path: Path) -> list[Path]:
    """List the feature files of a slide: that of the plain name, then those beside it."""
    name = path.name.removesuffix(SUFFIX)
    others = path.parent.glob(f"{glob.escape(name)}.{'[0-9a-f]' * 8}{SUFFIX}")
    return [path, *sorted(others)]


def slide_of(path: Path) -> str:
    """Tell by its name of which slide a feature file is, also of one beside another."""
    name = path.name.removesuffix(SUFFIX)
    plain, _, digest = name.rpartition(".")
    if not (plain and re.fullmatch("[0-9a-f]{8}", digest)):
        return name
    # A slide may be called like that itself.
    try:
        stated = attributes_of(path)["grid"]["slide"]["name"]
    except (KeyError, TypeError):
        return name
    return plain if stated == plain else name


def attributes_of(path: Path) -> Mapping[str, Any]:
    """Read what a feature file says of itself; nothing where it says nothing."""
    try:
        content = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
        found: Any = content["attributes"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, Mapping) else {}


def present(group: zarr.Group) -> dict[str, Array]:
    """Name the arrays that a file must hold, and those that it may and does."""
    return ARRAYS | {name: k for name, k in OPTIONAL.items() if name in group}


def identity_of(grid: PatchGrid, encoder: Mapping[str, Any]) -> dict[str, str]:
    """Tell which features a file holds; speed options are no part of it."""
    return {
        "slide": str(grid.slide["fingerprint"]),
        "grid": grid.fingerprint,
        "encoder": str(encoder["fingerprint"]),
        "precision": str(encoder["precision"]),
    }


def differences(
    attributes: Mapping[str, Any], grid: PatchGrid, encoder: Mapping[str, Any]
) -> str:
    """Say which part differs, and how in words where words tell it apart."""
    found, wanted = attributes["identity"], identity_of(grid, encoder)
    there = {"grid": attributes.get("grid", {}), "encoder": attributes.get("encoder")}
    now = {"grid": grid.describe(), "encoder": encoder}
    return ", ".join(
        f"{key} {found.get(key)} there{_in_words(key, there)}, "
        f"{wanted[key]} now{_in_words(key, now)}"
        for key in wanted
        if found.get(key) != wanted[key]
    )


def _in_words(key: str, described: Mapping[str, Any]) -> str:
    part = described.get(key)
    if key == "grid" and isinstance(part, Mapping):
        return f" ({part.get('patch_size')} px at {part.get('mpp')} µm per pixel)"
    if key == "encoder" and isinstance(part, Mapping):
        return f" ({part.get('spec')})"
    return ""


def holds_nothing_else(path: Path) -> bool:
    """Tell whether a folder holds nothing but parts of a feature file."""
    return path.is_dir() and all(
        entry.name in ("zarr.json", *ARRAYS, *OPTIONAL) or "partial" in entry.name
        for entry in path.iterdir()
    )


def open_group(path: Path, mode: Any) -> zarr.Group:
    """Open a zarr group, or say that it is none."""
    try:
        return zarr.open_group(path, mode=mode, zarr_format=3)
    # zarr raises errors of many kinds for what is no group.
    except Exception as error:  # noqa: BLE001
        raise FeatureError(f"is not a zarr group ({error})", path) from error


def bytes_in_memory(path: Path) -> int:
    """Tell what a file's features take in memory as float32, from its description."""
    features: Any = open_group(path, "r").get("features")
    return 4 * int(getattr(features, "size", 0))


def damaged(path: Path, reason: object) -> FeatureError:
    """Say that a file is damaged, in one line."""
    said = " ".join(str(reason).split())
    return FeatureError(f"is damaged ({said})", path, "Delete it and extract it again")


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
