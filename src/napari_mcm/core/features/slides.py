"""Extraction over many slides: one feature file a slide, failures told and survived."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from napari_mcm.core.encoders import Encoder, load_encoder
from napari_mcm.core.errors import ConfigError, McmError, SlideError
from napari_mcm.core.features.config import ExtractConfig
from napari_mcm.core.features.extraction import extract
from napari_mcm.core.features.feature_set import FeatureSet, Status
from napari_mcm.core.features.store import feature_path
from napari_mcm.core.grid import DEFAULT_MPP, GridConfig, make_grid
from napari_mcm.core.jobs import Job, Note, Progress
from napari_mcm.core.slides import Slide
from napari_mcm.core.tissue import find_tissue
from napari_mcm.core.tissue.mask import FOUND


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


def extract_slides(config: ExtractConfig) -> Job[ExtractResult]:
    """Compute the features of a set of slides.

    Parameters
    ----------
    config : ExtractConfig
        Slides, encoder, output folder and options.

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
    """
    if not config.slides:
        raise ConfigError("no slides given")
    if config.out is None:
        raise ConfigError("no output folder given", hint="Choose one with --out")
    began = time.monotonic()
    yield Progress("Loading the encoder", 0, None, "encoders")
    encoder = load_encoder(config.encoder, config.compute)
    paths, grid_config, failed = _look_at(config)
    for line in failed:
        yield Note(line, "warning")
    tally = _Tally()
    files: list[Path] = []
    patches = 0
    for path in paths:
        try:
            with config.read.open(path) as slide:
                file = feature_path(config.out, slide)
                job = _extract_one(slide, encoder, config, grid_config, file)
                features = yield from tally.follow(job)
        except McmError as error:
            failed.append(str(error))
            yield Note(str(error), "warning")
            continue
        files.append(file)
        patches += int(features.ok.sum())
        damaged = int((features.status == Status.DECODE_ERROR).sum())
        if damaged:
            failed.append(f"{path}: {damaged} patches could not be decoded")
    seconds = time.monotonic() - began
    return ExtractResult(
        tuple(files), len(files), patches, tuple(failed), tally.rate, seconds
    )


def _look_at(config: ExtractConfig) -> tuple[list[Path], GridConfig, list[str]]:
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


class _Tally:
    """Patches that are extracted now, and the time that takes."""

    def __init__(self) -> None:
        self._patches, self._seconds = 0, 0.0

    @property
    def rate(self) -> float:
        """Patches a second, 0 where everything was there already."""
        return self._patches / self._seconds if self._seconds else 0.0

    def follow(self, job: Job[FeatureSet]) -> Job[FeatureSet]:
        """Pass a job's events on, and count by them."""
        marks: list[tuple[int, float]] = []
        try:
            while True:
                event = next(job)
                if isinstance(event, Progress) and event.total is not None:
                    marks = [*marks[:1], (event.done, time.monotonic())]
                yield event
        except StopIteration as end:
            features: FeatureSet = end.value
            return features
        finally:
            job.close()
            if marks:
                self._patches += marks[-1][0] - marks[0][0]
                self._seconds += marks[-1][1] - marks[0][1]


def _extract_one(
    slide: Slide,
    encoder: Encoder,
    config: ExtractConfig,
    grid_config: GridConfig,
    file: Path,
) -> Job[FeatureSet]:
    yield Progress(f"Finding tissue on {slide.name}", 0, None)
    tissue = find_tissue(slide, config.tissue)
    if tissue.source != FOUND:
        yield Note(f"{slide.name}: tissue as drawn in {tissue.source}")
    grid = make_grid(slide, tissue, grid_config)
    if not len(grid):
        yield Note(f"{slide.name} holds no tissue", "warning")
    return (
        yield from extract(
            slide,
            grid,
            encoder,
            file,
            batch_size=config.batch_size,
            workers=config.workers,
            block=config.block,
            overwrite=config.overwrite,
        )
    )
