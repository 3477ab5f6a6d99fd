"""Extraction: threads read patches ahead while encoders compute."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm import __version__
from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.config import BatchSize, Counts, as_begun
from napari_mcm.core.features.feature_set import FeatureSet, Status
from napari_mcm.core.features.patches import MEASURES, Patch, stream_patches
from napari_mcm.core.features.reading import read_features
from napari_mcm.core.features.store import FeatureStore
from napari_mcm.core.features.write_lock import WriteLock, hold
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.runtime.jobs import Job, Meter, Note
from napari_mcm.core.slides import Slide

if TYPE_CHECKING:
    from napari_mcm.core.encoders import Encoder


def extract(
    slide: Slide,
    grid: PatchGrid,
    encoder: Encoder,
    path: str | Path,
    *,
    batch_size: BatchSize = "auto",
    workers: int = 2,
    block: int = 256,
    overwrite: bool = False,
) -> Job[FeatureSet]:
    """Compute the features of a slide's patches into a feature file.

    A file that is complete and made the same way is read and given back; one that was
    broken off is gone on with at its next block.

    Parameters
    ----------
    slide : Slide
        Open.
    grid : PatchGrid
        Of this slide.
    encoder : Encoder
        Loaded.
    path : str or Path
        ``<slide>.features.zarr``.
    batch_size : int or "auto"
        Patches a batch; no part of the result.
    workers : int
        Threads that read ahead; no part of the result.
    block : int
        Rows written at a time.
    overwrite : bool
        Replace a file that was made in another way.

    Yields
    ------
    Event
        Progress in patches, a batch at a time; notes.

    Returns
    -------
    FeatureSet

    Raises
    ------
    FeatureError
        If the grid is another slide's, there is a file made in another way, or it
        cannot be written.
    LeaseHeldError
        If another process is writing the file.
    """
    path = Path(path)
    yield from write_features(
        slide,
        grid,
        [(encoder, path)],
        batch_size=batch_size,
        workers=workers,
        block=block,
        overwrite=overwrite,
    )
    return read_features(path)


def write_features(
    slide: Slide,
    grid: PatchGrid,
    targets: Sequence[tuple[Encoder, Path]],
    *,
    batch_size: BatchSize = "auto",
    workers: int = 2,
    block: int = 256,
    overwrite: bool = False,
    request: str = "",
) -> Job[Counts]:
    """Compute features by several encoders, reading each patch once.

    Features pass through memory a block at a time, however many there are.

    Parameters
    ----------
    slide, grid
        As for :func:`extract`.
    targets : sequence of (Encoder, Path)
        Encoders, and the feature file of each.
    batch_size, workers, block, overwrite
        As for :func:`extract`.
    request : str
        What was asked, kept in the files; see
        :func:`~napari_mcm.core.features.config.request_of`.

    Returns
    -------
    dict of str to int
        How many patches have which status, the same in all files.
    """
    _check_same(slide, grid)
    began = time.monotonic()
    targets = [(as_begun(encoder, path), path) for encoder, path in targets]
    missing = []
    for encoder, path in targets:
        store = FeatureStore.find(path, grid, encoder.describe(), overwrite)
        if store is not None and store.complete:
            yield Note(f"{path.name} is complete already: its features are taken as is")
        else:
            missing.append((encoder, path))
    with hold([path for _, path in missing]) as leases:
        outputs = []
        for (encoder, path), write_lock in zip(missing, leases, strict=True):
            store = FeatureStore.open(path, grid, encoder.describe(), block, overwrite)
            if store.done:
                yield Note(
                    f"{path.name}: going on at patch {store.done + 1}/{len(grid)}"
                )
            outputs.append(Output(store, write_lock, encoder, batch_size))
        if outputs:
            yield from _fill(outputs, slide, grid, workers)
        for output in outputs:
            output.finish(_provenance(began, output.counts, request))
    encoder, path = targets[0]
    written = FeatureStore.find(path, grid, encoder.describe())
    assert written is not None
    yield from _tell_problems(slide, written.counts)
    return written.counts


def _check_same(slide: Slide, grid: PatchGrid) -> None:
    if grid.slide["fingerprint"] != slide.fingerprint:
        raise FeatureError(
            f"patches were laid on another slide ({grid.slide['name']})", slide.path
        )
    if grid.slide.get("icc", False) != slide.asked.icc:
        raise FeatureError("is opened with other colours than its grid", slide.path)


def _provenance(began: float, counts: Counts, request: str) -> dict[str, object]:
    return {
        "request": request,
        "counts": counts,
        "software": f"napari-mcm {__version__}",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - began, 3),
    }


def _fill(
    outputs: Sequence[Output], slide: Slide, grid: PatchGrid, workers: int
) -> Job[None]:
    """Encode batch after batch; each output writes whole blocks of its own."""
    row = min(output.done for output in outputs)
    meter = Meter(f"Extracting {slide.name}", len(grid), done=row)
    patches = stream_patches(slide, grid, row, workers)
    try:
        yield meter.progress()
        while row < len(grid):
            size = min(output.pace.size for output in outputs)
            ends = [output.next_stop(row) for output in outputs]
            stop = min(row + size, len(grid), *ends)
            batch = list(islice(patches, stop - row))
            if any(patch.status == Status.DECODE_ERROR for patch in batch):
                # A server that went away must not look like a damaged slide.
                slide.check_unchanged()
            for output in outputs:
                output.take(row, batch, last=stop == len(grid))
                # Between encoders too, so that a cancel need not wait for all of them.
                yield meter.progress()
            row = stop
            yield meter.advance(len(batch))
    finally:
        patches.close()


def _tell_problems(slide: Slide, counts: Counts) -> Job[None]:
    for status, what in (
        (Status.DECODE_ERROR, "could not be decoded"),
        (Status.BLANK, "are blank"),
        (Status.OUTSIDE, "reach beyond the slide"),
    ):
        count = counts.get(status.name.lower(), 0)
        if count:
            yield Note(
                f"{slide.name}: {count} of {sum(counts.values())} patches {what} and "
                "have no features",
                "warning" if status == Status.DECODE_ERROR else "info",
            )


_CPU_BATCH = 16

_GPU_BATCH = 256

_SLOW_BATCH = 0.5


class Output:
    """One encoder's features on their way to their file.

    Parameters
    ----------
    store : FeatureStore
        Not complete.
    write_lock : WriteLock
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
        self,
        store: FeatureStore,
        write_lock: WriteLock,
        encoder: Encoder,
        batch_size: BatchSize,
    ) -> None:
        self._store, self._write_lock, self._encoder = store, write_lock, encoder
        self.pace = AdaptiveBatchSize(batch_size, encoder)
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
        self._write_lock.check()
        self._store.finish(provenance)

    def _write(self, rows: int) -> None:
        self._write_lock.check()
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


class AdaptiveBatchSize:
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
