"""A complete check of one feature file, block by block."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.feature_set import Status
from napari_mcm.core.features.format import (
    LARGEST_FILE,
    OPTIONAL,
    check_metadata,
    identity_of,
)
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.runtime.jobs import Job, Meter

LARGEST_CHUNK = 2 * 2**30
"""Bytes of a chunk above which a file counts as damaged and is not read."""


@dataclass(frozen=True)
class Contents:
    """The contents of an undamaged feature file.

    Attributes
    ----------
    rows, done : int
        Patches, and how many of them, from the first, are written in whole blocks.
    complete : bool
        Whether it is marked as complete.
    checksums : bool
        Whether every array has checksums; files of earlier versions have none.
    slide : str
        Fingerprint of its slide.
    """

    rows: int
    done: int
    complete: bool
    checksums: bool
    slide: str


def check_file(path: Path, metadata: Mapping[str, Any]) -> Job[Contents]:
    """Check all of a feature file, as a job that holds one block of features in memory.

    Parameters
    ----------
    path : Path
        The feature file.
    metadata : mapping
        As :func:`~napari_mcm.core.features.format.read_metadata` returns it.

    Yields
    ------
    Progress
        In rows, after each block.

    Returns
    -------
    Contents
        What the file holds.

    Raises
    ------
    FeatureError
        If it is damaged; it names the array and the row.
    GridError
        If its grid is damaged.
    """
    check_metadata(metadata)
    block = _check_shapes(metadata)
    file = Chunks(path, metadata, block)
    grid = file.grid()
    status = yield from file.status()
    rows, done = len(grid), file.done(status)
    _check_identity(metadata["attributes"], grid)
    _check_places(grid, status, "imported" in file.provenance)
    meter = Meter(f"Verifying {path.name}", rows, "rows")
    yield meter.progress()
    for start in range(0, done, block):
        stop = min(start + block, done)
        _check_rows(file, start, stop, status[start:stop])
        yield meter.advance(stop - start)
    file.check_counts(status)
    return Contents(
        rows,
        done,
        file.complete,
        file.checksums,
        metadata["attributes"]["identity"]["slide"],
    )


def _check_shapes(metadata: Mapping[str, Any]) -> int:
    """Check the lengths and chunks of arrays, which the schema cannot, for the block size.

    Raises
    ------
    FeatureError
        If arrays do not fit each other.
    """
    arrays = {
        name: array
        for name, array in metadata["arrays"].items()
        if name in (*WHOLE, "features", "status", *OPTIONAL)
    }
    shapes = {name: array["shape"] for name, array in arrays.items()}
    chunks = {
        name: array["chunk_grid"]["configuration"]["chunk_shape"]
        for name, array in arrays.items()
    }
    rows, dim = shapes["features"]
    lengths = {name: shape[0] for name, shape in shapes.items()}
    if set(lengths.values()) != {rows}:
        raise FeatureError(f"arrays differ in length: {lengths}")
    stated = metadata["attributes"]["encoder"]["dim"]
    if dim != stated:
        raise FeatureError(f"features have {dim} columns, the encoder gives {stated}")
    block = int(chunks["features"][0])
    for name, chunk in chunks.items():
        long = max(rows, 1) if name in WHOLE else block
        if chunk != [long, *shapes[name][1:]]:
            raise FeatureError(f"{name} has chunks of {chunk}")
    # No number takes more than eight bytes.
    if 8 * rows * (dim + 5) > LARGEST_FILE or 8 * block * dim > LARGEST_CHUNK:
        raise FeatureError("claims to be larger than any slide's features")
    return block


def _check_identity(attributes: Mapping[str, Any], grid: PatchGrid) -> None:
    stated, actual = attributes["identity"], identity_of(grid, attributes["encoder"])
    for key, value in actual.items():
        if stated[key] != value:
            raise FeatureError(
                f"identity.{key} is {stated[key]}, but the content gives {value}"
            )


def _check_places(grid: PatchGrid, status: NDArray[np.uint8], imported: bool) -> None:
    """Check that patches lie on the slide and the lattice, and that no two coincide.

    Raises
    ------
    FeatureError
        If one does not; it names the row.
    """
    _, first, copies = (
        np.unique(grid.xy, axis=0, return_index=True, return_counts=True)
        if len(grid)
        else (None, np.empty(0, int), np.empty(0, int))
    )
    if (copies > 1).any():
        row = int(first[copies > 1][0])
        raise FeatureError(f"coords: the patch of row {row} occurs more than once")
    size, side = np.asarray(grid.slide["size"]), np.asarray(grid.patch_size_level0)
    beyond = (grid.xy < 0) | (grid.xy >= size)
    if not imported:
        # A corner is rounded to a whole pixel, which may move the far edge by one.
        beyond |= np.rint(grid.xy + side) > size + 1
    _refuse_first(
        beyond.any(axis=1) & (status != Status.OUTSIDE),
        "coords",
        "lies beyond the slide",
    )
    if not imported:
        laid = np.asarray(grid.origin) + grid.lattice[:, ::-1] * side
        off = (np.abs(laid - grid.xy) > 1).any(axis=1)
        _refuse_first(off, "lattice", "does not match its coords")


def _check_rows(file: Chunks, start: int, stop: int, status: NDArray[np.uint8]) -> None:
    ok = status == Status.OK
    missing = np.isnan(file.read("features", start, stop))
    _refuse_first(
        ok & missing.any(axis=1), "features", "is NaN, but its status is ok", start
    )
    _refuse_first(
        ~ok & ~missing.all(axis=1),
        "features",
        "has numbers, but its status is not ok",
        start,
    )
    for name in file.measures:
        values = file.read(name, start, stop)
        _refuse_first((values < 0) | (values > 1), name, "is not from 0 to 1", start)
        _refuse_first(
            ~ok & ~np.isnan(values),
            name,
            "has a number, but its status is not ok",
            start,
        )


def _refuse_first(bad: NDArray[np.bool_], name: str, what: str, start: int = 0) -> None:
    rows = np.flatnonzero(bad)
    if len(rows):
        more = f" ({len(rows) - 1} more)" if len(rows) > 1 else ""
        raise FeatureError(f"{name}: row {start + rows[0]} {what}{more}")


WHOLE = ("coords", "lattice")
"""Arrays that are one chunk."""


_KNOWN = [int(status) for status in Status]


class Chunks:
    """Reader of a feature file with valid metadata and possibly damaged chunks.

    Parameters
    ----------
    path : Path
        The feature file.
    metadata : mapping
        As :func:`~napari_mcm.core.features.format.read_metadata` returns it, checked.
    block : int
        Rows per block.

    Attributes
    ----------
    path, block
        As given.
    complete : bool
        Whether the file is marked as complete.
    provenance : mapping
        When and with what it was made; empty where it is not complete.
    measures : list of str
        Names of its optional arrays.
    checksums : bool
        Whether every array has checksums.
    """

    def __init__(self, path: Path, metadata: Mapping[str, Any], block: int) -> None:
        self.path, self.block = path, block
        self.complete = metadata["attributes"]["complete"] is True
        self.provenance = metadata["attributes"].get("provenance", {})
        self._described = metadata["attributes"]["grid"]
        arrays = metadata["arrays"]
        self.measures = [name for name in OPTIONAL if name in arrays]
        self.checksums = all(
            any(codec["name"] == "crc32c" for codec in arrays[name]["codecs"])
            for name in (*WHOLE, "features", "status", *self.measures)
        )
        self._group = _guarded(path.name, lambda: zarr.open_group(path, mode="r"))

    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Read the rows of one chunk.

        Parameters
        ----------
        name : str
            Name of the array.
        start, stop : int
            First row, and the row after the last.

        Returns
        -------
        ndarray, shape (stop - start, ...)
            Empty where `start` equals `stop`.

        Raises
        ------
        FeatureError
            If the chunk is missing or damaged.
        """
        array: Any = self._group[name]
        if start == stop:
            return np.empty((0, *array.shape[1:]), array.dtype)
        number = start // array.chunks[0]
        chunk = (
            self.path
            / name
            / array.metadata.encode_chunk_key((number,) + (0,) * (array.ndim - 1))
        )
        # zarr reads a missing chunk as fill values, without an error.
        if not chunk.exists():
            raise FeatureError(
                f"{name}: the chunk of rows {start} to {stop} is missing"
            )
        where = f"{name}: rows {start} to {stop}"
        return np.asarray(_guarded(where, lambda: array[start:stop]))

    def grid(self) -> PatchGrid:
        """Rebuild the grid of patches.

        Returns
        -------
        PatchGrid
            From the attributes, the coordinates and the lattice.

        Raises
        ------
        GridError
            If they do not fit each other.
        FeatureError
            If a chunk is missing or damaged.
        """
        rows = int(self._shape("coords")[0])
        coords, lattice = (self.read(name, 0, rows) for name in WHOLE)
        return PatchGrid.from_description(self._described, coords, lattice)

    def status(self) -> Job[NDArray[np.uint8]]:
        """Read the status of all rows, as a job.

        Yields
        ------
        Progress
            In rows, after each block.

        Returns
        -------
        ndarray of uint8, shape (N,)
            Rows that were never written are pending.

        Raises
        ------
        FeatureError
            If a chunk is missing or damaged, or a value is unknown.
        """
        rows = int(self._shape("status")[0])
        status = np.full(rows, Status.PENDING, np.uint8)
        meter = Meter(f"Reading the status of {self.path.name}", rows, "rows")
        for start in range(0, rows, self.block):
            stop = min(start + self.block, rows)
            chunk = self.path / "status" / "c" / str(start // self.block)
            if not (self.complete or chunk.exists()):
                break
            status[start:stop] = self.read("status", start, stop)
            yield meter.advance(stop - start)
        unknown = np.flatnonzero(~np.isin(status, _KNOWN))
        if len(unknown):
            row = unknown[0]
            raise FeatureError(
                f"status: row {row} is {status[row]}, which is not a status"
            )
        return status

    def done(self, status: NDArray[np.uint8]) -> int:
        """Count the rows that are written in whole blocks.

        Parameters
        ----------
        status : ndarray of uint8, shape (N,)
            As :meth:`status` returns it.

        Returns
        -------
        int
            Rows from the first.

        Raises
        ------
        FeatureError
            If the file is marked as complete and rows are pending.
        """
        pending = np.flatnonzero(status == Status.PENDING)
        if not len(pending):
            return len(status)
        if self.complete:
            raise FeatureError(
                f"status: row {pending[0]} is not written, but the file is marked as "
                "complete"
            )
        # A block in which rows are missing is written again by a resumed extraction.
        return int(pending[0]) // self.block * self.block

    def check_counts(self, status: NDArray[np.uint8]) -> None:
        """Check that the stored counts agree with the status.

        Parameters
        ----------
        status : ndarray of uint8, shape (N,)
            As :meth:`status` returns it.

        Raises
        ------
        FeatureError
            If they differ.
        """
        stated = self.provenance.get("counts")
        values, counts = np.unique(status, return_counts=True)
        actual = {
            Status(int(value)).name.lower(): int(count)
            for value, count in zip(values, counts, strict=True)
        }
        if stated is not None and stated != actual:
            raise FeatureError(
                f"provenance.counts are {stated}, the status has {actual}"
            )

    def _shape(self, name: str) -> tuple[int, ...]:
        array: Any = self._group[name]
        shape: tuple[int, ...] = array.shape
        return shape


def _guarded(where: str, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except OSError:
        raise
    # zarr and codecs raise errors of many kinds for a damaged chunk.
    except Exception as error:  # noqa: BLE001
        message = str(error).split(". Stored:")[0]
        raise FeatureError(f"{where}: {message or type(error).__name__}") from error
