"""Benchmark of reading and extraction: each stage measured alone, and the whole."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from napari_mcm.core.encoders import ComputeConfig, Encoder, load_encoders
from napari_mcm.core.errors import GridError
from napari_mcm.core.features.extraction import extract
from napari_mcm.core.features.format import feature_path
from napari_mcm.core.features.patches import measure
from napari_mcm.core.grid import GridConfig, PatchGrid, make_grid
from napari_mcm.core.runtime.jobs import Job, Progress
from napari_mcm.core.slides import ReadConfig, Slide
from napari_mcm.core.synthetic import SampleConfig, generate_cohort
from napari_mcm.core.tissue import TissueConfig, find_tissue

_BYTES_AT_A_TIME = 2**20


class BenchConfig(BaseModel):
    """What to measure, and on which slide."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    what: Literal["read", "extract"] = Field(
        "extract", description="What to measure: read, or extract."
    )
    slide: Path | None = Field(
        None, description="Slide to measure on; by default a generated one."
    )
    encoder: str = Field(
        "offline:efficientnet_lite0",
        description="A timm name, offline:NAME, a run or a safetensors file.",
    )
    patches: int = Field(
        256, ge=8, le=100_000, description="Number of neighbouring tissue patches."
    )
    workers: int = Field(2, ge=1, le=64, description="Threads that read slides ahead.")
    read: ReadConfig = ReadConfig()
    grid: GridConfig = GridConfig()
    tissue: TissueConfig = TissueConfig()
    compute: ComputeConfig = ComputeConfig()


@dataclass(frozen=True)
class Stage:
    """One stage of the pipeline, measured alone.

    Attributes
    ----------
    name : str
        Name of the stage.
    seconds : float
        Seconds for all patches on one thread (`encode`: on all threads that it uses).
    threads : int
        Number of threads that run it at the same time in an extraction.
    """

    name: str
    seconds: float
    threads: int = 1


@dataclass(frozen=True)
class BenchResult:
    """Result of a benchmark.

    Attributes
    ----------
    slide : str
        Name of the slide.
    patches : int
        Number of patches measured.
    stages : tuple of Stage
        In the order of the pipeline.
    rates : dict of str to float
        Patches per second of whole runs.
    """

    slide: str
    patches: int
    stages: tuple[Stage, ...]
    rates: dict[str, float]

    @property
    def bottleneck(self) -> str:
        """Return the stage that takes longest where all of them overlap.

        Stages that readers do in turn count together, shared among their threads.

        Returns
        -------
        str
            Name of the stage.
        """
        reading = [stage for stage in self.stages if stage.threads > 1]
        shared = sum(stage.seconds / stage.threads for stage in reading)
        alone = max(
            (stage for stage in self.stages if stage.threads == 1),
            key=lambda stage: stage.seconds,
            default=None,
        )
        if alone is not None and alone.seconds >= shared:
            return alone.name
        return max(reading, key=lambda stage: stage.seconds).name


