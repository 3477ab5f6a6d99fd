"""The chunks of a feature file, read one at a time: none of them is believed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.feature_set import Status
from napari_mcm.core.features.layout import OPTIONAL
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.jobs import Job, Meter

WHOLE = ("coords", "lattice")
"""Arrays of one chunk."""

_KNOWN = [int(status) for status in Status]


class Chunks:
    """A file whose metadata are sound; its chunks need not be."""

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
        """Read rows, which are one chunk, or none where there are none."""
        array: Any = self._group[name]
        if start == stop:
            return np.empty((0, *array.shape[1:]), array.dtype)
        number = start // array.chunks[0]
        chunk = (
            self.path
            / name
            / array.metadata.encode_chunk_key((number,) + (0,) * (array.ndim - 1))
        )
        if not chunk.exists():
            raise FeatureError(
                f"{name}: the chunk of rows {start} to {stop} is missing"
            )
        where = f"{name}: rows {start} to {stop}"
        return np.asarray(_guarded(where, lambda: array[start:stop]))

    def grid(self) -> PatchGrid:
        """Rebuild the grid; a GridError says what is wrong with it."""
        rows = int(self._shape("coords")[0])
        coords, lattice = (self.read(name, 0, rows) for name in WHOLE)
        return PatchGrid.from_description(self._described, coords, lattice)

    def status(self) -> Job[NDArray[np.uint8]]:
        """Read the status of all rows; what was never written is pending."""
        rows = int(self._shape("status")[0])
        status = np.full(rows, Status.PENDING, np.uint8)
        meter = Meter(f"Looking into {self.path.name}", rows, "rows")
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
                f"status: row {row} is {status[row]}, which means nothing"
            )
        return status

    def done(self, status: NDArray[np.uint8]) -> int:
        """Count the rows that are written in whole blocks."""
        pending = np.flatnonzero(status == Status.PENDING)
        if not len(pending):
            return len(status)
        if self.complete:
            raise FeatureError(
                f"status: row {pending[0]} is not written, yet the file says that it is "
                "complete"
            )
        return int(pending[0]) // self.block * self.block

    def check_counts(self, status: NDArray[np.uint8]) -> None:
        """See that the counts that are kept are those of the status."""
        stated = self.provenance.get("counts")
        values, counts = np.unique(status, return_counts=True)
        found = {
            Status(int(value)).name.lower(): int(count)
            for value, count in zip(values, counts, strict=True)
        }
        if stated is not None and stated != found:
            raise FeatureError(
                f"provenance.counts are {stated}, the status has {found}"
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
        said = str(error).split(". Stored:")[0]
        raise FeatureError(f"{where}: {said or type(error).__name__}") from error
