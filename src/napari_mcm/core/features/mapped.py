"""The features of a file, mapped into memory and read some rows at a time.

Chunks of a feature file are plain numbers followed by a checksum: the system maps them
into memory and reads what is used. Each chunk's checksum is compared the first time. Files
of other programs may be packed; zarr unpacks their rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.features.feature_set import FeatureSet, Status
from napari_mcm.core.features.format import damaged
from napari_mcm.core.features.reading import assemble, open_complete, read_array
from napari_mcm.core.grid import PatchGrid

_TYPES = {"float32": "<f4", "float16": "<f2"}

_CHECKSUM_BYTES = 4

_PART_BYTES = 1 << 18

_SAMPLED = 8
"""Chunks that :attr:`MappedFeatures.stamp` looks at."""


class MappedFeatures:
    """A complete feature file whose features stay on the disk.

    Parameters
    ----------
    path : Path
        ``<slide>.features.zarr``.

    Attributes
    ----------
    path : Path
        As given.
    grid : PatchGrid
        Positions of the N patches.
    status : ndarray of uint8, shape (N,)
        A :class:`~napari_mcm.core.features.feature_set.Status` per patch.
    encoder : dict
        The encoder's recipe and fingerprint.
    provenance : dict
        When and with what it was made.
    dim : int
        Length of a feature vector, D.

    Raises
    ------
    FeatureError
        If it is missing, incomplete, damaged, or not a feature file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._group, attributes = open_complete(path, only_required=True)
        features: Any = self._group["features"]
        self.dim = int(features.shape[1])
        try:
            names = ("coords", "lattice", "status")
            arrays = {name: read_array(self._group, name) for name in names}
            none = np.zeros((len(arrays["status"]), 0), np.float32)
            rest = assemble(attributes, arrays, none)
        # zarr and codecs raise many kinds of errors for damaged files.
        except Exception as error:  # noqa: BLE001
            problem = damaged(path, getattr(error, "what", error))
            raise problem from error
        self.grid, self.status = rest.grid, rest.status
        self.encoder, self.provenance = rest.encoder, rest.provenance
        self._chunks: dict[int, NDArray[Any]] = {}
        self._layout = _plain_layout(path)

    def __len__(self) -> int:
        return len(self.status)

    @property
    def ok(self) -> NDArray[np.bool_]:
        """Which patches have features.

        Returns
        -------
        ndarray of bool, shape (N,)
        """
        return np.asarray(self.status == Status.OK)

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """Read the features of patches that follow each other.

        Parameters
        ----------
        start, stop : int
            The patches.

        Returns
        -------
        ndarray of float32, shape (stop - start, D)
            A copy, or a view of the file that must not be written to.

        Raises
        ------
        FeatureError
            If a chunk is missing, too short, or does not fit its checksum.
        """
        stop = min(stop, len(self))
        if self._layout is None:
            return np.asarray(self._unpacked(start, stop), np.float32)
        block = self._layout[0]
        parts = [
            self._chunk(number)[max(start - number * block, 0) : stop - number * block]
            for number in range(start // block, -(-stop // block))
        ]
        if len(parts) == 1:
            return np.asarray(parts[0], np.float32)
        if not parts:
            return np.empty((0, self.dim), np.float32)
        return np.concatenate(parts, dtype=np.float32)

    def subset(self, kept: NDArray[np.int64]) -> FeatureSet:
        """Read some patches as a feature set of their own.

        Parameters
        ----------
        kept : ndarray of int64, shape (M,)
            The patches, ascending.

        Returns
        -------
        FeatureSet
            Of these patches, at their places of the slide's lattice.

        Raises
        ------
        FeatureError
            As for :meth:`rows`.
        """
        grid = self.grid
        part = PatchGrid(
            grid.xy[kept],
            grid.lattice[kept],
            grid.patch_size,
            grid.mpp,
            grid.patch_size_level0,
            grid.origin,
            grid.shape,
            grid.slide,
        )
        values = np.empty((len(kept), self.dim), np.float32)
        # Runs of neighbouring rows are read together.
        ends = np.flatnonzero(np.diff(kept) != 1) + 1
        edges = [0, *ends.tolist(), len(kept)] if len(kept) else [0]
        for first, last in zip(edges, edges[1:], strict=False):
            values[first:last] = self.rows(int(kept[first]), int(kept[last - 1]) + 1)
        return FeatureSet(
            values, part, self.status[kept], self.encoder, self.provenance
        )

    @cached_property
    def stamp(self) -> str:
        """A hash of the metadata, and of the checksums of some chunks.

        It changes when the file is written again with other content, and not when it is
        copied.

        Returns
        -------
        str
            16 hexadecimal digits.
        """
        return stamp_of_file(self.path)

    def _chunk(self, number: int) -> NDArray[Any]:
        """Map a chunk, and compare its checksum the first time."""
        assert self._layout is not None
        if (known := self._chunks.get(number)) is not None:
            return known
        block, kind = self._layout
        file = _chunk_file(self.path, number)
        bytes_of_rows = block * self.dim * np.dtype(kind).itemsize
        try:
            raw = np.memmap(file, np.uint8, mode="r")
        except (OSError, ValueError) as error:
            problem = damaged(self.path, f"chunk {number} of features: {error}")
            raise problem from error
        if len(raw) != bytes_of_rows + _CHECKSUM_BYTES:
            problem = damaged(
                self.path,
                f"chunk {number} of features has {len(raw):,} bytes, not "
                f"{bytes_of_rows + _CHECKSUM_BYTES:,}",
            )
            raise problem
        stored = int.from_bytes(raw[bytes_of_rows:].tobytes(), "little")
        if _checksum(raw[:bytes_of_rows]) != stored:
            problem = damaged(self.path, f"chunk {number} of features: checksum")
            raise problem
        values = raw[:bytes_of_rows].view(kind).reshape(block, self.dim)
        self._chunks[number] = values
        return values

    def _unpacked(self, start: int, stop: int) -> NDArray[Any]:
        features: Any = self._group["features"]
        try:
            return np.asarray(features[start:stop])
        # zarr and codecs raise many kinds of errors for a damaged chunk.
        except Exception as error:  # noqa: BLE001
            problem = damaged(self.path, f"features: {error}")
            raise problem from error


def stamp_of_file(path: Path) -> str:
    """Return what changes when a feature file is written again with other content.

    Parameters
    ----------
    path : Path
        The feature file.

    Returns
    -------
    str
        16 hexadecimal digits, of the metadata and of the checksums of some chunks.

    Raises
    ------
    FeatureError
        If the file cannot be read.
    """
    digest = blake2b(digest_size=8)
    try:
        digest.update((path / "zarr.json").read_bytes())
        described = (path / "features" / "zarr.json").read_bytes()
        digest.update(described)
        shape = json.loads(described)
        rows = int(shape["shape"][0])
        block = int(shape["chunk_grid"]["configuration"]["chunk_shape"][0])
        chunks = -(-rows // max(block, 1))
        for number in np.unique(
            np.linspace(0, max(chunks - 1, 0), _SAMPLED).astype(int)
        ):
            digest.update(_tail(_chunk_file(path, int(number))))
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        problem = damaged(path, error)
        raise problem from error
    return digest.hexdigest()


def rows_of_file(path: Path) -> int:
    """Return the number of patches that a feature file states, without its features.

    Parameters
    ----------
    path : Path
        The feature file; it need not exist.

    Returns
    -------
    int
        0 where it cannot be read.
    """
    try:
        described = json.loads((path / "features" / "zarr.json").read_bytes())
        return int(described["shape"][0])
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
        return 0


def _checksum(raw: NDArray[np.uint8]) -> int:
    """Return the CRC32C of bytes; by parts that stay in the processor's cache."""
    found = 0
    for start in range(0, len(raw), _PART_BYTES):
        found = google_crc32c.extend(found, raw[start : start + _PART_BYTES].tobytes())
    return int(found)


def _tail(file: Path) -> bytes:
    """Return a chunk's last bytes, its checksum, or nothing where it is missing."""
    if not file.is_file():
        return b""
    with file.open("rb") as opened:
        opened.seek(max(file.stat().st_size - 16, 0))
        return opened.read()


def _chunk_file(path: Path, number: int) -> Path:
    return path / "features" / "c" / str(number) / "0"


def _plain_layout(path: Path) -> tuple[int, str] | None:
    """Return rows per chunk and NumPy type of features that can be mapped, else None."""
    try:
        described: Mapping[str, Any] = json.loads(
            (path / "features" / "zarr.json").read_bytes()
        )
        codecs = [codec["name"] for codec in described["codecs"]]
        endian = described["codecs"][0].get("configuration", {}).get("endian")
        grid = described["chunk_grid"]
        rows, columns = grid["configuration"]["chunk_shape"]
        plain = (
            codecs == ["bytes", "crc32c"]
            and endian == "little"
            and grid["name"] == "regular"
            and described["chunk_key_encoding"]["name"] == "default"
            and described["chunk_key_encoding"]["configuration"]["separator"] == "/"
            and int(columns) == int(described["shape"][1])
            and described["data_type"] in _TYPES
        )
        return (int(rows), _TYPES[described["data_type"]]) if plain else None
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None
