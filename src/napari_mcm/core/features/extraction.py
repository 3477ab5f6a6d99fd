"""Extraction: threads read patches ahead while encoders compute."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from napari_mcm import __version__
from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.config import BatchSize
from napari_mcm.core.features.feature_set import FeatureSet, Status
from napari_mcm.core.features.lease import hold
from napari_mcm.core.features.outputs import Output
from napari_mcm.core.features.patches import stream_patches
from napari_mcm.core.features.reading import read_features
from napari_mcm.core.features.request import Counts, as_begun
from napari_mcm.core.features.store import FeatureStore
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.jobs import Job, Meter, Note
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
        :func:`~napari_mcm.core.features.request.request_of`.

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
        for (encoder, path), lease in zip(missing, leases, strict=True):
            store = FeatureStore.open(path, grid, encoder.describe(), block, overwrite)
            if store.done:
                yield Note(
                    f"{path.name}: going on at patch {store.done + 1}/{len(grid)}"
                )
            outputs.append(Output(store, lease, encoder, batch_size))
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
