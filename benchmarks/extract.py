"""Extraction against the bare encoder, alternating in one process.

The bare encoder is the model itself in float32 and channels-last layout, fed with tensors
that are ready; extraction also reads and decodes the slide, normalises, and writes the
feature file. A ratio of 1 means that all of this hides behind the computation.
Where other programs use the CPUs too, the ratio of CPU times tells more than the clock's
(take --threads 1 then: idle threads that wait for each other count as busy).

    python benchmarks/extract.py [SLIDE] [--encoders random:resnet18 ...] [--rounds 3]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from napari_mcm.core.encoders import ComputeConfig, Encoder, load_encoder
from napari_mcm.core.features import extract, feature_path
from napari_mcm.core.grid import GridConfig, PatchGrid, make_grid
from napari_mcm.core.runtime.jobs import run
from napari_mcm.core.slides import Slide, open_slide
from napari_mcm.core.synthetic import SampleConfig, generate_cohort
from napari_mcm.core.tissue import find_tissue

ENCODERS = ("random:resnet18", "offline:efficientnet_lite0")
BATCH = 16


def some_patches(slide: Slide, patches: int) -> PatchGrid:
    """The slide's first patches on tissue; they stay neighbours."""
    grid = make_grid(slide, find_tissue(slide), GridConfig())
    keep = slice(0, patches)
    return PatchGrid.from_description(
        grid.describe(), grid.xy[keep], grid.lattice[keep]
    )


def clocks() -> np.ndarray:
    """Seconds that went by, and seconds of all CPUs that this process had."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return np.array([time.perf_counter(), time.process_time()])


def bare(encoder: Encoder, batch: torch.Tensor, patches: int) -> np.ndarray:
    """Clock seconds and CPU seconds a patch of the model's own forward pass."""
    rounds = max(patches // BATCH, 1)
    began = clocks()
    with torch.inference_mode():
        for _ in range(rounds):
            encoder.module(batch)
    return (clocks() - began) / (rounds * BATCH)


def whole(path: Path, grid: PatchGrid, encoder: Encoder, folder: Path) -> np.ndarray:
    """The same of a patch on its way from the slide's file to the feature file."""
    with open_slide(path) as slide:  # anew, so that no tile is decoded yet
        file = feature_path(folder, slide)
        began = clocks()
        run(extract(slide, grid, encoder, file, overwrite=True))
    return (clocks() - began) / len(grid)


def reading(path: Path, grid: PatchGrid) -> float:
    """Patches a second that one thread reads."""
    with open_slide(path) as slide:
        size = (grid.patch_size, grid.patch_size)
        began = time.perf_counter()
        for xy in grid.xy:
            slide.read(xy, size, grid.mpp)
    return len(grid) / (time.perf_counter() - began)


def measure(spec: str, path: Path, grid: PatchGrid, rounds: int) -> None:
    """Print both rates of each round, and the ratio at the median."""
    encoder = load_encoder(spec, ComputeConfig())
    with open_slide(path) as slide:
        size = (grid.patch_size, grid.patch_size)
        pixels = np.stack([slide.read(xy, size, grid.mpp) for xy in grid.xy[:BATCH]])
    batch = encoder.normalise(torch.from_numpy(pixels))
    ratios = []
    for number in range(rounds + 1):
        # Half before and half after, so that a machine's moods even out.
        before = bare(encoder, batch, len(grid) // 2)
        with tempfile.TemporaryDirectory() as folder:
            ours = whole(path, grid, encoder, Path(folder))
        after = bare(encoder, batch, len(grid) // 2)
        model = (before + after) / 2
        if number:  # the first round warms up
            ratios.append(model / ours)
            print(
                f"{spec}: model {1 / model[0]:.1f}, extract {1 / ours[0]:.1f} "
                f"patches/s, ratio {ratios[-1][0]:.2f} (of CPU time {ratios[-1][1]:.2f})"
            )
    clock, cpu = np.median(ratios, axis=0)
    print(
        f"{spec}: median ratio {clock:.2f}, of CPU time {cpu:.2f} "
        f"({encoder.precision}, {encoder.device}, {torch.get_num_threads()} threads)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slide", nargs="?", type=Path)
    parser.add_argument("--encoders", nargs="+", default=ENCODERS)
    parser.add_argument("--patches", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        path = options.slide
        if path is None:
            config = SampleConfig(slides=1, size=6000)
            path = run(generate_cohort(Path(folder), config)).slides[0]
        with open_slide(path) as slide:
            grid = some_patches(slide, options.patches)
            level = slide.plan(grid.mpp)
        print(f"{path.name}: {len(grid)} patches of {grid.patch_size} px, {level}")
        print(f"reading alone, one thread: {reading(path, grid):.0f} patches/s")
        for spec in options.encoders:
            measure(spec, path, grid, options.rounds)


if __name__ == "__main__":
    main()
