"""Writing a feature file: a zarr group that grows block by block, its marker last.

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
from zarr.codecs import Crc32cCodec, ZstdCodec

from napari_mcm.core.errors import FeatureError, OutputError
from napari_mcm.core.features.feature_set import Status
from napari_mcm.core.features.format import (
    ARRAYS,
    MOST_PROBLEMS,
    OPTIONAL,
    SCHEMA,
    VERSION,
    damaged,
    differences,
    holds_nothing_else,
    identity_of,
    open_group,
)
from napari_mcm.core.features.patches import MEASURES
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.runtime.files import flush


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
            group, block = create_group(path, grid, encoder, block)
            return cls(path, group, block)
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
            raise damaged(self.path, f"status: {error}") from error

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
            # After a power cut, no status may speak of what was in memory only.
            for name in ("features", *MEASURES):
                self._flush(name, start)
            self._array("status")[start:stop] = status
            self._flush("status", start)
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def finish(self, provenance: Mapping[str, Any]) -> None:
        """Mark the file as complete."""
        try:
            self.group.update_attributes(
                {"provenance": dict(provenance), "complete": True}
            )
            flush(self.path / "zarr.json")
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def _flush(self, name: str, start: int) -> None:
        chunk = self.path / name / "c" / str(start // self.block)
        for file in (chunk, chunk / "0"):
            if file.is_file():
                flush(file)

    def _array(self, name: str) -> Any:
        # An array forgets this when it is opened again. Without it, a block in which
        # nothing could be decoded would be missing, as if it had been lost.
        with zarr.config.set({"array.write_empty_chunks": True}):
            return self.group[name]


def _existing(
    path: Path, grid: PatchGrid, encoder: Mapping[str, Any], overwrite: bool
) -> FeatureStore | None:
    """Open the file that is there; None where it may be replaced."""
    try:
        group = open_group(path, "r+")
        attributes: dict[str, Any] = dict(group.attrs)
        found = dict(attributes["identity"])
        rows: Any = group["features"]
        block = int(rows.chunks[0])
    except (FeatureError, KeyError, TypeError, ValueError) as error:
        # Killed before its attributes were written: there is nothing in it to keep.
        begun = not any(path.glob("features/c/*"))
        if holds_nothing_else(path) and (begun or overwrite):
            return None
        raise damaged(path, getattr(error, "what", error)) from error
    if found == identity_of(grid, encoder):
        return FeatureStore(path, group, block)
    if overwrite:
        return None
    raise FeatureError(
        f"was made in another way ({differences(attributes, grid, encoder)})",
        path,
        "Choose another --out, replace it with --overwrite, or write --beside it",
    )


def _cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot be written ({error.strerror or error})",
        path,
        "Check permissions and free space, then run the same again: it goes on",
    )


def create_group(
    path: Path, grid: PatchGrid, encoder: Mapping[str, Any], block: int
) -> tuple[zarr.Group, int]:
    """Start a feature file in which all rows are pending.

    Parameters
    ----------
    path : Path
        Where nothing is yet.
    grid : PatchGrid
        Its patches.
    encoder : mapping
        Described.
    block : int
        Rows of a block, at most.

    Returns
    -------
    group : zarr.Group
        Open for writing. Its attributes were written last.
    block : int
        Rows of a block.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, dim = len(grid), int(encoder["dim"])
    block = max(min(block, rows), 1)
    group = zarr.create_group(path, zarr_format=3)
    for name, values in (("coords", grid.xy), ("lattice", grid.lattice)):
        _create(group, name, (rows, 2), max(rows, 1))[:] = values
    _create(group, "features", (rows, dim), block)
    # The status last: a file that has it has the others.
    for name in (*OPTIONAL, "status"):
        _create(group, name, (rows,), block)
    # In one write: `attrs.update` would make one of each.
    group.update_attributes(
        {
            "schema": SCHEMA,
            "version": VERSION,
            "identity": identity_of(grid, encoder),
            "grid": grid.describe(),
            "encoder": dict(encoder),
            "complete": False,
        }
    )
    return group, block


def _create(
    group: zarr.Group, name: str, shape: tuple[int, ...], block: int
) -> zarr.Array[Any]:
    kind = (ARRAYS | OPTIONAL)[name]
    # Floats of networks hardly shrink. The checksum is over what lies on the disk.
    pack = () if name == "features" else (ZstdCodec(level=0),)
    return group.create_array(
        name,
        shape=shape,
        chunks=(block, *shape[1:]),
        dtype=kind.dtype,
        fill_value=kind.fill,
        compressors=(*pack, Crc32cCodec()),
        dimension_names=kind.dims,
        # Empty chunks are written too, so that a missing one is known to be lost.
        config={"write_empty_chunks": True},
    )
