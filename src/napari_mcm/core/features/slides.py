"""Extraction over many slides: one feature file a slide, failures told and survived."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from napari_mcm.core.encoders import Encoder, load_encoder
from napari_mcm.core.errors import ConfigError, McmError, SlideError
from napari_mcm.core.features.config import ExtractConfig
from napari_mcm.core.features.extract import extract
from napari_mcm.core.features.feature_set import FeatureSet, Status
from napari_mcm.core.features.store import feature_path
from napari_mcm.core.grid import common_mpp, make_grid
from napari_mcm.core.jobs import Job, Note, Progress
from napari_mcm.core.slides import Slide, open_slide
from napari_mcm.core.tissue import find_tissue


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
        Over the whole job.
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
    slides, failed = _look_at(config)
    mpp = common_mpp(slides, config.grid)
    files: list[Path] = []
    patches = 0
    for slide in slides:
        try:
            with closing(slide):
                features = yield from _one(slide, encoder, config, mpp)
        except McmError as error:
            failed.append(str(error))
            yield Note(str(error), "warning")
            continue
        files.append(feature_path(config.out, slide))
        patches += int(features.ok.sum())
        bad = int((features.status == Status.DECODE_ERROR).sum())
        if bad:
            failed.append(f"{slide.path}: {bad} patches could not be decoded")
    seconds = time.monotonic() - began
    return ExtractResult(
        tuple(files), len(files), patches, tuple(failed), patches / seconds, seconds
    )


def _look_at(config: ExtractConfig) -> tuple[list[Slide], list[str]]:
    """Open all slides once, so that their resolutions are known before work begins."""
    slides: list[Slide] = []
    failed: list[str] = []
    for path in config.slides:
        try:
            slide = open_slide(path, config.mpp_override)
            _ = slide.mpp
        except SlideError as error:
            failed.append(str(error))
            continue
        slides.append(slide)
    names = [slide.name for slide in slides]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"several slides are named {twice[0]}", hint="Extract them to apart folders"
        )
    return slides, failed


def _one(
    slide: Slide, encoder: Encoder, config: ExtractConfig, mpp: float
) -> Job[FeatureSet]:
    yield Progress(f"Finding tissue on {slide.name}", 0, None)
    grid_config = config.grid.model_copy(update={"mpp": mpp})
    grid = make_grid(slide, find_tissue(slide, config.tissue), grid_config)
    if not len(grid):
        yield Note(f"{slide.name} holds no tissue", "warning")
    return (
        yield from extract(
            slide,
            grid,
            encoder,
            feature_path(config.out or Path(), slide),
            batch_size=config.batch_size,
            workers=config.workers,
            block=config.block,
            overwrite=config.overwrite,
        )
    )
