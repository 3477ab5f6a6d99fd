"""Extraction of features from one slide, with reader threads ahead of the encoders.

Threads read and decode patches in the grid's order while the encoders compute. Features
are written by blocks of rows, so that memory does not grow with the slide, and an
interrupted file resumes at its next block.
"""

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
from napari_mcm.core.encoders.cost import measure_cost
from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.config import BatchSize, Counts, in_precision_of_file
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
    """Compute the features of a slide's patches into a feature file, as a job.

    A complete file of the same identity is read and returned; an interrupted one resumes
    at its next block.

    Parameters
    ----------
    slide : Slide
        Open.
    grid : PatchGrid
        Patches of this slide.
    encoder : Encoder
        The encoder.
    path : str or Path
        ``<slide>.features.zarr``.
    batch_size : int or "auto", optional
        Patches per batch; features do not depend on it.
    workers : int, optional
        Threads that read ahead; features do not depend on it.
    block : int, optional
        Rows per block of a new file.
    overwrite : bool, optional
        Whether to replace a file of another identity.

    Yields
    ------
    Event
        Progress in patches, after each batch, and notes.

    Returns
    -------
    FeatureSet
        Features of all patches.

    Raises
    ------
    FeatureError
        If the grid is another slide's, the file has another identity, or it cannot be
        written.
    WriteLockHeldError
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
    """Compute features with several encoders, as a job that reads each patch once.

    One block of features per encoder is in memory.

    Parameters
    ----------
    slide : Slide
        Open.
    grid : PatchGrid
        Patches of this slide.
    targets : sequence of (Encoder, Path)
        Encoders, and the feature file of each.
    batch_size : int or "auto", optional
        Patches per batch; features do not depend on it.
    workers : int, optional
        Threads that read ahead; features do not depend on it.
    block : int, optional
        Rows per block of a new file.
    overwrite : bool, optional
        Whether to replace files of another identity.
    request : str, optional
        Hash of the options, stored in the files; see
        :func:`~napari_mcm.core.features.config.request_of`.

    Yields
    ------
    Event
        Progress in patches, after each batch, and notes.

    Returns
    -------
    dict of str to int
        Number of patches by status, the same in all files.

    Raises
    ------
    FeatureError
        If the grid is another slide's, a file has another identity, or it cannot be
        written.
    WriteLockHeldError
        If another process is writing one of the files.
    """
    _check_same(slide, grid)
    began = time.monotonic()
    # An interrupted file resumes in its own precision, so that its rows are comparable.
    targets = [(in_precision_of_file(encoder, path), path) for encoder, path in targets]
    missing = []
    for encoder, path in targets:
        store = FeatureStore.find(path, grid, encoder.describe(), overwrite)
        if store is not None and store.complete:
            yield Note(f"{path.name} is complete already: its features are reused")
        else:
            missing.append((encoder, path))
    # Opened only under the lock: another process may be writing the same file.
    with hold([path for _, path in missing]) as locks:
        outputs = []
        for (encoder, path), write_lock in zip(missing, locks, strict=True):
            about = encoder.describe() | measure_cost(encoder, grid.patch_size).record()
            store = FeatureStore.open(path, grid, about, block, overwrite)
            if store.done:
                yield Note(
                    f"{path.name}: resuming at patch {store.done + 1}/{len(grid)}"
                )
            outputs.append(Output(store, write_lock, encoder, batch_size))
        if outputs:
            yield from _fill(outputs, slide, grid, workers)
        for output in outputs:
            output.finish(_provenance(began, output.counts, request))
    encoder, path = targets[0]
    written = FeatureStore.find(path, grid, encoder.describe())
    assert written is not None
    yield from _report_problems(slide, written.counts)
    return written.counts


def _check_same(slide: Slide, grid: PatchGrid) -> None:
    if grid.slide["fingerprint"] != slide.fingerprint:
        raise FeatureError(
            f"the grid belongs to another slide ({grid.slide['name']})", slide.path
        )
    if grid.slide.get("icc", False) != slide.opened_with.icc:
        raise FeatureError(
            "is opened with another colour correction (ICC) than its grid",
            slide.path,
            "Make the grid again with the same --icc",
        )


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
    """Encode batch after batch; each output writes its own blocks."""
    # Outputs may have stopped at different rows: those ahead skip batches until then.
    row = min(output.done for output in outputs)
    meter = Meter(f"Extracting {slide.name}", len(grid), done=row)
    patches = stream_patches(slide, grid, row, workers)
    try:
        yield meter.progress()
        while row < len(grid):
            size = min(output.batch_size.current for output in outputs)
            ends = [output.next_stop(row) for output in outputs]
            stop = min(row + size, len(grid), *ends)
            batch = list(islice(patches, stop - row))
            if any(patch.status == Status.DECODE_ERROR for patch in batch):
                # An unreachable file server must not count as a damaged slide.
                slide.check_unchanged()
            for output in outputs:
                output.take(row, batch, last=stop == len(grid))
                # Also between encoders, so that a cancel does not wait for all of them.
                yield meter.progress()
            row = stop
            yield meter.advance(len(batch))
    finally:
        patches.close()


def _report_problems(slide: Slide, counts: Counts) -> Job[None]:
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

# Seconds; a cancel acts between batches.
_SLOW_BATCH = 0.5


class Output:
    """The features of one encoder, collected into blocks for their file.

    Parameters
    ----------
    store : FeatureStore
        Not complete.
    write_lock : WriteLock
        Lock of its file, checked before each write.
    encoder : Encoder
        The encoder.
    batch_size : int or "auto"
        Patches per batch.

    Attributes
    ----------
    batch_size : AdaptiveBatchSize
        The batch size, which may adapt.
    done : int
        Rows that are in the file or in the current block.
    """

    def __init__(
        self,
        store: FeatureStore,
        write_lock: WriteLock,
        encoder: Encoder,
        batch_size: BatchSize,
    ) -> None:
        self._store, self._write_lock, self._encoder = store, write_lock, encoder
        self.batch_size = AdaptiveBatchSize(batch_size, encoder)
        self.done = self._written = store.done
        self._features = np.empty((store.block, encoder.dim), np.float32)
        self._status = np.empty(store.block, np.uint8)
        self._quality = {name: np.empty(store.block, np.float32) for name in MEASURES}
        self._problems: list[str] = []

    def next_stop(self, row: int) -> int:
        """Return the row at which a batch must end, so that it fits the block.

        Parameters
        ----------
        row : int
            First row of the batch.

        Returns
        -------
        int
            The row after the last one that the batch may contain.
        """
        return (
            self._written + self._store.block if row >= self._written else self._written
        )

    def take(self, row: int, batch: Sequence[Patch], last: bool) -> None:
        """Encode a batch, and write the block that it fills.

        Parameters
        ----------
        row : int
            Row of its first patch; rows that are in the file already are skipped.
        batch : sequence of Patch
            Patches up to :meth:`next_stop`, at most.
        last : bool
            Whether it ends with the grid's last patch.
        """
        if row < self._written:
            return
        stop = row + len(batch)
        part = slice(row - self._written, stop - self._written)
        self._features[part] = encode_patches(self._encoder, batch, self.batch_size)
        self._status[part] = [patch.status for patch in batch]
        for name, values in self._quality.items():
            values[part] = [patch.quality.get(name, np.nan) for patch in batch]
        self._problems += [patch.problem for patch in batch if patch.problem]
        self.done = stop
        if last or part.stop == self._store.block:
            self._write(part.stop)

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of written patches by status.

        Returns
        -------
        dict of str to int
            As :attr:`FeatureStore.counts`.
        """
        return self._store.counts

    def finish(self, provenance: Mapping[str, Any]) -> None:
        """Mark the file as complete.

        Parameters
        ----------
        provenance : mapping
            When and with what the features were made, as JSON types.
        """
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


