"""Writing a feature file: a zarr group that grows by blocks and is marked when complete.

``<slide>.features.zarr`` (zarr 3) holds ``coords`` (N, 2), ``lattice`` (N, 2),
``features`` (N, D), ``blur`` (N,), ``artefact`` (N,) and ``status`` (N,), in blocks of
rows, and attributes: schema, identity, grid, encoder, provenance, and ``complete``. A
block counts once its status is written, which happens last; the file counts once
``complete`` is true. Older files have no ``blur`` and ``artefact``.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
        Rows per block.
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
        """Open an existing file of the same identity without changing it.

        Parameters
        ----------
        path : Path
            The feature file; it need not exist.
        grid : PatchGrid
            The patches.
        encoder : mapping
            As :meth:`Encoder.describe` returns it.
        overwrite : bool, optional
            Whether a file of another identity may be replaced.

        Returns
        -------
        FeatureStore or None
            None where there is no file, or one that may be replaced.

        Raises
        ------
        FeatureError
            If the file has another identity, or is damaged.
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
        """Create a feature file, or open an existing one to resume it.

        Parameters
        ----------
        path : Path
            The feature file; it need not exist.
        grid : PatchGrid
            The patches.
        encoder : mapping
            As :meth:`Encoder.describe` returns it.
        block : int
            Rows per block of a new file.
        overwrite : bool, optional
            Whether a file of another identity is replaced.

        Returns
        -------
        FeatureStore
            Open for writing.

        Raises
        ------
        FeatureError
            If the file has another identity, or is damaged.
        OutputError
            If the folder cannot be written to.
        """
        with _writing(path):
            store = cls.find(path, grid, encoder, overwrite)
            if store is not None:
                return store
            if path.exists():
                shutil.rmtree(path)
            group, block = create_group(path, grid, encoder, block)
            return cls(path, group, block)

    @property
    def complete(self) -> bool:
        """Return whether all of the file is written.

        Returns
        -------
        bool
            True once :meth:`finish` was called.
        """
        return self.group.attrs.get("complete") is True

    @property
    def status(self) -> NDArray[np.uint8]:
        """Return the status of each row.

        Returns
        -------
        ndarray of uint8, shape (N,)
            A :class:`Status` per patch, ``PENDING`` where it is not written.

        Raises
        ------
        FeatureError
            If a chunk is damaged.
        """
        try:
            return np.asarray(self._array("status")[:], np.uint8)
        # zarr and codecs raise errors of many kinds for a damaged chunk.
        except Exception as error:  # noqa: BLE001
            problem = damaged(self.path, f"status: {error}")
            raise problem from error

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of rows per status.

        Returns
        -------
        dict of str to int
            By the status's name in lower case.
        """
        values, counts = np.unique(self.status, return_counts=True)
        return {
            Status(int(value)).name.lower(): int(count)
            for value, count in zip(values, counts, strict=True)
        }

    @property
    def done(self) -> int:
        """Return the number of rows that are written, from the first, in whole blocks.

        Returns
        -------
        int
            The row at which to resume.
        """
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
        """Write one block, whose status comes last.

        Parameters
        ----------
        start : int
            First row of the block.
        features : ndarray of float32, shape (rows, D)
            NaN where the status is not ``OK``.
        status : ndarray of uint8, shape (rows,)
            A :class:`Status` per row.
        problems : sequence of str, optional
            One line per patch that could not be read.
        quality : mapping of str to ndarray of float32, shape (rows,), optional
            Measures by their names.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        stop = start + len(features)
        with _writing(self.path):
            self._array("features")[start:stop] = features
            for name, values in (quality or {}).items():
                # A file of an older version has no arrays of measures.
                if name in self.group:
                    self._array(name)[start:stop] = values
            if problems:
                known: Any = self.group.attrs.get("problems", [])
                # An interrupted block has left its problems here already.
                lines = list(dict.fromkeys([*known, *problems]))[:MOST_PROBLEMS]
                self.group.update_attributes({"problems": lines})
            # After a power cut, a status must not cover data that were only in memory.
            for name in ("features", *MEASURES):
                self._flush(name, start)
            self._array("status")[start:stop] = status
            self._flush("status", start)

    def finish(self, provenance: Mapping[str, Any]) -> None:
        """Mark the file as complete.

        Parameters
        ----------
        provenance : mapping
            When and with what the features were made, as JSON types.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        with _writing(self.path):
            self.group.update_attributes(
                {"provenance": dict(provenance), "complete": True}
            )
            flush(self.path / "zarr.json")

    def _flush(self, name: str, start: int) -> None:
        chunk = self.path / name / "c" / str(start // self.block)
        for file in (chunk, chunk / "0"):
            if file.is_file():
                flush(file)

    def _array(self, name: str) -> Any:
        # A reopened array loses this setting. Without it, a block in which nothing
        # could be decoded would have no chunk, as if it had been lost.
        with zarr.config.set({"array.write_empty_chunks": True}):
            return self.group[name]


def _existing(
    path: Path, grid: PatchGrid, encoder: Mapping[str, Any], overwrite: bool
) -> FeatureStore | None:
    """Open an existing file; None where it may be replaced.

    Raises
    ------
    FeatureError
        If it has another identity, or is damaged.
    """
    try:
        group = open_group(path, "r+")
        attributes: dict[str, Any] = dict(group.attrs)
        stored = dict(attributes["identity"])
        rows: Any = group["features"]
        block = int(rows.chunks[0])
    except (FeatureError, KeyError, TypeError, ValueError) as error:
        # Killed before its attributes were written: it holds nothing to keep.
        empty = not any(path.glob("features/c/*"))
        if holds_nothing_else(path) and (empty or overwrite):
            return None
        problem = damaged(path, getattr(error, "what", error))
        raise problem from error
    if stored == identity_of(grid, encoder):
        return FeatureStore(path, group, block)
    if overwrite:
        return None
    raise FeatureError(
        f"was made differently ({differences(attributes, grid, encoder)})",
        path,
        "Choose another --out, replace it with --overwrite, or write --keep-incompatible it",
    )


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Report errors of the disk in one line that says what to do next.

    Raises
    ------
    OutputError
        In place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot be written ({error.strerror or error})",
            path,
            "Check permissions and free space, then run the same again to resume",
        ) from error


def create_group(
    path: Path, grid: PatchGrid, encoder: Mapping[str, Any], block: int
) -> tuple[zarr.Group, int]:
    """Create a feature file in which all rows are pending.

    Parameters
    ----------
    path : Path
        The file; it must not exist.
    grid : PatchGrid
        Its patches.
    encoder : mapping
        As :meth:`Encoder.describe` returns it.
    block : int
        Rows per block, at most.

    Returns
    -------
    group : zarr.Group
        Open for writing. Its attributes were written last.
    block : int
        Rows per block.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, dim = len(grid), int(encoder["dim"])
    block = max(min(block, rows), 1)
    group = zarr.create_group(path, zarr_format=3)
    for name, values in (("coords", grid.xy), ("lattice", grid.lattice)):
        _create(group, name, (rows, 2), max(rows, 1))[:] = values
    _create(group, "features", (rows, dim), block)
    # The status last: a file that has it has the other arrays.
    for name in (*OPTIONAL, "status"):
        _create(group, name, (rows,), block)
    # In one write: `attrs.update` would write once per attribute.
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
    # Features hardly compress. The checksum covers the bytes on the disk.
    pack = () if name == "features" else (ZstdCodec(level=0),)
    return group.create_array(
        name,
        shape=shape,
        chunks=(block, *shape[1:]),
        dtype=kind.dtype,
        fill_value=kind.fill,
        compressors=(*pack, Crc32cCodec()),
        dimension_names=kind.dims,
        # Empty chunks are written too, so that a missing chunk is a lost one.
        config={"write_empty_chunks": True},
    )
