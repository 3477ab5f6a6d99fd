"""The format of a feature file: names, array types, identity, and error messages.

:mod:`.store` writes such files, :mod:`.reading` reads them, :mod:`.verify` checks them.
``docs/feature-format.md`` describes the format; ``features.schema.json`` is its JSON
schema.
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

# Attributes are rewritten with every block: a damaged slide must not blow them up.
MOST_PROBLEMS = 100

LARGEST_FILE = 64 * 2**30
"""Bytes of arrays above which a file counts as damaged and is not read."""


class Array(NamedTuple):
    """The type of an array of a feature file; its first dimension is the patch.

    Attributes
    ----------
    dtype : str
        NumPy's name of the type.
    dims : tuple of str
        Names of the dimensions.
    fill : float
        Value of elements that are not written.
    """

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
    """Return the path of a slide's feature file in a folder.

    Parameters
    ----------
    out : Path
        The folder.
    slide : Slide
        The slide, whose name becomes the file's.

    Returns
    -------
    Path
        ``<out>/<slide>.features.zarr``; it need not exist.
    """
    return Path(out) / f"{slide.name}{SUFFIX}"


def beside_path(path: Path, grid: PatchGrid, encoder: Mapping[str, Any]) -> Path:
    """Return the path for a slide's second feature file, of another identity.

    Parameters
    ----------
    path : Path
        The slide's first feature file.
    grid : PatchGrid
        The patches of the second.
    encoder : mapping
        The encoder of the second, as :meth:`Encoder.describe` returns it.

    Returns
    -------
    Path
        ``<slide>.<first 8 hex digits of the identity's hash>.features.zarr``.
    """
    # Sorted, so that the same identity always gives the same file name.
    text = json.dumps(identity_of(grid, encoder), sort_keys=True)
    digest = blake2b(text.encode(), digest_size=4).hexdigest()
    return path.with_name(f"{path.name.removesuffix(SUFFIX)}.{digest}{SUFFIX}")


def place_of(path: Path, grid: PatchGrid, encoder: Mapping[str, Any]) -> Path:
    """Return the file to write: this one, or one beside it if the identities differ.

    Parameters
    ----------
    path : Path
        The slide's feature file; it need not exist.
    grid : PatchGrid
        The patches to write.
    encoder : mapping
        The encoder, as :meth:`Encoder.describe` returns it.

    Returns
    -------
    Path
        `path`, or that of :func:`beside_path`.
    """
    present = attributes_of(path).get("identity")
    if not isinstance(present, Mapping) or present == identity_of(grid, encoder):
        return path
    return beside_path(path, grid, encoder)


def files_of(path: Path) -> list[Path]:
    """List the feature files of a slide in one folder.

    Parameters
    ----------
    path : Path
        The file of the slide's plain name; it need not exist.

    Returns
    -------
    list of Path
        `path`, then the files beside it, in the order of their names.
    """
    name = path.name.removesuffix(SUFFIX)
    # A slide's name may hold brackets, which glob would read as a pattern.
    others = path.parent.glob(f"{glob.escape(name)}.{'[0-9a-f]' * 8}{SUFFIX}")
    return [path, *sorted(others)]


def slide_of(path: Path) -> str:
    """Return the name of the slide whose features a file holds.

    Parameters
    ----------
    path : Path
        A feature file, which may be one beside another.

    Returns
    -------
    str
        From the file's name, without suffix and hash.
    """
    name = path.name.removesuffix(SUFFIX)
    plain, _, digest = name.rpartition(".")
    if not (plain and re.fullmatch("[0-9a-f]{8}", digest)):
        return name
    # The slide's own name may end like a hash: the attributes decide.
    try:
        stated = attributes_of(path)["grid"]["slide"]["name"]
    except (KeyError, TypeError):
        return name
    return plain if stated == plain else name


def attributes_of(path: Path) -> Mapping[str, Any]:
    """Read the attributes of a feature file.

    Parameters
    ----------
    path : Path
        The feature file; it need not exist.

    Returns
    -------
    mapping
        Empty where there is no file, or no readable attributes.
    """
    try:
        content = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
        attributes: Any = content["attributes"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return attributes if isinstance(attributes, Mapping) else {}


def present(group: zarr.Group) -> dict[str, Array]:
    """List the required arrays of a feature file, and the optional ones that it holds.

    Parameters
    ----------
    group : zarr.Group
        The feature file.

    Returns
    -------
    dict of str to Array
        Types by the arrays' names.
    """
    return ARRAYS | {name: k for name, k in OPTIONAL.items() if name in group}


def identity_of(grid: PatchGrid, encoder: Mapping[str, Any]) -> dict[str, str]:
    """Return what identifies the features in a file.

    Options that change only the speed do not count.

    Parameters
    ----------
    grid : PatchGrid
        The patches.
    encoder : mapping
        As :meth:`Encoder.describe` returns it.

    Returns
    -------
    dict of str to str
        Fingerprints of slide, grid and encoder, and the precision.
    """
    return {
        "slide": str(grid.slide["fingerprint"]),
        "grid": grid.fingerprint,
        "encoder": str(encoder["fingerprint"]),
        # bfloat16 changes features slightly: both in one file would not be comparable.
        "precision": str(encoder["precision"]),
    }


def differences(
    attributes: Mapping[str, Any], grid: PatchGrid, encoder: Mapping[str, Any]
) -> str:
    """Describe the parts of the identity in which a file differs.

    Parameters
    ----------
    attributes : mapping
        Attributes of the file.
    grid : PatchGrid
        The requested patches.
    encoder : mapping
        The requested encoder, as :meth:`Encoder.describe` returns it.

    Returns
    -------
    str
        One line for an error message; "" where the identities agree.
    """
    stored, wanted = attributes["identity"], identity_of(grid, encoder)
    old = {"grid": attributes.get("grid", {}), "encoder": attributes.get("encoder")}
    new = {"grid": grid.describe(), "encoder": encoder}
    return ", ".join(
        f"{key} {stored.get(key)} there{_in_words(key, old)}, "
        f"{wanted[key]} now{_in_words(key, new)}"
        for key in wanted
        if stored.get(key) != wanted[key]
    )


def _in_words(key: str, described: Mapping[str, Any]) -> str:
    part = described.get(key)
    if key == "grid" and isinstance(part, Mapping):
        return f" ({part.get('patch_size')} px at {part.get('mpp')} µm per pixel)"
    if key == "encoder" and isinstance(part, Mapping):
        return f" ({part.get('spec')})"
    return ""


def holds_nothing_else(path: Path) -> bool:
    """Return whether a folder holds nothing but parts of a feature file.

    Parameters
    ----------
    path : Path
        The folder.

    Returns
    -------
    bool
        True where the folder can be deleted without losing other files.
    """
    return path.is_dir() and all(
        entry.name in ("zarr.json", *ARRAYS, *OPTIONAL) or "partial" in entry.name
        for entry in path.iterdir()
    )


def open_group(path: Path, mode: Any) -> zarr.Group:
    """Open a zarr group (format 3).

    Parameters
    ----------
    path : Path
        The group's folder.
    mode : str
        As for :func:`zarr.open_group`.

    Returns
    -------
    zarr.Group
        The open group.

    Raises
    ------
    FeatureError
        If there is no zarr group.
    """
    try:
        return zarr.open_group(path, mode=mode, zarr_format=3)
    # zarr raises many kinds of errors for a folder that is not a group.
    except Exception as error:  # noqa: BLE001
        raise FeatureError(f"is not a zarr group ({error})", path) from error


def bytes_in_memory(path: Path) -> int:
    """Return the memory that a file's features take as float32, without reading them.

    Parameters
    ----------
    path : Path
        The feature file.

    Returns
    -------
    int
        Bytes.

    Raises
    ------
    FeatureError
        If there is no zarr group.
    """
    features: Any = open_group(path, "r").get("features")
    return 4 * int(getattr(features, "size", 0))


def damaged(path: Path, reason: object) -> FeatureError:
    """Return the error for a damaged feature file.

    Parameters
    ----------
    path : Path
        The feature file.
    reason : object
        What is wrong; it is printed on one line.

    Returns
    -------
    FeatureError
        To be raised by the caller.
    """
    text = " ".join(str(reason).split())
    return FeatureError(f"is damaged ({text})", path, "Delete it and extract it again")


FILE = "features.schema.json"

_LONGEST = 120


@cache
def load_schema() -> dict[str, Any]:
    """Load the JSON schema (draft 2020-12) that is installed with this package.

    Returns
    -------
    dict
        The schema of what :func:`read_metadata` returns.
    """
    text = files("napari_mcm.core.features").joinpath(FILE).read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def read_metadata(path: Path) -> dict[str, Any]:
    """Read the metadata that the schema describes: attributes and arrays.

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
        If metadata cannot be read; it names the part.
    """
    names = sorted(part.parent.name for part in path.glob("*/zarr.json"))
    return {
        "attributes": _read(path, "zarr.json").get("attributes", {}),
        "arrays": {name: _read(path, f"{name}/zarr.json") for name in names},
    }


def check_metadata(metadata: Mapping[str, Any]) -> None:
    """Check a feature file's metadata against the schema.

    Parameters
    ----------
    metadata : mapping
        As :func:`read_metadata` returns it.

    Raises
    ------
    FeatureError
        If it does not fit; it names the first place.
    """
    # Slow to import, and only a verification needs it.
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    worst = best_match(Draft202012Validator(load_schema()).iter_errors(metadata))
    if worst is not None:
        message = worst.message
        if len(message) > _LONGEST:
            message = f"{message[:_LONGEST]}..."
        place = ".".join(map(str, worst.absolute_path))
        raise FeatureError(f"{place}: {message}" if place else message)


def _read(path: Path, name: str) -> dict[str, Any]:
    try:
        text = (path / name).read_text(encoding="utf-8")
        content = json.loads(text, parse_constant=_refuse)
    except FileNotFoundError as error:
        raise FeatureError(f"{name} is missing") from error
    except (ValueError, RecursionError) as error:
        raise FeatureError(f"{name} is not JSON") from error
    if not isinstance(content, dict):
        raise FeatureError(f"{name} is not a JSON object")
    return content


def _refuse(constant: str) -> None:
    """Refuse NaN and Infinity: they are not JSON, and would pass any bounds.

    Raises
    ------
    ValueError
        Always.
    """
    raise ValueError(constant)