def encode_patches(
    encoder: Encoder, batch: Sequence[Patch], batch_size: AdaptiveBatchSize
) -> NDArray[np.float32]:
    """Encode the readable patches of a batch.

    Parameters
    ----------
    encoder : Encoder
        Of D features.
    batch : sequence of Patch
        B patches.
    batch_size : AdaptiveBatchSize
        Is adapted to the time that this takes.

    Returns
    -------
    ndarray of float32, shape (B, D)
        NaN for patches that could not be read.
    """
    readable = [i for i, patch in enumerate(batch) if patch.status == Status.OK]
    features = np.full((len(batch), encoder.dim), np.nan, np.float32)
    if readable:
        # (B, side, side, 3)
        pixels = np.stack([p.pixels for p in batch if p.pixels is not None])
        began = time.monotonic()
        features[readable] = encoder.encode(pixels)
        batch_size.adapt(time.monotonic() - began)
    return features


class AdaptiveBatchSize:
    """A batch size that keeps batches short on a CPU, so that a cancel acts soon.

    Parameters
    ----------
    batch_size : int or "auto"
        A fixed size; or automatic: up to 16 patches, as many as a CPU computes in half
        a second.
    encoder : Encoder
        Its device decides the automatic size.

    Attributes
    ----------
    current : int
        Patches in the next batch.
    """

    def __init__(self, batch_size: BatchSize, encoder: Encoder) -> None:
        self._adapts = batch_size == "auto" and encoder.device.type == "cpu"
        self._least = encoder.chunk
        automatic = self._least if self._adapts else _GPU_BATCH
        self.current = automatic if batch_size == "auto" else batch_size

    def adapt(self, seconds: float) -> None:
        """Adapt the size to the duration of a batch.

        Parameters
        ----------
        seconds : float
            Duration of the last batch.
        """
        if not self._adapts:
            return
        if seconds > _SLOW_BATCH:
            self.current = max(self.current // 2, self._least)
        elif seconds < _SLOW_BATCH / 2:
            self.current = min(self.current * 2, max(_CPU_BATCH, self._least))
