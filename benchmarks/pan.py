"""Stalls of panning with and without early slicing, alternating in one window.

Each step pans the finest level of a slide of 100,000 × 100,000 px by a third of a window.
Steps alternate between napari's own order (draw, read, draw again), reading before the
drawing, and the same with the tiles around the view decoded after the drawing, so that
other load on the machine falls on all alike. Drawing alone is measured last.

    scripts/with_display.sh .venv/bin/python benchmarks/pan.py [SLIDE] [--steps 40]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import napari
import numpy as np
from first_view import pan, run, stall, wait_loaded
from sparse_slide import write_sparse_slide

from napari_mcm.viewer.layers import level_array
from napari_mcm.viewer.layers.early_slicing import canvas_of

VARIANTS = {
    "napari's order": (False, 0.0),
    "read first": (True, 0.0),
    "read first, decode ahead later": (True, level_array.PAUSE_S),
}
ACROSS = 30


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slide", nargs="?", type=Path)
    parser.add_argument("--steps", type=int, default=40, help="of each variant")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        slide = options.slide or write_sparse_slide(Path(folder) / "sparse.tif")
        figures = measure(slide, options.steps)
    for name, stalls in figures.items():
        median, p95 = np.percentile(stalls, (50, 95))
        print(f"{name:32} median {median:.0f} ms, p95 {p95:.0f} ms")
    print(json.dumps({name: np.median(one) for name, one in figures.items()}))


def measure(slide: Path, steps: int) -> dict[str, list[float]]:
    """Give the stalls in ms of each variant, and of drawing alone."""
    viewer = napari.Viewer()
    viewer.window.resize(1400, 900)
    run(0.5)
    viewer.open(slide, plugin="napari-mcm")
    wait_loaded(viewer)
    layer, camera = viewer.layers[0], viewer.scene.camera
    height, width = layer.level_shapes[0][:2]
    centre = np.array([0.35 * height, 0.3 * width]) * layer.scale
    camera.center, camera.zoom = tuple(centre), 1 / layer.scale[0]
    run(1.0)
    figures: dict[str, list[float]] = {name: [] for name in VARIANTS}
    draw = canvas_of(viewer).events.draw
    early = next(c for c in draw.callbacks if "early_slicing" in _module(c))
    for step in range(steps * len(VARIANTS)):
        name = [*VARIANTS][step % len(VARIANTS)]
        first, level_array.PAUSE_S = VARIANTS[name]
        draw.disconnect(early)
        if first:
            draw.connect(early, position="first")
        down, right = divmod(step, ACROSS)
        there = centre + np.array([150 * (down % 7), 300 * right]) * layer.scale
        figures[name].append(1e3 * stall(lambda at=there: _centre(camera, at)))
    figures["drawing alone"] = draw_alone(viewer, layer)
    viewer.close()
    return figures


def draw_alone(viewer: Any, layer: Any) -> list[float]:
    """Pan over an image that is in memory."""
    viewer.layers.clear()
    run(0.5)
    plain = np.random.default_rng(0).integers(0, 255, (1280, 1536, 3), np.uint8)
    viewer.add_image(plain, scale=layer.scale, units=layer.units)
    camera = viewer.scene.camera
    camera.center, camera.zoom = (0, 0), 1 / layer.scale[0]
    run(1.0)
    return pan(camera, np.zeros(2), layer.scale * 0.1)


def _centre(camera: Any, at: Any) -> None:
    camera.center = tuple(at)


def _module(callback: Any) -> str:
    return str(getattr(callback, "__module__", ""))


if __name__ == "__main__":
    main()
