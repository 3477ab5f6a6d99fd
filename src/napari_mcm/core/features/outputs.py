"""Feature files that are being filled: one an encoder, from the same patches."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.features.config import BatchSize
from napari_mcm.core.features.feature_set import Status
from napari_mcm.core.features.lease import Lease
from napari_mcm.core.features.patches import Patch
from napari_mcm.core.features.quality import MEASURES
from napari_mcm.core.features.store import FeatureStore

if TYPE_CHECKING:
    from napari_mcm.core.encoders import Encoder

_CPU_BATCH = 16
_GPU_BATCH = 256
_SLOW_BATCH = 0.5


class Output:
    """One encoder's features on their way to their file.

    Parameters
    ----------
    store : FeatureStore
        Not complete.
    lease : Lease
        Of its file; looked at before anything is written.
    encoder : Encoder
        Loaded.
    batch_size : int or "auto"
        Patches at a time.

    Attributes
    ----------
    done : int
        Rows that are in the file or in the block that is being filled.
    """

    def __init__(
        self, store: FeatureStore, lease: Lease, encoder: Encoder, batch_size: BatchSize
    ) -> None:
        self._store, self._lease, self._encoder = store, lease, encoder
        self.pace = Pace(batch_size, encoder)
        self.done = self._written = store.done
        self._features = np.empty((store.block, encoder.dim), np.float32)
        self._status = np.empty(store.block, np.uint8)
        self._quality = {name: np.empty(store.block, np.float32) for name in MEASURES}
        self._problems: list[str] = []

    def next_stop(self, row: int) -> int:
        """Tell up to which row a batch that starts at a row may go."""
        return (
            self._written + self._store.block if row >= self._written else self._written
        )

    def take(self, row: int, batch: Sequence[Patch], last: bool) -> None:
        """Encode a batch, and write the block that it fills.

        Parameters
        ----------
        row : int
            Of its first patch. What is in the file already is left alone.
        batch : sequence of Patch
            Not beyond :meth:`next_stop`.
        last : bool
            Whether it ends with the grid's last patch.
        """
        if row < self._written:
            return
        stop = row + len(batch)
        part = slice(row - self._written, stop - self._written)
        self._features[part] = self._encode(batch)
        self._status[part] = [patch.status for patch in batch]
        for name, values in self._quality.items():
            values[part] = [patch.quality.get(name, np.nan) for patch in batch]
        self._problems += [patch.problem for patch in batch if patch.problem]
        self.done = stop
        if last or part.stop == self._store.block:
            self._write(part.stop)

    @property
    def counts(self) -> dict[str, int]:
        """How many patches that are written have which status."""
        return self._store.counts

    def finish(self, provenance: Mapping[str, Any]) -> None:
        """Mark the file as complete."""
        self._lease.check()
        self._store.finish(provenance)

    def _write(self, rows: int) -> None:
        self._lease.check()
        measured = {name: values[:rows] for name, values in self._quality.items()}
        self._store.write(
            self._written,
            self._features[:rows],
            self._status[:rows],
            self._problems,
            measured,
        )
        self._written, self._problems = self.done, []

    def _encode(self, batch: Sequence[Patch]) -> NDArray[np.float32]:
        """Encode what can be encoded; the other rows are NaN."""
        good = [i for i, patch in enumerate(batch) if patch.status == Status.OK]
        features = np.full((len(batch), self._encoder.dim), np.nan, np.float32)
        if good:
            pixels = np.stack([p.pixels for p in batch if p.pixels is not None])
            began = time.monotonic()
            features[good] = self._encoder.encode(pixels)
            self.pace.adapt(time.monotonic() - began)
        return features


class Pace:
    """How many patches are encoded at a time, so that a cancel is heard in between.

    Parameters
    ----------
    batch_size : int or "auto"
        As many as that; or as many, up to 16, as a CPU does in half a second.
    encoder : Encoder
        Where it computes decides what is automatic.
    """

    def __init__(self, batch_size: BatchSize, encoder: Encoder) -> None:
        self._adapts = batch_size == "auto" and encoder.device.type == "cpu"
        self._least = encoder.chunk
        automatic = self._least if self._adapts else _GPU_BATCH
        self.size = automatic if batch_size == "auto" else batch_size

    def adapt(self, seconds: float) -> None:
        """Hear how long a batch took."""
        if not self._adapts:
            return
        if seconds > _SLOW_BATCH:
            self.size = max(self.size // 2, self._least)
        elif seconds < _SLOW_BATCH / 2:
            self.size = min(self.size * 2, max(_CPU_BATCH, self._least))
