"""Patches read a second: this package, OpenSlide, and tifffile's zarr view.

All tissue patches of one slide are read in order, at native resolution and resampled to
1.0 µm per pixel, by one thread and by two (each reads one half). The readers take turns
in the same process. OpenSlide's and zarr's pixels are resampled with Pillow's box filter,
which is quicker and less exact than the area averaging of this package.

    python benchmarks/read.py [SLIDE] [--rounds 5] [--readers openslide zarr]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openslide
import tifffile
import zarr
from PIL import Image

from napari_mcm.core.grid import GridConfig, PatchGrid, make_grid
from napari_mcm.core.runtime.jobs import run
from napari_mcm.core.slides import open_slide
from napari_mcm.core.synthetic import SampleConfig, generate_cohort
from napari_mcm.core.tissue import find_tissue

SIDE = 224
Corners = Sequence[tuple[int, int]]
Reader = Callable[[Corners], None]


def ours(path: Path, mpp: float) -> tuple[Reader, Callable[[], None]]:
    slide = open_slide(path)

    def read(corners: Corners) -> None:
        for pixels in slide.read_many(corners, (SIDE, SIDE), mpp):
            assert isinstance(pixels, np.ndarray) and pixels.shape == (SIDE, SIDE, 3)

    return read, slide.close


def shrunk(image: Image.Image, factor: float) -> np.ndarray:
    if image.size != (SIDE, SIDE):
        box = (0, 0, SIDE * factor, SIDE * factor)
        image = image.resize((SIDE, SIDE), Image.Resampling.BOX, box=box)
    return np.asarray(image)


def with_openslide(path: Path, mpp: float) -> tuple[Reader, Callable[[], None]]:
    slide = openslide.OpenSlide(path)
    own = float(slide.properties["openslide.mpp-x"])
    level = slide.get_best_level_for_downsample(mpp / own + 0.01)
    factor = mpp / own / slide.level_downsamples[level]
    size = (int(np.ceil(SIDE * factor - 1e-6)),) * 2

    def read(corners: Corners) -> None:
        for xy in corners:
            shrunk(slide.read_region(xy, level, size).convert("RGB"), factor)

    return read, slide.close


def with_zarr(path: Path, mpp: float) -> tuple[Reader, Callable[[], None]]:
    with open_slide(path) as slide:
        plan = slide.plan(mpp)
        downsample = slide.levels[plan.level].downsample[0]
    tiff = tifffile.TiffFile(path)
    page = tiff.series[0].levels[plan.level].keyframe
    view = zarr.open_array(page.aszarr(), mode="r")
    factor = plan.factor[0]
    size = int(np.ceil(SIDE * factor - 1e-6))

    def read(corners: Corners) -> None:
        for x, y in corners:
            x, y = round(x / downsample), round(y / downsample)
            shrunk(Image.fromarray(view[y : y + size, x : x + size]), factor)

    return read, tiff.close


READERS = {"openslide": with_openslide, "zarr": with_zarr}


def rate(make: Callable, path: Path, grid: PatchGrid, threads: int) -> float:
    """Patches a second, the file opened anew so that no tile is decoded yet."""
    corners = [(int(x), int(y)) for x, y in grid.xy]
    read, close = make(path, grid.mpp)
    share = -(-len(corners) // threads)
    parts = [corners[i : i + share] for i in range(0, len(corners), share)]
    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        list(pool.map(read, parts))
        seconds = time.perf_counter() - began
    close()
    return len(corners) / seconds


def measure(
    path: Path, mpp: float | None, threads: int, readers: list[str], rounds: int
) -> None:
    with open_slide(path) as slide:
        mpp = mpp or max(slide.mpp)
        grid = make_grid(slide, find_tissue(slide), GridConfig(mpp=mpp))
    rates: dict[str, list[float]] = {name: [] for name in ["ours", *readers]}
    for _ in range(rounds):
        for name, found in rates.items():
            found.append(rate(READERS.get(name, ours), path, grid, threads))
    median = {name: float(np.median(found)) for name, found in rates.items()}
    best = max(median[name] for name in readers)
    text = ", ".join(f"{name} {value:,.0f}" for name, value in median.items())
    print(
        f"{path.name} {mpp:.4g} µm/px, {threads} thread(s), {len(grid)} patches: "
        f"{text} patches/s; {median['ours'] / best:.2f} times the better"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slide", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--readers", nargs="+", default=list(READERS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.slide
        if path is None:
            config = SampleConfig(slides=1, size=6000)
            path = run(generate_cohort(Path(folder), config)).slides[0]
        for mpp in (None, 1.0):
            for threads in (1, 2):
                measure(path, mpp, threads, options.readers, options.rounds)


if __name__ == "__main__":
    main()
