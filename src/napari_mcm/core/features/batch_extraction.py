"""Extraction over many slides: one feature file a slide, failures told and survived."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from napari_mcm.core.encoders import Encoder, load_encoders
from napari_mcm.core.errors import ConfigError, McmError, OutputError, SlideError
from napari_mcm.core.features.config import Counts, ExtractConfig, as_in
from napari_mcm.core.features.extraction import write_features
from napari_mcm.core.features.remote_store import RemoteFeatureStore
from napari_mcm.core.features.slide_prefetch import (
    Finished,
    Plan,
    Prepared,
    Ready,
    SlidePrefetcher,
)
from napari_mcm.core.features.write_lock import WriteLockHeldError
from napari_mcm.core.grid import DEFAULT_MPP, GridConfig, PatchGrid
from napari_mcm.core.runtime.jobs import Job, Note, Progress
from napari_mcm.core.tissue.mask import FOUND

_WAIT_S = 1.0


WORTH_COMPILING = 3000
"""Patches of a slide from which compiling the encoder pays for itself."""


def extract_slides(
    config: ExtractConfig, encoders: Sequence[Encoder] = ()
) -> Job[ExtractResult]:
    """Compute the features of a set of slides.

    Parameters
    ----------
    config : ExtractConfig
        Slides, encoders, output folder and options.
    encoders : sequence of Encoder
        The configured ones, where they are loaded already.

    Yields
    ------
    Event
        Progress of each slide, notes.

    Returns
    -------
    ExtractResult

    Raises
    ------
    ConfigError
        If slides or the output folder are missing, or two slides have one name.
    WeightsError
        If the encoder cannot be loaded.
    OutputError
        If the disk is full, or the folder cannot be written to. What is written
        already is gone on from.
    """
    check_asked(config)
    tally = ExtractionStats()
    yield Progress("Loading the encoder", 0, None, "encoders")
    if not encoders:
        encoders = yield from load_encoders(config.encoder, config.compute)
    folders = tuple(_folders(config))
    encoders = [as_in(f, e) for f, e in zip(folders, encoders, strict=True)]
    paths, grid_config, failed = look_at(config)
    for line in failed:
        yield from tally.fail(line)
    plan = Plan(
        config,
        grid_config,
        folders,
        tuple(encoders),
        RemoteFeatureStore(config.publish) if config.publish else None,
    )
    ahead = SlidePrefetcher(paths, plan)
    waits = 0
    try:
        while ahead.left:
            path, ready = yield from ahead.take()
            found = yield from tally.follow(_bring(ready, plan))
            if isinstance(found, WriteLockHeldError):
                # Once all that are left are held, there is nothing to do but to wait.
                waits += 1
                if waits > ahead.left:
                    yield from _wait(found)
                ahead.put_back(path)
                continue
            waits = 0
            if isinstance(found, McmError):
                yield from tally.fail(str(found))
            elif not isinstance(ready, McmError):
                tally.count(path, ready.files, found)
    finally:
        ahead.close()
    return tally.result()


def _bring(ready: Ready | McmError, plan: Plan) -> Job[Counts | McmError]:
    """See that a slide's files are complete, and published where that is asked."""
    if isinstance(ready, McmError):
        return ready
    if isinstance(ready, Finished):
        counts = ready.counts
        for file in ready.files:
            yield Note(f"{file.name} is complete already: its features are taken as is")
    else:
        found = yield from _extract_one(ready, plan.config)
        if isinstance(found, McmError):
            return found
        counts = found
    if plan.remote is not None:
        for file in filter(Path.exists, ready.files):
            yield from plan.remote.put_once(file, plan.name(file))
    return counts


def _wait(held: WriteLockHeldError) -> Job[None]:
    until = time.monotonic() + _WAIT_S
    while time.monotonic() < until:
        yield Progress(f"{Path(str(held.where)).name} {held.what}; waiting", 0, None)
        time.sleep(0.1)


def check_asked(config: ExtractConfig) -> None:
    """See that there is something to do.

    Raises
    ------
    ConfigError
        If slides or the output folder are missing.
    """
    if not config.slides:
        raise ConfigError("no slides given")
    if config.out is None:
        raise ConfigError("no output folder given", hint="Choose one with --out")


def _folders(config: ExtractConfig) -> list[Path]:
    """Name a folder for each encoder; with one encoder it is the output folder."""
    assert config.out is not None
    if len(config.encoder) == 1:
        return [config.out]
    names = [_folder_name(spec) for spec in config.encoder]
    if len(set(names)) < len(names):
        raise ConfigError(
            f"several encoders would be named {max(names, key=names.count)}",
            hint="Extract with them one after the other",
        )
    return [config.out / name for name in names]


def _folder_name(spec: str) -> str:
    path = Path(spec)
    if path.exists():
        # A run holds its encoder in a folder of that name.
        path = path.resolve()
        spec = path.parent.name if path.stem == "encoder" else path.stem
    return re.sub(r"[^\w.-]+", "-", spec).strip("-.") or "encoder"


