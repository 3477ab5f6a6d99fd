"""Extraction: threads read patches ahead while the encoder computes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_mcm import __version__
from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.config import BatchSize
from napari_mcm.core.features.feature_set import FeatureSet, Status
from napari_mcm.core.features.patches import Patch, stream_patches
from napari_mcm.core.features.quality import MEASURES
from napari_mcm.core.features.store import FeatureStore, read_features
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.jobs import Job, Meter, Note
from napari_mcm.core.slides import Slide

if TYPE_CHECKING:
    from napari_mcm.core.encoders import Encoder

_CPU_BATCH = 16
_GPU_BATCH = 256
_SLOW_BATCH = 0.5


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
    """
    path = Path(path)
    if grid.slide["fingerprint"] != slide.fingerprint:
        raise FeatureError(
            f"patches were laid on another slide ({grid.slide['name']})", slide.path
        )
    if grid.slide.get("icc", False) != slide.asked.icc:
        raise FeatureError("is opened with other colours than its grid", slide.path)
    store = FeatureStore.open(path, grid, encoder.describe(), block, overwrite)
    if store.complete:
        features = read_features(path)
        yield Note(f"{path.name} is complete already: its features are taken as is")
    else:
        began = time.monotonic()
        if store.done:
            yield Note(f"{path.name}: going on at patch {store.done + 1}/{len(grid)}")
        pace = _Pace(batch_size, encoder)
        yield from _fill(store, slide, grid, encoder, pace, workers)
        store.finish(
            {
                "software": f"napari-mcm {__version__}",
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": round(time.monotonic() - began, 3),
            }
        )
        features = read_features(path)
    yield from _tell_problems(slide, features)
    return features


def _fill(
    store: FeatureStore,
    slide: Slide,
    grid: PatchGrid,
    encoder: Encoder,
    pace: _Pace,
    workers: int,
) -> Job[None]:
    """Encode batch after batch and write whole blocks."""
    row = written = store.done
    meter = Meter(f"Extracting {slide.name}", len(grid), done=row)
    features = np.empty((store.block, encoder.dim), np.float32)
    status = np.empty(store.block, np.uint8)
    quality = {name: np.empty(store.block, np.float32) for name in MEASURES}
    problems: list[str] = []
    patches = stream_patches(slide, grid, row, workers)
    try:
        yield meter.progress()
        while row < len(grid):
            stop = min(row + pace.size, written + store.block, len(grid))
            batch = list(islice(patches, stop - row))
            part = slice(row - written, stop - written)
            features[part] = pace.encode(encoder, batch)
            status[part] = [patch.status for patch in batch]
            for name, values in quality.items():
                values[part] = [patch.quality.get(name, np.nan) for patch in batch]
            problems += [patch.problem for patch in batch if patch.problem]
            row = stop
            if row in (written + store.block, len(grid)):
                rows = row - written
                measured = {name: values[:rows] for name, values in quality.items()}
                store.write(written, features[:rows], status[:rows], problems, measured)
                written, problems = row, []
            yield meter.advance(len(batch))
    finally:
        patches.close()


class _Pace:
    """How many patches are encoded at a time, so that a cancel is heard in between.

    Parameters
    ----------
    batch_size : int or "auto"
        As many as that; or as many, up to 16, as a CPU does in half a second.
    encoder : Encoder
        Where it computes decides what is automatic.
    """

    def __init__(self, batch_size: BatchSize, encoder: Encoder) -> None:
        self.adapts = batch_size == "auto" and encoder.device.type == "cpu"
        self.least = encoder.chunk
        automatic = self.least if self.adapts else _GPU_BATCH
        self.size = automatic if batch_size == "auto" else batch_size

    def encode(self, encoder: Encoder, batch: Sequence[Patch]) -> NDArray[np.float32]:
        """Encode what can be encoded; the other rows are NaN."""
        good = [i for i, patch in enumerate(batch) if patch.status == Status.OK]
        features = np.full((len(batch), encoder.dim), np.nan, np.float32)
        if good:
            pixels = np.stack([p.pixels for p in batch if p.pixels is not None])
            began = time.monotonic()
            features[good] = encoder.encode(pixels)
            self._adapt(time.monotonic() - began)
        return features

    def _adapt(self, seconds: float) -> None:
        if not self.adapts:
            return
        if seconds > _SLOW_BATCH:
            self.size = max(self.size // 2, self.least)
        elif seconds < _SLOW_BATCH / 2:
            self.size = min(self.size * 2, max(_CPU_BATCH, self.least))


def _tell_problems(slide: Slide, features: FeatureSet) -> Job[None]:
    for status, what in (
        (Status.DECODE_ERROR, "could not be decoded"),
        (Status.BLANK, "are blank"),
        (Status.OUTSIDE, "reach beyond the slide"),
    ):
        count = int((features.status == status).sum())
        if count:
            yield Note(
                f"{slide.name}: {count} of {len(features)} patches {what} and have no "
                "features",
                "warning" if status == Status.DECODE_ERROR else "info",
            )
