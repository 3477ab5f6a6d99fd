"""How many maps a second are painted while the cursor is dragged with the key held.

Mouse movements are sent to the real canvas as fast as a mouse sends them; a frame
counts when it shows another map than the one before.

    xvfb-run -a -s "-screen 0 1920x1080x24" \\
        python benchmarks/drag.py [--patches 100000] [--dim 768] [--seconds 10]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import napari
import numpy as np
from click import PATCH, add_slide, regional_features, round_grid, settle
from OpenGL import GL
from qtpy.QtCore import QEventLoop, QPoint, Qt, QTimer
from qtpy.QtTest import QTest

from napari_mcm.core.features.feature_set import FeatureSet, NeighbourhoodConfig
from napari_mcm.core.heatmaps import SimilarityIndex
from napari_mcm.core.runtime.jobs import run
from napari_mcm.viewer.app.features import SLOTS, LoadedFeatures
from napari_mcm.viewer.similarity.context import context_of
from napari_mcm.viewer.similarity.widget import SimilarityWidget

MOVES_HZ = 60


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patches", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--slots", type=int, default=1, choices=range(1, 4))
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    grid = round_grid(options.patches)
    viewer = napari.Viewer()
    viewer.window.resize(1400, 900)
    add_slide(viewer, grid.shape[0] * PATCH)
    widget = SimilarityWidget(viewer)
    viewer.window.add_dock_widget(widget, area="right")
    session, rng = widget.session, np.random.default_rng(1)
    for slot in SLOTS[: options.slots]:
        vectors = regional_features(grid, options.dim, rng)
        status = np.zeros(len(grid), np.uint8)
        index = SimilarityIndex(FeatureSet(vectors, grid, status, {}))
        loaded = LoadedFeatures(slot, index, Path("none"))
        for radius in range(4):
            run(loaded.prepare(NeighbourhoodConfig(radius=radius)))
        session.set_features(session.slide, slot, loaded)
    context_of(session).queries.point(*grid.centres[len(grid) // 2])
    settle(1)
    times, lags = drag_in_circles(viewer, session, options.seconds)
    gaps = np.diff(times) * 1e3
    figures = {
        "maps_per_s": len(times) / options.seconds,
        "gap_ms_median": float(np.median(gaps)),
        "gap_ms_p95": float(np.percentile(gaps, 95)),
        "move_ms_p95": float(np.percentile(lags, 95) * 1e3),
    }
    print(f"{len(grid):,} patches × {options.dim}, {options.slots} encoder(s)")
    print(json.dumps(figures))
    viewer.close()


def drag_in_circles(
    viewer: Any, session: Any, seconds: float
) -> tuple[list[float], list[float]]:
    """Drag in circles; gives when another map was painted, and stalls of the loop."""
    canvas = viewer.window._qt_viewer.canvas._scene_canvas
    layer = session.layers.map_of(session.slide, "first")
    seen, times, ticks = [0.0], [], []

    def draw(_event: Any) -> None:
        GL.glFinish()
        at = float(np.nansum(layer.data[::7, ::7]))
        if at != seen[0]:
            seen[0] = at
            times.append(time.perf_counter())

    def move() -> None:
        ticks.append(time.perf_counter())
        turn = 2 * np.pi * (ticks[-1] - ticks[0]) / 4
        x = width / 2 + 0.2 * height * np.cos(turn)
        y = height / 2 + 0.2 * height * np.sin(turn)
        QTest.mouseMove(native, QPoint(int(x), int(y)))

    canvas.events.draw.connect(draw, position="last")
    native, (width, height) = canvas.native, canvas.size
    QTest.keyPress(native, Qt.Key.Key_Q)
    # The window's own loop, which sleeps between events: a thread is at work meanwhile.
    loop, timer = QEventLoop(), QTimer()
    timer.timeout.connect(move)
    timer.start(1000 // MOVES_HZ)
    QTimer.singleShot(int(seconds * 1000), loop.quit)
    loop.exec()
    timer.stop()
    QTest.keyRelease(native, Qt.Key.Key_Q)
    return times, np.diff(ticks).tolist()


if __name__ == "__main__":
    main()