def look_at(config: ExtractConfig) -> tuple[list[Path], GridConfig, list[str]]:
    """Settle the resolution, for which every slide is opened once.

    Returns
    -------
    paths : list of Path
        Slides that can be opened and state a resolution.
    grid_config : GridConfig
        With one resolution for all of them.
    failed : list of str
        A line for each of the others.
    """
    mpps: dict[Path, float] = {}
    names: set[str] = set()
    failed: list[str] = []
    for path in config.slides:
        try:
            with config.read.open(path) as slide:
                mpps[path] = max(slide.mpp)
                name = slide.name
        except SlideError as error:
            failed.append(str(error))
            continue
        if name in names:
            raise ConfigError(
                f"several slides are named {name}",
                hint="Extract them into separate folders",
            )
        names.add(name)
    if config.grid.mpp != "auto" or not mpps:
        return list(mpps), config.grid, failed
    mpp = max(DEFAULT_MPP, *mpps.values())
    return list(mpps), config.grid.model_copy(update={"mpp": mpp}), failed


def _extract_one(ready: Prepared, config: ExtractConfig) -> Job[Counts | McmError]:
    """Extract a slide by all encoders, and close it."""
    slide, grid = ready.slide, ready.grid
    encoders: Sequence[Encoder] = ready.encoders
    try:
        if ready.tissue != FOUND:
            yield Note(f"{slide.name}: tissue as drawn in {ready.tissue}")
        if not len(grid):
            yield Note(f"{slide.name} holds no tissue", "warning")
        if _is_worth_compiling(config, grid):
            encoders = yield from _compiled(encoders)
        return (
            yield from write_features(
                slide,
                grid,
                list(zip(encoders, ready.files, strict=True)),
                batch_size=config.batch_size,
                workers=config.workers,
                block=config.block,
                overwrite=config.overwrite,
                request=ready.request,
            )
        )
    except OutputError:
        raise
    except McmError as error:
        return error
    finally:
        slide.close()


def _is_worth_compiling(config: ExtractConfig, grid: PatchGrid) -> bool:
    """Decide by the slide alone: a broken-off file must go on as it was begun."""
    if config.compile == "auto":
        return len(grid) >= WORTH_COMPILING
    return config.compile == "on"


def _compiled(encoders: Sequence[Encoder]) -> Job[list[Encoder]]:
    found = []
    for encoder in encoders:
        yield Progress(f"Compiling {encoder.architecture}", 0, None)
        faster, problem = encoder.compiled()
        if problem:
            yield Note(f"{encoder.architecture} is not compiled: {problem}")
        found.append(faster)
    return found


_Result = TypeVar("_Result")


@dataclass(frozen=True)
class ExtractResult:
    """What an extraction over slides leaves.

    Attributes
    ----------
    files : tuple of Path
        Complete feature files, those that were there already among them.
    slides, patches : int
        How many have features now.
    failed : tuple of str
        A line for each slide, or number of patches, that could not be read.
    patches_per_s : float
        While patches were extracted; 0 where all features were there already.
    seconds : float
        Time of the whole job.
    """

    files: tuple[Path, ...]
    slides: int
    patches: int
    failed: tuple[str, ...]
    patches_per_s: float
    seconds: float


class ExtractionStats:
    """What there is so far: files, patches, and the time that these take."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._files: list[Path] = []
        self._failed: list[str] = []
        self._slides = self._patches = 0
        self._extracted, self._seconds = 0, 0.0

    def fail(self, line: str) -> Job[None]:
        """Note what cannot be read."""
        self._failed.append(line)
        yield Note(line, "warning")

    def count(self, path: Path, files: Sequence[Path], counts: Counts) -> None:
        """Add a slide's files."""
        self._slides += 1
        # Another machine's files may be where they are published only.
        self._files += filter(Path.exists, files)
        self._patches += counts.get("ok", 0)
        damaged = counts.get("decode_error", 0)
        if damaged:
            self._failed.append(f"{path}: {damaged} patches could not be decoded")

    def result(self) -> ExtractResult:
        """Sum up."""
        return ExtractResult(
            tuple(self._files),
            self._slides,
            self._patches,
            tuple(self._failed),
            self._extracted / self._seconds if self._seconds else 0.0,
            time.monotonic() - self._began,
        )

    def follow(self, job: Job[_Result]) -> Job[_Result]:
        """Pass a job's events on, and count by them."""
        marks: list[tuple[int, float]] = []
        try:
            while True:
                event = next(job)
                if isinstance(event, Progress) and event.total is not None:
                    marks = [*marks[:1], (event.done, time.monotonic())]
                yield event
        except StopIteration as end:
            result: _Result = end.value
            return result
        finally:
            job.close()
            if marks:
                self._extracted += marks[-1][0] - marks[0][0]
                self._seconds += marks[-1][1] - marks[0][1]
