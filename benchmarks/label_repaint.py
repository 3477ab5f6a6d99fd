"""From a label to the repainted map of classes, in the real viewer.

The mouse is moved to a patch and the digit of a class is pressed, by real events; the
clock stops when the frame that shows the map of the new labels has been drawn and the
graphics driver has finished it. The shares of the time are printed too.

    xvfb-run -a -s "-screen 0 1920x1080x24" \\
        python benchmarks/label_repaint.py [--patches 100000] [--dim 768] \\
        [--labels 20 100 500] [--classes 3] [--context 0] [--n 40]
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import napari
import numpy as np
from click import (
    PATCH,
    add_slide,
    regional_features,
    round_grid,
    settle,
    spent,
)
from OpenGL import GL
from qtpy.QtCore import QEventLoop, QPoint, QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.heatmaps import SimilarityIndex
from napari_mcm.core.labelling import LabelSet, labels_of_rows, prepare_maps
from napari_mcm.viewer.app.features import LoadedFeatures
from napari_mcm.viewer.labelling import fitting
from napari_mcm.viewer.labelling.class_maps import ClassMaps
from napari_mcm.viewer.labelling.context import (
    LabellingContext,
    labelling_of,
)
from napari_mcm.viewer.labelling.widget import ClassesWidget

SEED = 1
MOST_S = 20.0


def timed(name: str, owner: Any, attribute: str) -> None:
    """Add up the time that a function takes under a name."""
    function = getattr(owner, attribute)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        began, busy = time.perf_counter(), time.thread_time()
        try:
            return function(*args, **kwargs)
        finally:
            spent[name].append(time.perf_counter() - began)
            spent[f"{name}, processor"].append(time.thread_time() - busy)

    setattr(owner, attribute, wrapper)


class Bench:
    """A slide with features, the dock, and a user who labels."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.rng = options, np.random.default_rng(SEED)
        grid = round_grid(options.patches)
        self.grid: PatchGrid = replace(
            grid, slide={**grid.slide, "fingerprint": "generated"}
        )
        self.viewer = napari.Viewer()
        self.viewer.window.resize(1400, 900)
        add_slide(self.viewer, grid.shape[0] * PATCH)
        self.widget = ClassesWidget(self.viewer)
        self.viewer.window.add_dock_widget(self.widget, area="right")
        self.session = self.widget.session
        self.context: LabellingContext = labelling_of(self.session)
        self.kinds = (grid.lattice // 40) @ (1, 3) % options.classes
        self._load()
        self.canvas = self.viewer.window._qt_viewer.canvas
        # Patches of some ten pixels: a pixel of the pointer decides which one is meant.
        self.viewer.scene.camera.zoom *= 4
        settle(1)

    def _load(self) -> None:
        vectors = regional_features(self.grid, self.options.dim, self.rng)
        # As many kinds of tissue as classes, as well as what is alike in a region.
        shifts = self.rng.standard_normal((self.options.classes, self.options.dim))
        vectors += 0.5 * shifts[self.kinds].astype(np.float32)
        status = np.zeros(len(self.grid), np.uint8)
        features = FeatureSet(vectors, self.grid, status, {"fingerprint": "generated"})
        config = self.context.classifier.config
        around = config.neighbourhood.model_copy(
            update={"radius": self.options.context}
        )
        self.context.classifier.use_radius(self.options.context)
        prepare_maps(features, around)
        loaded = LoadedFeatures("generated", SimilarityIndex(features), Path("none"))
        self.session.set_features(self.session.slide, "first", loaded)

    def start_with(self, count: int) -> None:
        """Begin with so many labels, drawn at random."""
        names = [f"class {n + 1}" for n in range(self.options.classes)]
        rows = self.rng.permutation(len(self.grid))[:count]
        labels = LabelSet().with_names(names)
        for kind, name in enumerate(names):
            own = rows[self.kinds[rows] == kind]
            labels = labels.with_labels(labels_of_rows(self.grid, own, name))
        self.session.labels.restore(labels)
        self._finish()

    def _finish(self) -> None:
        until = time.perf_counter() + MOST_S
        while self.context.classifier.busy and time.perf_counter() < until:
            QApplication.processEvents()
        settle(0.5)

    def label(self) -> float:
        """Label a patch in sight; return the seconds until the new map is painted."""
        row, at = self._place()
        native = self.canvas.native
        self._point(row, at)
        drawn: list[float] = []
        shown: list[float] = []
        loop = QEventLoop()

        def fitted(fit: Any) -> None:
            if fit.labels is self.session.labels.set:
                shown.append(time.perf_counter())

        def draw(_event: Any) -> None:
            if shown:
                GL.glFinish()
                drawn.append(time.perf_counter())
                loop.quit()

        scene = self.canvas._scene_canvas
        self.context.classifier.fitted.connect(fitted)
        scene.events.draw.connect(draw, position="last")
        before, began = len(self.session.labels.set), time.perf_counter()
        cpu, own = time.process_time(), time.thread_time()
        QTest.keyClick(native, str(int(self.kinds[row]) + 1))
        spent["key handled"].append(time.perf_counter() - began)
        # The window's own loop: asking for events without end would take the time that
        # the fit needs.
        if not drawn:
            QTimer.singleShot(int(1e3 * MOST_S), loop.quit)
            loop.exec()
        # On a machine that does something else, too, these tell what a label costs.
        spent["processor, all threads"].append(time.process_time() - cpu)
        spent["processor, window"].append(time.thread_time() - own)
        self.context.classifier.fitted.disconnect(fitted)
        scene.events.draw.disconnect(draw)
        note = self.context.labels.note or self.session.problem
        assert len(self.session.labels.set) == before + 1, note
        return drawn[0] - began

    def _point(self, row: int, at: QPoint) -> None:
        """Move the mouse to a patch, and wait until the window knows."""
        QTest.mouseMove(self.canvas.native, at)
        side, until = max(self.grid.patch_size_level0), time.perf_counter() + MOST_S
        while time.perf_counter() < until:
            settle(0.02)
            world = self.viewer.cursor.position
            y, x = self.session.slide.world_to_data(tuple(world))[-2:]
            if np.abs(self.grid.centres[row] - (x, y)).max() < side / 2:
                return

    def _place(self) -> tuple[int, QPoint]:
        """Return a patch without label, and where it is on the canvas."""
        slide, camera = self.session.slide, self.viewer.scene.camera
        taken = {(one.x, one.y) for one in self.session.labels.set.labels}
        height, width = self.canvas.native.height(), self.canvas.native.width()
        while True:
            row = int(self.rng.integers(len(self.grid)))
            x, y = self.grid.centres[row] - 0.5
            world = np.asarray(slide.data_to_world((y, x)))
            down, right = (world - camera.center[-2:]) * camera.zoom
            at = QPoint(round(width / 2 + right), round(height / 2 + down))
            seen = self.canvas.native.rect().adjusted(20, 20, -20, -20).contains(at)
            # Not under the overview map.
            seen = seen and self.canvas.native.childAt(at) is None
            if seen and tuple(self.grid.xy[row].tolist()) not in taken:
                return row, at


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patches", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--classes", type=int, default=3)
    parser.add_argument("--context", type=int, default=0, choices=range(4))
    parser.add_argument("--labels", type=int, nargs="+", default=[20, 100, 500])
    parser.add_argument("--n", type=int, default=40)
    options = parser.parse_args()
    timed("features of labels", fitting.LabelledPatches, "gather")
    timed("fit", fitting, "train_on")
    timed("map and areas", fitting, "_classify")
    timed("map's layer", ClassMaps, "_fitted")
    timed("frames", ClassMaps, "_frame_all")
    bench = Bench(options)
    results = []
    for count in options.labels:
        spent.clear()
        bench.start_with(max(count - options.n - 3, 2 * options.classes))
        took = [bench.label() for _ in range(options.n + 3)][3:]
        results.append(report(took, count, options))
    print(json.dumps(results))
    bench.viewer.close()


def report(
    took: list[float], labels: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Print the figures in ms, and return them."""
    median, p95 = (float(v) for v in np.percentile(took, (50, 95)) * 1e3)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(
        f"{options.patches:,} patches × {options.dim}, context {options.context}, up to "
        f"{labels} labels: median {median:.0f} ms, p95 {p95:.0f} ms, n {len(took)}, "
        f"load {load:.1f}"
    )
    shares = {k: float(np.median(v[-len(took) :])) * 1e3 for k, v in spent.items()}
    for name, value in shares.items():
        print(f"  {name:30s} {value:6.1f} ms")
    return {"labels": labels, "median_ms": median, "p95_ms": p95, "shares_ms": shares}


if __name__ == "__main__":
    main()