def bench(config: BenchConfig) -> Job[BenchResult]:
    """Measure reading or extraction, stage by stage, as a job.

    Parameters
    ----------
    config : BenchConfig
        What to measure, and on which slide.

    Yields
    ------
    Event
        The stage that is measured.

    Returns
    -------
    BenchResult
        Seconds by stage, and rates of whole runs.

    Raises
    ------
    GridError
        If the slide holds no tissue.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = config.slide or (yield from _sample(Path(folder)))
        with config.read.open(path) as slide:
            grid = _some_patches(slide, config)
            stages = [*(yield from _reading(path, slide, grid, config))]
            rates = {"read, one thread": _read_rate(path, grid, config, 1)}
            yield Progress("Reading with threads", 0, None)
            rates[f"read, {config.workers} threads"] = _read_rate(
                path, grid, config, config.workers
            )
            if config.what == "extract":
                (encoder,) = yield from load_encoders([config.encoder], config.compute)
                stages += yield from _encoding(slide, grid, encoder, config)
                rates |= yield from _extracting(path, grid, encoder, config, folder)
        return BenchResult(slide.name, len(grid), tuple(stages), rates)


def _sample(folder: Path) -> Job[Path]:
    cohort = yield from generate_cohort(folder, SampleConfig(slides=1, size=4000))
    return cohort.slides[0]


def _some_patches(slide: Slide, config: BenchConfig) -> PatchGrid:
    grid = make_grid(slide, find_tissue(slide, config.tissue), config.grid)
    if not len(grid):
        raise GridError("holds no tissue to measure on", slide.path)
    keep = slice(0, config.patches)
    return PatchGrid.from_description(
        grid.describe(), grid.xy[keep], grid.lattice[keep]
    )


def _reading(
    path: Path, slide: Slide, grid: PatchGrid, config: BenchConfig
) -> Job[list[Stage]]:
    """Time reading bytes, decoding tiles, and resampling decoded tiles to patches."""
    level = slide.levels[slide.plan(grid.mpp).level]
    needed = _tiles_under(slide, grid)
    yield Progress("Decoding", 0, len(needed), "tiles")
    slide.cache.clear()
    decode = _timed(lambda: [level.source.decode(*tile) for tile in needed])
    width, height = level.source.tile_size
    whole = -(-level.size[0] // width) * -(-level.size[1] // height)
    share = len(needed) / whole
    read = min(_time_to_read(path) * share, decode)
    size = (grid.patch_size, grid.patch_size)
    corners = [(int(x), int(y)) for x, y in grid.xy]
    yield Progress("Resampling", 0, len(grid))
    cut = _timed(lambda: list(slide.read_many(corners, size, grid.mpp)))
    return [
        Stage("read", read, config.workers),
        Stage("decode", decode - read, config.workers),
        Stage("resample", cut, config.workers),
    ]


def _encoding(
    slide: Slide, grid: PatchGrid, encoder: Encoder, config: BenchConfig
) -> Job[list[Stage]]:
    """Time the quality measures and the encoder, on pixels in memory."""
    size = (grid.patch_size, grid.patch_size)
    some = [slide.read(xy, size, grid.mpp) for xy in grid.xy[: 4 * encoder.chunk]]
    pixels = np.stack(some)
    measuring = _timed(lambda: [measure(patch, grid.mpp) for patch in pixels])
    encoder.encode(pixels[: encoder.chunk])
    yield Progress("Encoding", 0, None)
    seconds = _timed(lambda: encoder.encode(pixels))
    times = len(grid) / len(pixels)
    return [
        Stage("quality", measuring * times, config.workers),
        Stage("encode", seconds * times),
    ]


def _extracting(
    path: Path, grid: PatchGrid, encoder: Encoder, config: BenchConfig, folder: str
) -> Job[dict[str, float]]:
    """Time the whole extraction, on a newly opened file."""
    with config.read.open(path) as slide:
        file = feature_path(Path(folder) / "features", slide)
        began = time.perf_counter()
        yield from extract(slide, grid, encoder, file, workers=config.workers)
        return {"extract": len(grid) / (time.perf_counter() - began)}


def _read_rate(path: Path, grid: PatchGrid, config: BenchConfig, threads: int) -> float:
    """Read all patches in order from a newly opened file, divided among threads."""
    corners = [(int(x), int(y)) for x, y in grid.xy]
    size, share = (grid.patch_size, grid.patch_size), -(-len(corners) // threads)
    parts = [corners[i : i + share] for i in range(0, len(corners), share)]
    with config.read.open(path) as slide, ThreadPoolExecutor(threads) as pool:
        seconds = _timed(
            lambda: list(
                pool.map(
                    lambda part: list(slide.read_many(part, size, grid.mpp)), parts
                )
            )
        )
    return len(corners) / seconds


def _tiles_under(slide: Slide, grid: PatchGrid) -> list[tuple[int, int]]:
    level = slide.levels[slide.plan(grid.mpp).level]
    width, height = level.source.tile_size
    found: set[tuple[int, int]] = set()
    for x, y in grid.xy:
        left, top = x / level.downsample[0], y / level.downsample[1]
        right = left + grid.patch_size_level0[0] / level.downsample[0]
        bottom = top + grid.patch_size_level0[1] / level.downsample[1]
        last = (min(bottom, level.size[1]) - 1e-6, min(right, level.size[0]) - 1e-6)
        for row in range(int(top // height), int(last[0] // height) + 1):
            for column in range(int(left // width), int(last[1] // width) + 1):
                found.add((row, column))
    return sorted(found)


def _time_to_read(path: Path) -> float:
    """Time reading a slide's files from start to end; 0 for remote ones."""
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]

    def read() -> None:
        for file in files:
            if file.is_file():
                with file.open("rb") as opened:
                    while opened.read(_BYTES_AT_A_TIME):
                        pass

    return _timed(read)


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
