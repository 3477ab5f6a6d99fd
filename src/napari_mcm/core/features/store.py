"""The feature file: a zarr group that grows block by block, its marker last.

``<slide>.features.zarr`` (zarr 3) holds ``coords`` (N, 2), ``lattice`` (N, 2),
``features`` (N, D), ``blur`` (N,), ``artefact`` (N,) and ``status`` (N,), in blocks of
rows, and attributes: schema, identity, grid, encoder, provenance, and ``complete``. A
block is done when its status is written, which comes last; the file when ``complete``
is true. Older files have no ``blur`` and ``artefact``.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from napari_mcm.core.errors import FeatureError, GridError, OutputError
from napari_mcm.core.features.feature_set import FeatureSet, Status
from napari_mcm.core.features.quality import MEASURES
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.slides import Slide

SCHEMA, VERSION = "napari-mcm/features", 1
SUFFIX = ".features.zarr"
MOST_PROBLEMS = 100
LARGEST_FILE = 64 * 2**30
"""Bytes of arrays beyond which a file is taken to be damaged and not read."""

_ARRAYS = {
    "coords": ("i", 2),
    "lattice": ("i", 2),
    "features": ("f", 2),
    "status": ("u", 1),
}
_OPTIONAL = dict.fromkeys(MEASURES, ("f", 1))


def feature_path(out: Path, slide: Slide) -> Path:
    """Name the feature file of a slide in a folder."""
    return Path(out) / f"{slide.name}{SUFFIX}"


@dataclass(frozen=True, eq=False)
class FeatureStore:
    """A feature file that is being written.

    Attributes
    ----------
    path : Path
        The zarr group.
    group : zarr.Group
        Open for writing.
    block : int
        Rows of a block.
    """

    path: Path
    group: zarr.Group
    block: int

    @classmethod
    def find(
        cls,
        path: Path,
        grid: PatchGrid,
        encoder: Mapping[str, Any],
        overwrite: bool = False,
    ) -> FeatureStore | None:
        """Open the file that is there, without changing anything.

        Returns
        -------
        FeatureStore or None
            None where there is none, or one that may be replaced.

        Raises
        ------
        FeatureError
            If there is one that was made in another way, saying in which.
        """
        return _existing(path, grid, encoder, overwrite) if path.exists() else None

    @classmethod
    def open(
        cls,
        path: Path,
        grid: PatchGrid,
        encoder: Mapping[str, Any],
        block: int,
        overwrite: bool = False,
    ) -> FeatureStore:
        """Start a feature file, or open the one that is there to go on with it.

        Raises
        ------
        FeatureError
            If there is one that was made in another way, saying in which, or if the
            folder cannot be written to.
        """
        try:
            store = cls.find(path, grid, encoder, overwrite)
            if store is not None:
                return store
            if path.exists():
                shutil.rmtree(path)
            return _create(path, grid, encoder, block)
        except OSError as error:
            raise _cannot_write(path, error) from error

    @property
    def complete(self) -> bool:
        """Whether all of it is written."""
        return self.group.attrs.get("complete") is True

    @property
    def status(self) -> NDArray[np.uint8]:
        """The status of each row (N,), ``PENDING`` where it is not written."""
        try:
            return np.asarray(self._array("status")[:], np.uint8)
        # zarr and codecs raise errors of many kinds for a damaged chunk.
        except Exception as error:  # noqa: BLE001
            raise _damaged(self.path, error) from error

    @property
    def counts(self) -> dict[str, int]:
        """How many rows have which status, by its name."""
        values, counts = np.unique(self.status, return_counts=True)
        return {
            Status(int(value)).name.lower(): int(count)
            for value, count in zip(values, counts, strict=True)
        }

    @property
    def done(self) -> int:
        """How many rows are written, from the first: whole blocks."""
        status = self.status
        pending = np.flatnonzero(status == Status.PENDING)
        if not len(pending):
            return len(status)
        return int(pending[0]) // self.block * self.block

    def write(
        self,
        start: int,
        features: NDArray[np.float32],
        status: NDArray[np.uint8],
        problems: Sequence[str] = (),
        quality: Mapping[str, NDArray[np.float32]] | None = None,
    ) -> None:
        """Write one block; it counts once its status is there."""
        stop = start + len(features)
        try:
            self._array("features")[start:stop] = features
            for name, values in (quality or {}).items():
                # One that was begun before there were measures goes on without.
                if name in self.group:
                    self._array(name)[start:stop] = values
            if problems:
                known: Any = self.group.attrs.get("problems", [])
                # Those of a block that was broken off are known already.
                lines = list(dict.fromkeys([*known, *problems]))[:MOST_PROBLEMS]
                self.group.update_attributes({"problems": lines})
            self._array("status")[start:stop] = status
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def finish(self, provenance: Mapping[str, Any]) -> None:
        """Mark the file as complete."""
        try:
            self.group.update_attributes(
                {"provenance": dict(provenance), "complete": True}
            )
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def _array(self, name: str) -> Any:
        # An array forgets this when it is opened again. Without it, a block in which
        # nothing could be decoded would be missing, as if it had been lost.
        with zarr.config.set({"array.write_empty_chunks": True}):
            return self.group[name]


def read_features(path: str | Path) -> FeatureSet:
    """Read a complete feature file.

    Parameters
    ----------
    path : str or Path
        ``<slide>.features.zarr``.

    Raises
    ------
    FeatureError
        If it is missing, incomplete, damaged, or of another kind.
    """
    path = Path(path)
    if not path.exists():
        raise FeatureError("no such feature file", path)
    group = _open_group(path, "r")
    attributes: dict[str, Any] = dict(group.attrs)
    _check_attributes(path, attributes)
    try:
        _check_arrays(group)
        arrays = {name: _whole(group, name) for name in _present(group)}
        if (arrays["status"] == Status.PENDING).any():
            raise FeatureError("rows are missing")
        grid = PatchGrid.from_description(
            attributes["grid"], arrays["coords"], arrays["lattice"]
        )
        provenance = dict(attributes["provenance"])
        return FeatureSet(
            np.asarray(arrays["features"], np.float32),
            grid,
            np.asarray(arrays["status"], np.uint8),
            dict(attributes["encoder"]),
            {**provenance, "problems": list(attributes.get("problems", []))},
            _quality(arrays),
        )
    except (GridError, FeatureError) as error:
        raise _damaged(path, error.what) from error
    # zarr and codecs raise errors of many kinds for what is damaged.
    except Exception as error:  # noqa: BLE001
        raise _damaged(path, error) from error


def _check_attributes(path: Path, attributes: Mapping[str, Any]) -> None:
    if attributes.get("schema") != SCHEMA:
        raise FeatureError("is not a feature file of napari-mcm", path)
    if attributes.get("version") != VERSION:
        raise FeatureError(
            f"has version {attributes.get('version')}, this program reads {VERSION}",
            path,
            "Update napari-mcm",
        )
    if attributes.get("complete") is not True:
        raise FeatureError(
            "is not complete", path, "Run the same extraction again: it goes on"
        )


def _check_arrays(group: zarr.Group) -> None:
    """Check kinds, shapes and sizes before anything is read into memory."""
    kinds = _present(group)
    arrays: dict[str, Any] = {name: group[name] for name in kinds}
    for name, (kind, dimensions) in kinds.items():
        array = arrays[name]
        if array.ndim != dimensions or array.dtype.kind != kind:
            raise ValueError(f"{name} is {array.dtype} with {array.ndim} dimensions")
    lengths = {name: int(array.shape[0]) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"arrays differ in length: {lengths}")
    if sum(int(array.nbytes) for array in arrays.values()) > LARGEST_FILE:
        raise ValueError("claims to be larger than any slide's features")
    for name, array in arrays.items():
        missing = int(array.nchunks) - int(array.nchunks_initialized)
        if lengths[name] and missing > 0:
            raise ValueError(f"{missing} chunk(s) of {name} are missing")


def _present(group: zarr.Group) -> dict[str, tuple[str, int]]:
    """Name the arrays that a file must hold, and those that it may and does."""
    return _ARRAYS | {name: k for name, k in _OPTIONAL.items() if name in group}


def _quality(arrays: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
    unknown = np.full(len(arrays["status"]), np.nan, np.float32)
    quality = {n: np.asarray(arrays.get(n, unknown), np.float32) for n in MEASURES}
    for name, values in quality.items():
        if ((values < 0) | (values > 1)).any():
            raise ValueError(f"{name} is not from 0 to 1")
    return quality


def _whole(group: zarr.Group, name: str) -> Any:
    array: Any = group[name]
    return array[:]


def _existing(
    path: Path, grid: PatchGrid, encoder: Mapping[str, Any], overwrite: bool
) -> FeatureStore | None:
    """Open the file that is there; None where it may be replaced."""
    try:
        group = _open_group(path, "r+")
        attributes: dict[str, Any] = dict(group.attrs)
        found = dict(attributes["identity"])
        rows: Any = group["features"]
        block = int(rows.chunks[0])
    except (FeatureError, KeyError, TypeError, ValueError) as error:
        # Killed before its attributes were written: there is nothing in it to keep.
        begun = not any(path.glob("features/c/*"))
        if _holds_nothing_else(path) and (begun or overwrite):
            return None
        raise _damaged(path, getattr(error, "what", error)) from error
    if found == _identity(grid, encoder):
        return FeatureStore(path, group, block)
    if overwrite:
        return None
    raise FeatureError(
        f"was made in another way ({_differences(attributes, grid, encoder)})",
        path,
        "Choose another --out, or replace it with --overwrite",
    )


def _holds_nothing_else(path: Path) -> bool:
    """Tell whether a folder holds nothing but parts of a feature file."""
    return path.is_dir() and all(
        entry.name in ("zarr.json", *_ARRAYS, *_OPTIONAL) or "partial" in entry.name
        for entry in path.iterdir()
    )


def _create(
    path: Path, grid: PatchGrid, encoder: Mapping[str, Any], block: int
) -> FeatureStore:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, dim = len(grid), int(encoder["dim"])
    chunk = max(min(block, rows), 1)
    group = zarr.create_group(path, zarr_format=3)
    # Empty chunks are written too, so that a missing one is known to be lost.
    full: Any = {"write_empty_chunks": True}
    for name, values in (("coords", grid.xy), ("lattice", grid.lattice)):
        array = group.create_array(
            name,
            shape=values.shape,
            chunks=(max(rows, 1), 2),
            dtype=values.dtype,
            config=full,
        )
        array[:] = values
    group.create_array(
        "features",
        shape=(rows, dim),
        chunks=(chunk, dim),
        dtype="float32",
        fill_value=np.nan,
        compressors=None,  # floats of networks hardly shrink
        config=full,
    )
    for name in MEASURES:
        group.create_array(
            name,
            shape=(rows,),
            chunks=(chunk,),
            dtype="float32",
            fill_value=np.nan,
            config=full,
        )
    group.create_array(
        "status",
        shape=(rows,),
        chunks=(chunk,),
        dtype="uint8",
        fill_value=int(Status.PENDING),
        config=full,
    )
    # In one write: `attrs.update` would make one of each.
    group.update_attributes(
        {
            "schema": SCHEMA,
            "version": VERSION,
            "identity": _identity(grid, encoder),
            "grid": grid.describe(),
            "encoder": dict(encoder),
            "complete": False,
        }
    )
    return FeatureStore(path, group, chunk)


def _identity(grid: PatchGrid, encoder: Mapping[str, Any]) -> dict[str, str]:
    """Tell which features a file holds; speed options are no part of it."""
    return {
        "slide": str(grid.slide["fingerprint"]),
        "grid": grid.fingerprint,
        "encoder": str(encoder["fingerprint"]),
        "precision": str(encoder["precision"]),
    }


def _differences(
    attributes: Mapping[str, Any], grid: PatchGrid, encoder: Mapping[str, Any]
) -> str:
    """Say which part differs, and how in words where words tell it apart."""
    found, wanted = attributes["identity"], _identity(grid, encoder)
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


def _open_group(path: Path, mode: Any) -> zarr.Group:
    try:
        return zarr.open_group(path, mode=mode, zarr_format=3)
    # zarr raises errors of many kinds for what is no group.
    except Exception as error:  # noqa: BLE001
        raise FeatureError(f"is not a zarr group ({error})", path) from error


def _damaged(path: Path, reason: object) -> FeatureError:
    return FeatureError(
        f"is damaged ({reason})", path, "Extract it again, with --overwrite"
    )


def _cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot be written ({error.strerror or error})",
        path,
        "Check permissions and free space, then run the same again: it goes on",
    )
