"""Extraction over many slides, which writes one feature file per slide and encoder.

A slide that fails is reported and the others continue. A slide that another process is
extracting is tried again after all others.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from napari_mcm.core.encoders import Encoder, load_encoders
from napari_mcm.core.errors import ConfigError, McmError, OutputError, SlideError
from napari_mcm.core.features.config import (
    Counts,
    ExtractConfig,
    in_precision_of_folder,
)
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
from napari_mcm.core.grid import GridConfig, PatchGrid, with_common_mpp
from napari_mcm.core.runtime.jobs import Job, Note, Progress
from napari_mcm.core.runtime.overall import portion
from napari_mcm.core.tissue.mask import FOUND

_WAIT_S = 1.0

_LOADING = 0.05
"""Share of a job that loading the encoders takes, about a second."""


WORTH_COMPILING = 3000
"""Patches per slide from which compiling the encoder saves time."""


def extract_slides(
    config: ExtractConfig, encoders: Sequence[Encoder] = ()
) -> Job[ExtractResult]:
    """Compute the features of a set of slides, as a job.

    Parameters
    ----------
    config : ExtractConfig
        Slides, encoders, output folder and options.
    encoders : sequence of Encoder, optional
        The configured encoders, where they are loaded already.

    Yields
    ------
    Event
        Progress of each slide, and notes.

    Returns
    -------
    ExtractResult
        Files, counts, failures and speed.

    Raises
    ------
    ConfigError
        If slides or the output folder are missing, or two slides have the same name.
    WeightsError
        If an encoder cannot be loaded.
    OutputError
        If the disk is full, or the folder cannot be written to. The next run resumes from
        what is written.
    """
    check_request(config)
    stats = ExtractionStats()
    # Loading takes a share of the whole; every slide has an equal part of the rest.
    yield Progress("Loading the encoder", 0, None, "encoders", overall=0.0)
    if not encoders:
        loading = load_encoders(config.encoder, config.compute)
        encoders = yield from portion(loading, 0.0, _LOADING)
    folders = tuple(_folders(config))
    encoders = [
        in_precision_of_folder(f, e) for f, e in zip(folders, encoders, strict=True)
    ]
    paths, grid_config, failed = find_common_grid(config)
    for line in failed:
        yield from stats.fail(line)
    plan = Plan(
        config,
        grid_config,
        folders,
        tuple(encoders),
        RemoteFeatureStore(config.publish) if config.publish else None,
    )
    ahead = SlidePrefetcher(paths, plan)
    share, done, waits = (1.0 - _LOADING) / max(len(paths), 1), 0, 0
    try:
        while ahead.left:
            start = _LOADING + share * done
            path, ready = yield from portion(ahead.take(), start, start)
            extracting = portion(_complete(ready, plan), start, start + share)
            outcome = yield from stats.follow(extracting)
            if isinstance(outcome, WriteLockHeldError):
                # Wait only when other processes hold all remaining slides.
                waits += 1
                if waits > ahead.left:
                    yield from portion(_wait(outcome), start, start)
                ahead.put_back(path)
                continue
            waits, done = 0, done + 1
            if isinstance(outcome, McmError):
                yield from stats.fail(str(outcome))
            elif not isinstance(ready, McmError):
                stats.count(path, ready.files, outcome)
    finally:
        ahead.close()
    return stats.result()


def _complete(ready: Ready | McmError, plan: Plan) -> Job[Counts | McmError]:
    """Complete a slide's files, and publish them if that is configured."""
    if isinstance(ready, McmError):
        return ready
    if isinstance(ready, Finished):
        counts = ready.counts
        for file in ready.files:
            yield Note(f"{file.name} is complete already: its features are reused")
    else:
        outcome = yield from _extract_one(ready, plan.config)
        if isinstance(outcome, McmError):
            return outcome
        counts = outcome
    if plan.remote is not None:
        for file in filter(Path.exists, ready.files):
            yield from plan.remote.put_once(file, plan.name(file))
    return counts


def _wait(held: WriteLockHeldError) -> Job[None]:
    until = time.monotonic() + _WAIT_S
    while time.monotonic() < until:
        yield Progress(f"{Path(str(held.where)).name} {held.what}; waiting", 0, None)
        time.sleep(0.1)


