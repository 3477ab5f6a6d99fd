"""Moves of the context slider, from the event to the painted map, in the real viewer.

The clock starts when the slider has moved and stops when the frame with the map of that
context has been drawn. The longest time that the window did not answer is measured with
a timer of one millisecond. Before, it measures what a neighbourhood takes the first time.

    xvfb-run -a -s "-screen 0 1920x1080x24" \\
        python benchmarks/context.py [--patches 100000] [--dim 768] [--n 40]
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import napari
import numpy as np
from click import PATCH, add_slide, regional_features, round_grid, settle
from OpenGL import GL
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QApplication

from napari_mcm.core.features.feature_set import FeatureSet, NeighbourhoodConfig
from napari_mcm.core.heatmaps import SimilarityIndex, usual_range
from napari_mcm.core.runtime.jobs import run
from napari_mcm.viewer.app.features import LoadedFeatures
from napari_mcm.viewer.similarity.context import SimilarityContext, context_of
from napari_mcm.viewer.similarity.widget import SimilarityWidget


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patches", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--n", type=int, default=40)
    options = parser.parse_args()
    grid = round_grid(options.patches)
    rng = np.random.default_rng(1)
    vectors = regional_features(grid, options.dim, rng)
    status = np.zeros(len(grid), np.uint8)
    index = SimilarityIndex(FeatureSet(vectors, grid, status, {"fingerprint": "a"}))
    figures: dict[str, Any] = {"first_time_s": first_times(index)}

    viewer = napari.Viewer()
    viewer.window.resize(1400, 900)
    add_slide(viewer, grid.shape[0] * PATCH)
    widget = SimilarityWidget(viewer)
    viewer.window.add_dock_widget(widget, area="right")
    session = widget.session
    session.set_features(session.slide, "first", LoadedFeatures("a", index, Path("a")))
    context = context_of(session)
    context.queries.point(*grid.centres[len(grid) // 2])
    settle(2)
    # Whole rounds over the slider, whose handle is moved as a key moves it.
    radii = [0, 1, 2, 3, 2, 1] * (options.n // 6 + 1)
    moves = [move(viewer, widget, context, radius) for radius in radii[: options.n]]
    took, blocked = np.asarray(moves[6:]).T * 1e3
    figures |= {
        "median_ms": float(np.median(took)),
        "p95_ms": float(np.percentile(took, 95)),
        "longest_block_ms": float(blocked.max()),
        "median_block_ms": float(np.median(blocked)),
        "load": os.getloadavg()[0],
    }
    print(json.dumps(figures, indent=1))
    viewer.close()


def first_times(index: SimilarityIndex) -> dict[str, tuple[float, float]]:
    """Measure the seconds that averages and range of colours take the first time."""
    found = {}
    for radius in (1, 2, 3):
        neighbourhood = NeighbourhoodConfig(radius=radius)
        began = time.perf_counter()
        other = run(index.prepare(neighbourhood))
        prepared = time.perf_counter()
        usual_range(other)
        ended = time.perf_counter()
        found[neighbourhood.describe()] = (prepared - began, ended - prepared)
    return found


def move(
    viewer: napari.Viewer,
    widget: SimilarityWidget,
    context: SimilarityContext,
    radius: int,
) -> tuple[float, float]:
    """Move the slider; return the seconds until painted, and of the longest block."""
    canvas = viewer.window._qt_viewer.canvas._scene_canvas
    painted: list[float] = []
    ticks: list[float] = []
    timer = QTimer()
    timer.setTimerType(Qt.TimerType.PreciseTimer)
    timer.timeout.connect(lambda: ticks.append(time.perf_counter()))
    timer.start(1)

    def draw(_event: Any) -> None:
        query = context.query
        if query is not None and query.spec.neighbourhood.radius == radius:
            GL.glFinish()
            painted.append(time.perf_counter())

    canvas.events.draw.connect(draw, position="last")
    settle(0.02)
    began = time.perf_counter()
    widget.query.around.slider.setValue(radius)
    while not painted and time.perf_counter() < began + 10:
        QApplication.processEvents()
    took = painted[0] - began if painted else float("nan")
    # The panels and the thumbnails follow: they may block, too.
    settle(0.3)
    timer.stop()
    canvas.events.draw.disconnect(draw)
    return took, float(np.diff(ticks).max())


if __name__ == "__main__":
    main()
