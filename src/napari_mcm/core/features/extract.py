"""Extraction: threads read patches ahead while the encoder computes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_mcm import __version__
from napari_mcm.core.errors import TileError
from napari_mcm.core.features.config import BatchSize
from napari_mcm.core.features.feature_set import FeatureSet, Status
from napari_mcm.core.features.store import FeatureStore, read_features
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.jobs import Job, Meter, Note
from napari_mcm.core.prefetch import prefetch
from napari_mcm.core.slides import Slide

if TYPE_CHECKING:
    from napari_mcm.core.encoders import Encoder

AUTO_BATCH = {"cpu": 16}
GPU_BATCH = 256
BLANK_SPREAD = 2
"""Patches whose pixels span no more grey levels than this show nothing."""

MOST_REASONS = 20


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
        Progress in patches, a batch at a time.

    Returns
    -------
    FeatureSet

    Raises
    ------
    FeatureError
        If there is a file made in another way, or it cannot be written.
    """
    path = Path(path)
    store = FeatureStore.open(path, grid, encoder.describe(), block, overwrite)
    if store.complete:
        yield Note(f"{path.name} is complete already")
        return read_features(path)
    size = (
        AUTO_BATCH.get(encoder.device.type, GPU_BATCH)
        if batch_size == "auto"
        else batch_size
    )
    began = time.monotonic()
    start = store.done
    if start:
        yield Note(f"{path.name}: going on at patch {start + 1} of {len(grid)}")
    problems = _Problems()
    yield from _fill(store, slide, grid, encoder, start, size, workers, problems)
    store.finish(
        {
            "software": f"napari-mcm {__version__}",
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - began, 3),
            "problems": problems.reasons,
        }
    )
    features = read_features(path)
    bad = int((features.status == Status.DECODE_ERROR).sum())
    if bad:
        reason = f"; first: {problems.reasons[0]}" if problems.reasons else ""
        yield Note(
            f"{slide.name}: {bad} of {len(grid)} patches could not be decoded{reason}",
            "warning",
        )
    return features


def _fill(
    store: FeatureStore,
    slide: Slide,
    grid: PatchGrid,
    encoder: Encoder,
    start: int,
    batch_size: int,
    workers: int,
    problems: _Problems,
) -> Job[None]:
    """Encode batch after batch and write whole blocks."""
    meter = Meter(f"Extracting {slide.name}", len(grid), done=start)
    rows: list[NDArray[np.float32]] = []
    states: list[NDArray[np.uint8]] = []
    written = start
    batches = list(_batches(start, len(grid), batch_size, store.block))
    reading = prefetch(
        lambda batch: _read_batch(slide, grid, batch), batches, workers, ahead=6
    )
    try:
        yield meter.progress()
        for batch, (pixels, status, reasons) in zip(batches, reading, strict=True):
            features = np.full((len(batch), encoder.dim), np.nan, np.float32)
            if len(pixels):
                features[status == Status.OK] = encoder.encode(pixels)
            problems.add(reasons)
            rows.append(features)
            states.append(status)
            if batch.stop % store.block == 0 or batch.stop == len(grid):
                store.write(written, np.concatenate(rows), np.concatenate(states))
                written = batch.stop
                rows, states = [], []
            yield meter.advance(len(batch))
    finally:
        reading.close()


@dataclass
class _Problems:
    """Why patches have no features: the first few reasons."""

    reasons: list[str] = field(default_factory=list)

    def add(self, reasons: list[str]) -> None:
        room = MOST_REASONS - len(self.reasons)
        new = [r for r in dict.fromkeys(reasons) if r not in self.reasons]
        self.reasons.extend(new[: max(room, 0)])


def _batches(start: int, stop: int, size: int, block: int) -> Iterator[range]:
    """Cut rows into batches that never cross a block's border."""
    while start < stop:
        end = min(start + size, (start // block + 1) * block, stop)
        yield range(start, end)
        start = end


_Read = tuple[NDArray[np.uint8], NDArray[np.uint8], list[str]]


def _read_batch(slide: Slide, grid: PatchGrid, batch: range) -> _Read:
    """Read patches; returns the good ones' pixels, all statuses, and reasons."""
    side = grid.patch_size
    pixels = np.empty((len(batch), side, side, 3), np.uint8)
    status = np.zeros(len(batch), np.uint8)
    reasons = []
    for place, row in enumerate(batch):
        x, y = grid.xy[row]
        try:
            pixels[place] = slide.read((x, y), (side, side), grid.mpp)
        except TileError as error:
            status[place] = Status.DECODE_ERROR
            reasons.append(str(error))
            continue
        # A sample tells nearly always that a patch is not blank; only then look at all.
        sample = pixels[place, ::16, ::16]
        if np.ptp(sample) <= BLANK_SPREAD and np.ptp(pixels[place]) <= BLANK_SPREAD:
            status[place] = Status.BLANK
    return pixels[status == Status.OK], status, reasons