def check_request(config: ExtractConfig) -> None:
    """Check that slides and an output folder are given.

    Parameters
    ----------
    config : ExtractConfig
        The options.

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
    """Return a folder for each encoder; for a single one, the output folder.

    Raises
    ------
    ConfigError
        If two encoders would share a folder.
    """
    assert config.out is not None
    if len(config.encoder) == 1:
        return [config.out]
    names = [_folder_name(spec) for spec in config.encoder]
    if len(set(names)) < len(names):
        raise ConfigError(
            f"several encoders have the folder name {max(names, key=names.count)}",
            hint="Extract with one encoder per command",
        )
    return [config.out / name for name in names]


def _folder_name(spec: str) -> str:
    path = Path(spec)
    if path.exists():
        # A run's encoder is in its folder "encoder": the run's name is the useful one.
        path = path.resolve()
        spec = path.parent.name if path.stem == "encoder" else path.stem
    return re.sub(r"[^\w.-]+", "-", spec).strip("-.") or "encoder"


def find_common_grid(config: ExtractConfig) -> tuple[list[Path], GridConfig, list[str]]:
    """Open every slide once to find a common resolution.

    Parameters
    ----------
    config : ExtractConfig
        Slides and grid.

    Returns
    -------
    paths : list of Path
        Slides that can be opened and state a resolution.
    grid_config : GridConfig
        With one resolution for all of them, in µm per pixel.
    failed : list of str
        One line per slide that cannot be used.

    Raises
    ------
    ConfigError
        If two slides have the same name.
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
        # Feature files are named after slides: one would overwrite the other.
        if name in names:
            raise ConfigError(
                f"several slides are named {name}",
                hint="Extract them into separate folders",
            )
        names.add(name)
    return list(mpps), with_common_mpp(config.grid, mpps.values()), failed


def _extract_one(ready: Prepared, config: ExtractConfig) -> Job[Counts | McmError]:
    """Extract a slide with all encoders, and close it.

    Raises
    ------
    OutputError
        If the disk is full, which would fail for every slide.
    """
    slide, grid = ready.slide, ready.grid
    encoders: Sequence[Encoder] = ready.encoders
    try:
        if ready.tissue != FOUND:
            yield Note(f"{slide.name}: tissue mask from {ready.tissue}")
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
    # A full disk or a missing folder fails every slide: stop at the first.
    except OutputError:
        raise
    except McmError as error:
        return error
    finally:
        slide.close()


def _is_worth_compiling(config: ExtractConfig, grid: PatchGrid) -> bool:
    """Decide by the slide alone, so that an interrupted file resumes the same way."""
    if config.compile == "auto":
        return len(grid) >= WORTH_COMPILING
    return config.compile == "on"


def _compiled(encoders: Sequence[Encoder]) -> Job[list[Encoder]]:
    compiled = []
    for encoder in encoders:
        yield Progress(f"Compiling {encoder.architecture}", 0, None)
        faster, problem = encoder.compiled()
        if problem:
            yield Note(f"{encoder.architecture} is not compiled: {problem}")
        compiled.append(faster)
    return compiled


_Result = TypeVar("_Result")


@dataclass(frozen=True)
class ExtractResult:
    """The result of an extraction over slides.

    Attributes
    ----------
    files : tuple of Path
        Complete feature files, including those that existed before.
    slides, patches : int
        Number of slides and patches that have features.
    failed : tuple of str
        One line per slide that failed, and per slide with undecodable patches.
    patches_per_s : float
        Patches per second of extraction; 0 where all features existed before.
    seconds : float
        Duration of the whole job.
    """

    files: tuple[Path, ...]
    slides: int
    patches: int
    failed: tuple[str, ...]
    patches_per_s: float
    seconds: float


class ExtractionStats:
    """Counters of an extraction in progress: files, patches, failures and time."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._files: list[Path] = []
        self._failed: list[str] = []
        self._slides = self._patches = 0
        self._extracted, self._seconds = 0, 0.0

    def fail(self, line: str) -> Job[None]:
        """Record a failure and report it, as a job.

        Parameters
        ----------
        line : str
            What failed, and why.

        Yields
        ------
        Note
            A warning.
        """
        self._failed.append(line)
        yield Note(line, "warning")

    def count(self, path: Path, files: Sequence[Path], counts: Counts) -> None:
        """Add a slide's complete files.

        Parameters
        ----------
        path : Path
            The slide.
        files : sequence of Path
            Its feature files.
        counts : dict of str to int
            Number of patches by status.
        """
        self._slides += 1
        # Files of another machine may exist only where they were published.
        self._files += filter(Path.exists, files)
        self._patches += counts.get("ok", 0)
        damaged = counts.get("decode_error", 0)
        if damaged:
            self._failed.append(f"{path}: {damaged} patches could not be decoded")

    def result(self) -> ExtractResult:
        """Return the totals.

        Returns
        -------
        ExtractResult
            As :func:`extract_slides` returns it.
        """
        return ExtractResult(
            tuple(self._files),
            self._slides,
            self._patches,
            tuple(self._failed),
            self._extracted / self._seconds if self._seconds else 0.0,
            time.monotonic() - self._began,
        )

    def follow(self, job: Job[_Result]) -> Job[_Result]:
        """Run a job, and count the patches and seconds of its progress.

        Parameters
        ----------
        job : Job
            The extraction of one slide.

        Yields
        ------
        Event
            The job's events, unchanged.

        Returns
        -------
        object
            What the job returns.
        """
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
            # Also after an error: the rate counts what was computed until then.
            if marks:
                self._extracted += marks[-1][0] - marks[0][0]
                self._seconds += marks[-1][1] - marks[0][1]
