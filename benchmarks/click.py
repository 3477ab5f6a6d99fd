"""From a click on the slide to the painted heatmap, in the real viewer.

A real mouse click is sent to the canvas; the clock stops when the frame that shows the
new map has been drawn and the graphics driver has finished it. The shares of the time
are printed too: they tell where the next gain is.

    xvfb-run -a -s "-screen 0 1920x1080x24" \\
        python benchmarks/click.py [--patches 100000] [--dim 768] [--slots 1] [--n 50] \\
        [--context 0]
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import dask.array as da
import napari
import numpy as np
from numpy.typing import NDArray
from OpenGL import GL
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_mcm.core.features.feature_set import FeatureSet, NeighbourhoodConfig
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.heatmaps import SimilarityIndex
from napari_mcm.core.heatmaps.color_limits import Limits
from napari_mcm.core.runtime.jobs import run
from napari_mcm.viewer.app.features import SLOTS, LoadedFeatures
from napari_mcm.viewer.layers.manager import LayerManager
from napari_mcm.viewer.layers.metadata import KEY, SlideMetadata
from napari_mcm.viewer.similarity.context import context_of
from napari_mcm.viewer.similarity.controller import SimilarityController
from napari_mcm.viewer.similarity.widget import SimilarityWidget

LIMITS: tuple[Limits, ...] = get_args(Limits)
PATCH, MPP, CHUNK = 224, 0.5, 512
spent: dict[str, list[float]] = defaultdict(list)


def timed(name: str, owner: type, attribute: str) -> None:
    """Add up the time that a method takes under a name."""
    method: Callable[..., Any] = getattr(owner, attribute)

    @functools.wraps(method)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        result = method(*args, **kwargs)
        spent[name].append(time.perf_counter() - began)
        return result

    setattr(owner, attribute, wrapper)


def round_grid(patches: int) -> PatchGrid:
    """A round piece of tissue with about so many patches."""
    side = int(np.ceil(np.sqrt(patches * 4 / np.pi))) + 2
    y, x = np.indices((side, side)) - (side - 1) / 2
    lattice = np.argwhere(x**2 + y**2 <= patches / np.pi).astype(np.int32)
    xy = lattice[:, ::-1].astype(np.int64) * PATCH
    identity = {"name": "generated", "size": [side * PATCH] * 2, "mpp": [MPP, MPP]}
    step = (float(PATCH), float(PATCH))
    return PatchGrid(xy, lattice, PATCH, MPP, step, (0.0, 0.0), (side, side), identity)


def add_slide(viewer: napari.Viewer, side: int) -> None:
    """A slide of that size, made of one noisy tile, in a pyramid as slides have."""
    tile = np.random.default_rng(0).integers(150, 240, (CHUNK, CHUNK, 3), np.uint8)
    levels = []
    while not levels or side > CHUNK:
        count = -(-side // CHUNK)
        row = da.concatenate([da.from_array(tile, chunks=tile.shape)] * count, axis=1)
        level = da.concatenate([row] * count, axis=0)
        levels.append(level[:side, :side])
        side //= 4
    size = levels[0].shape[:2][::-1]
    metadata = SlideMetadata("generated.svs", "generated", size, (MPP, MPP))
    viewer.add_image(
        levels,
        rgb=True,
        multiscale=True,
        contrast_limits=(0, 255),
        scale=(MPP, MPP),
        units=("um", "um"),
        axis_labels=("y", "x"),
        metadata={KEY: {"kind": "slide", **asdict(metadata)}},
        name="generated",
    )


def regional_features(
    grid: PatchGrid, dim: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Vectors that are alike within a region, so that maps and their limits differ."""
    regions = rng.standard_normal((7, dim), np.float32)
    kind = (grid.lattice // 40) @ (1, 3) % len(regions)
    noise = rng.standard_normal((len(grid), dim), np.float32)
    return (
        regions[kind] * rng.uniform(0.2, 2, (len(grid), 1)).astype(np.float32) + noise
    )


def ask_plainly(viewer: napari.Viewer, grid: PatchGrid, index: SimilarityIndex) -> None:
    """The baseline: the same click as anybody would write it with napari alone."""
    unit, slide = index._unit, viewer.layers[0]
    side = MPP * PATCH
    flat = np.full(grid.shape, np.nan, np.float32)
    heatmap = viewer.add_image(
        np.zeros(grid.shape, np.float32),
        scale=(side, side),
        translate=(side / 2, side / 2),
        contrast_limits=(-1, 1),
        colormap="viridis",
        opacity=0.6,
        units=slide.units,
    )
    points = viewer.add_points(
        np.zeros((1, 2)),
        size=side,
        symbol="square",
        face_color="transparent",
        border_color="white",
        units=slide.units,
    )
    viewer.layers.selection.active = slide

    @viewer.mouse_drag_callbacks.append
    def ask(viewer: napari.Viewer, event: Any) -> Iterator[None]:
        yield
        y, x = slide.world_to_data(event.position)
        patch = grid.index_at(x, y)
        began = time.perf_counter()
        flat[tuple(grid.lattice.T)] = unit @ unit[patch]
        spent["one map's values"].append(time.perf_counter() - began)
        heatmap.data = flat.copy()
        points.data = grid.centres[[patch]][:, ::-1] * MPP


def settle(seconds: float) -> None:
    """Let the window finish what it has to do."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        QApplication.processEvents()


def click(canvas: Any, at: tuple[int, int], hold: float) -> float:
    """Click, and wait until the frame is painted; gives the seconds it took.

    Where the button is held, the clock starts when it is let go: before, it may become
    a drag.
    """
    painted: list[float] = []

    def draw(_event: Any) -> None:
        GL.glFinish()
        painted.append(time.perf_counter())

    button, place = Qt.MouseButton.LeftButton, QPoint(*at)
    began = time.perf_counter()
    QTest.mousePress(canvas.native, button, pos=place, delay=-1)
    if hold:
        settle(hold)
        began = time.perf_counter()
    canvas.events.draw.connect(draw, position="last")
    QTest.mouseRelease(canvas.native, button, pos=place, delay=-1)
    handled = time.perf_counter()
    while not painted or painted[-1] < handled:
        QApplication.processEvents()
    QApplication.processEvents()
    canvas.events.draw.disconnect(draw)
    spent["handled"].append(handled - began)
    return painted[-1] - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patches", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--slots", type=int, default=1, choices=range(1, 4))
    parser.add_argument("--limits", choices=LIMITS, default="encoder")
    parser.add_argument("--n", type=int, default=50)
    parser.add_argument("--context", type=int, default=0, choices=range(4))
    parser.add_argument(
        "--plain", action="store_true", help="napari alone, as a baseline"
    )
    parser.add_argument(
        "--hold",
        type=float,
        default=0,
        help="ms between press and release, which a person takes some 80 for; the "
        "clock starts at the release then",
    )
    options = parser.parse_args()
    timed("one map's values", SimilarityIndex, "compare")
    timed("one map's raster", PatchGrid, "raster")
    timed("one map's layer", LayerManager, "show_map")
    timed("marker", LayerManager, "mark_examples")
    timed("all in the click", SimilarityController, "point")

    grid = round_grid(options.patches)
    viewer = napari.Viewer()
    viewer.window.resize(1400, 900)
    add_slide(viewer, grid.shape[0] * PATCH)
    rng = np.random.default_rng(1)
    if options.plain:
        vectors = regional_features(grid, options.dim, rng)
        features = FeatureSet(vectors, grid, np.zeros(len(grid), np.uint8), {})
        ask_plainly(viewer, grid, SimilarityIndex(features))
    else:
        fill_slots(viewer, grid, options, rng)
    settle(1)
    canvas = viewer.window._qt_viewer.canvas._scene_canvas
    width, height = canvas.size
    spread = 0.2 * min(width, height)
    points = rng.uniform(-spread, spread, (options.n + 5, 2)) + (width / 2, height / 2)
    took = []
    for point in points:
        at = int(point[0]), int(point[1])
        took.append(click(canvas, at, options.hold / 1000))
        # As far apart as a double click is not.
        settle(QApplication.doubleClickInterval() / 1000 + 0.05)
    report(took[5:], len(grid), options)
    viewer.close()


def fill_slots(
    viewer: napari.Viewer,
    grid: PatchGrid,
    options: argparse.Namespace,
    rng: np.random.Generator,
) -> None:
    """Dock the widget, with features of as many encoders as asked for."""
    widget = SimilarityWidget(viewer)
    viewer.window.add_dock_widget(widget, area="right")
    queries = context_of(widget.session).queries
    queries.use_limits(options.limits)
    queries.use_neighbourhood(NeighbourhoodConfig(radius=options.context))
    for slot in SLOTS[: options.slots]:
        vectors = regional_features(grid, options.dim, rng)
        encoder = {"fingerprint": slot}
        features = FeatureSet(vectors, grid, np.zeros(len(grid), np.uint8), encoder)
        index = SimilarityIndex(features)
        loaded = LoadedFeatures(slot, index, Path("x.features.zarr"))
        for radius in range(4):
            run(loaded.prepare(NeighbourhoodConfig(radius=radius)))
        widget.session.set_features(widget.session.slide, slot, loaded)


def report(took: list[float], patches: int, options: argparse.Namespace) -> None:
    """Print the figures in ms, and once more as JSON."""
    median, p95 = (float(v) for v in np.percentile(took, (50, 95)) * 1e3)
    print(f"{patches:,} patches × {options.dim}, {options.slots} encoder(s)")
    print(f"click to painted: median {median:.1f} ms, p95 {p95:.1f} ms, n {len(took)}")
    shares = {k: float(np.median(v[-len(took) :])) * 1e3 for k, v in spent.items()}
    for name, value in shares.items():
        print(f"  {name:20s} {value:6.1f} ms")
    print(f"  {'repaint (the rest)':20s} {median - shares['handled']:6.1f} ms")
    print(json.dumps({"median_ms": median, "p95_ms": p95, "shares_ms": shares}))


if __name__ == "__main__":
    main()
