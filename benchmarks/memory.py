"""Resident memory while every patch of a slide of 100,000 × 100,000 px is read.

python benchmarks/memory.py [SLIDE] [--size 100000]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from sparse_slide import write_sparse_slide

from napari_mcm.core.features.patches import stream_patches
from napari_mcm.core.grid import GridConfig, make_grid
from napari_mcm.core.slides import open_slide
from napari_mcm.core.tissue import TissueMask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slide", nargs="?", type=Path)
    parser.add_argument("--size", type=int, default=100_000)
    options = parser.parse_args()
    process = psutil.Process()
    with tempfile.TemporaryDirectory() as folder:
        path = options.slide
        if path is None:
            path = write_sparse_slide(Path(folder) / "sparse.tif", options.size)
        with open_slide(path) as slide:
            everywhere = TissueMask(
                np.ones((1, 1), bool), tuple(map(float, slide.size))
            )
            grid = make_grid(slide, everywhere, GridConfig(mpp=max(slide.mpp)))
            began, seen = time.perf_counter(), []
            step = max(len(grid) // 100, 1)
            for number, _ in enumerate(stream_patches(slide, grid), start=1):
                if number % step == 0:
                    seen.append(process.memory_info().rss / 2**20)
            seconds = time.perf_counter() - began
    early, late = seen[9], seen[-1]
    print(
        f"{len(grid):,} patches in {seconds:.0f} s ({len(grid) / seconds:,.0f} a second, "
        f"two threads): {early:,.0f} MB at 10 %, {late:,.0f} MB at the end, "
        f"{min(seen[9:]):,.0f} to {max(seen[9:]):,.0f} MB between"
    )


if __name__ == "__main__":
    main()
