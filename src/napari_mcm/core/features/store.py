"""The feature file: a zarr group that grows block by block, its marker last.

``<slide>.features.zarr`` (zarr 3) holds ``coords`` (N, 2), ``lattice`` (N, 2),
``features`` (N, D) and ``status`` (N,), in blocks of rows, and attributes: schema,
identity, grid, encoder, provenance, and ``complete``. A block is done when its status is
written, which comes after its features; the file is done when ``complete`` is true.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from napari_mcm.core.errors import FeatureError, GridError
from napari_mcm.core.features.feature_set import FeatureSet, Status
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.slides import Slide

SCHEMA, VERSION = "napari-mcm/features", 1
SUFFIX = ".features.zarr"


def feature_path(out: Path, slide: Slide) -> Path:
    """Name the feature file of a slide in a folder."""
    return Path(out) / f"{slide.name}{SUFFIX}"


def identity_of(grid: PatchGrid, encoder: Mapping[str, Any]) -> dict[str, str]:
    """Tell which features a file holds; speed options are no part of it."""
    return {
        "slide": str(grid.slide["fingerprint"]),
        "grid": grid.fingerprint,
        "encoder": str(encoder["fingerprint"]),
        "precision": str(encoder["precision"]),
    }


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
        identity = identity_of(grid, encoder)
        try:
            if path.exists():
                store = cls._existing(path, identity, overwrite)
                if store is not None:
                    return store
                shutil.rmtree(path)
            return cls._create(path, grid, encoder, identity, block)
        except OSError as error:
            raise _cannot_write(path, error) from error

    @classmethod
    def _existing(
        cls, path: Path, identity: Mapping[str, str], overwrite: bool
    ) -> FeatureStore | None:
        try:
            group = _open_group(path, "r+")
            attributes: dict[str, Any] = dict(group.attrs)
            found = dict(attributes["identity"])
        except (FeatureError, KeyError, TypeError, ValueError):
            # Killed before its attributes were written: there is nothing in it to keep.
            if overwrite or not any(path.glob("features/c/*")):
                return None
            raise
        differs = sorted(k for k in identity if found.get(k) != identity[k])
        if not differs:
            block = group["features"].chunks[0]  # type: ignore[union-attr]
            return cls(path, group, int(block))
        if overwrite:
            return None
        shown = ", ".join(
            f"{k} {found.get(k)} there, {identity[k]} now" for k in differs
        )
        raise FeatureError(
            f"was made in another way ({shown})",
            path,
            "Choose another --out, or replace it with --overwrite",
        )

    @classmethod
    def _create(
        cls,
        path: Path,
        grid: PatchGrid,
        encoder: Mapping[str, Any],
        identity: Mapping[str, str],
        block: int,
    ) -> FeatureStore:
        path.parent.mkdir(parents=True, exist_ok=True)
        rows, dim = len(grid), int(encoder["dim"])
        chunk = max(min(block, rows), 1)
        group = zarr.create_group(path, zarr_format=3)
        for name, values in (("coords", grid.xy), ("lattice", grid.lattice)):
            array = group.create_array(
                name,
                shape=values.shape,
                chunks=(max(rows, 1), 2),
                dtype=values.dtype,
            )
            array[:] = values
        group.create_array(
            "features",
            shape=(rows, dim),
            chunks=(chunk, dim),
            dtype="float32",
            fill_value=np.nan,
            compressors=None,  # floats of networks hardly shrink
        )
        group.create_array(
            "status",
            shape=(rows,),
            chunks=(chunk,),
            dtype="uint8",
            fill_value=int(Status.PENDING),
        )
        group.attrs.update(
            {
                "schema": SCHEMA,
                "version": VERSION,
                "grid": grid.describe(),
                "encoder": dict(encoder),
                "complete": False,
                "identity": dict(identity),
            }
        )
        return cls(path, group, chunk)

    @property
    def complete(self) -> bool:
        """Whether all of it is written."""
        return bool(self.group.attrs.get("complete", False))

    @property
    def done(self) -> int:
        """How many rows are written, from the first: whole blocks."""
        pending = np.flatnonzero(self._array("status")[:] == Status.PENDING)
        if not len(pending):
            return len(self._array("status"))
        return int(pending[0]) // self.block * self.block

    def write(
        self, start: int, features: NDArray[np.float32], status: NDArray[np.uint8]
    ) -> None:
        """Write one block; it counts once its status is there."""
        stop = start + len(features)
        try:
            self._array("features")[start:stop] = features
            self._array("status")[start:stop] = status
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def finish(self, provenance: Mapping[str, Any]) -> None:
        """Mark the file as complete."""
        try:
            self.group.attrs.update({"provenance": dict(provenance), "complete": True})
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def _array(self, name: str) -> Any:
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
    try:
        coords, lattice, features, status = (
            _read_array(group, name, kind, dimensions)
            for name, kind, dimensions in (
                ("coords", "i", 2),
                ("lattice", "i", 2),
                ("features", "f", 2),
                ("status", "u", 1),
            )
        )
        grid = PatchGrid.from_description(attributes["grid"], coords, lattice)
        return FeatureSet(
            np.asarray(features, np.float32),
            grid,
            np.asarray(status, np.uint8),
            dict(attributes["encoder"]),
            dict(attributes.get("provenance", {})),
        )
    except (KeyError, TypeError, ValueError, OSError, GridError, FeatureError) as error:
        raise FeatureError(f"is damaged ({error})", path, "Extract it again") from error


def _open_group(path: Path, mode: Any) -> zarr.Group:
    try:
        return zarr.open_group(path, mode=mode, zarr_format=3)
    # zarr raises errors of many kinds for what is no group.
    except Exception as error:  # noqa: BLE001
        raise FeatureError(f"is not a zarr group ({error})", path) from error


def _read_array(group: zarr.Group, name: str, kind: str, dimensions: int) -> Any:
    array: Any = group[name]
    if array.ndim != dimensions or array.dtype.kind != kind:
        raise ValueError(f"{name} is {array.dtype} with {array.ndim} dimensions")
    return array[:]


def _cannot_write(path: Path, error: OSError) -> FeatureError:
    return FeatureError(
        f"cannot be written ({error.strerror or error})",
        path,
        "Check permissions and free space, then run the same again: it goes on",
    )
