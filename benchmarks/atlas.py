"""The atlas: how long it takes to make, and how smoothly its map moves in the window.

Features are made up: kinds of tissue in DIM dimensions, one slide. In the window the mouse
drags, zooms, points and draws a lasso by Qt's own events; a frame is from an event to the
end of the painting that it causes. A timer of 10 ms in the window's thread tells how long
it stood still while the atlas is made. UMAP is measured where it is installed.

    scripts/with_display.sh .venv/bin/python benchmarks/atlas.py [--patches 100000]
        [--dim 768] [--umap 20000] [--out atlas.json]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import napari
import numpy as np
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt, QTimer
from qtpy.QtGui import QMouseEvent, QWheelEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_mcm.core.atlas import (
    AtlasConfig,
    MapConfig,
    is_installed,
    kmeans_clusters,
    make_atlas,
    place_patches,
    points_inside,
    reduce_features,
)
from napari_mcm.core.features.feature_set import FeatureSet, NeighbourhoodConfig
from napari_mcm.core.features.interchange.formats import save_features
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.runtime.jobs import run
from napari_mcm.viewer.atlas.controller import _make
from napari_mcm.viewer.atlas.sources import Found

KINDS, FRAMES, SIDE = 12, 120, 224
NO_BUTTON, LEFT = Qt.MouseButton.NoButton, Qt.MouseButton.LeftButton
Times = tuple[float, float]
"""Seconds of a frame: on the clock, and of the window's thread on a CPU."""
PLAIN, SHIFT = Qt.KeyboardModifier.NoModifier, Qt.KeyboardModifier.ShiftModifier


def made_features(patches: int, dim: int) -> FeatureSet:
    """Make features of one large slide."""
    columns = int(np.ceil(np.sqrt(patches)))
    lattice = np.indices((columns, columns)).reshape(2, -1).T[:patches]
    rng = np.random.default_rng(0)
    kinds = (lattice // 16).sum(axis=1) % KINDS
    centres = rng.normal(size=(KINDS, dim)).astype(np.float32)
    vectors = centres[kinds] + 2 * rng.standard_normal((patches, dim), np.float32)
    slide = {
        "name": "made",
        "fingerprint": "a" * 16,
        "size": [columns * SIDE] * 2,
        "mpp": [0.5, 0.5],
    }
    grid = PatchGrid(
        lattice[:, ::-1].astype(np.int64) * SIDE,
        lattice.astype(np.int32),
        SIDE,
        0.5,
        (float(SIDE), float(SIDE)),
        (0.0, 0.0),
        (columns, columns),
        slide,
    )
    encoder = {"spec": "made", "fingerprint": "e" * 16, "dim": dim}
    status = np.zeros(patches, np.uint8)
    return FeatureSet(vectors, grid, status, encoder | {"precision": "float32"})


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return how long something takes, and its result."""
    begun = time.perf_counter()
    result = work()
    return time.perf_counter() - begun, result


def figures(times: list[Times]) -> dict[str, float]:
    """Return milliseconds and frames per second; by CPU, as on a machine at rest."""
    ms, cpu_ms = np.asarray(times).T * 1000
    median, cpu = float(np.median(ms)), float(np.median(cpu_ms))
    return {
        "median_ms": round(median, 2),
        "p95_ms": round(float(np.percentile(ms, 95)), 2),
        "per_second": round(1000 / median, 1),
        "cpu_ms": round(cpu, 2),
        "per_second_by_cpu": round(1000 / cpu, 1),
    }


def measure_parts(features: FeatureSet) -> dict[str, float]:
    """Measure the steps of an atlas one by one."""
    unit = features.features / np.linalg.norm(features.features, axis=1)[:, None]
    pca_s, reduced = seconds(lambda: reduce_features(unit))
    kmeans_s, _ = seconds(lambda: kmeans_clusters(reduced, 10, 0))
    angles = np.linspace(0, 2 * np.pi, 100)
    polygon = np.c_[np.cos(angles), np.sin(angles)] * np.ptp(reduced[:, 0]) / 4
    lasso_s, inside = seconds(lambda: points_inside(reduced[:, :2], polygon))
    return {
        "pca_s": round(pca_s, 2),
        "kmeans_s": round(kmeans_s, 2),
        "lasso_s": round(lasso_s, 4),
        "inside": len(inside),
    }


def measure_umap(folder: Path, file: Path, patches: int) -> dict[str, float]:
    """Measure a map by UMAP, the same again from its file, and a cancel."""
    config = AtlasConfig(features=(file,), most=patches)
    atlas = run(make_atlas(config))
    umap = config.model_copy(update={"map": MapConfig(method="umap")})
    first_s, placed = seconds(lambda: run(place_patches(atlas, umap)))
    again_s, again = seconds(lambda: run(place_patches(atlas, umap)))
    other = config.model_copy(update={"map": MapConfig(method="umap", neighbours=16)})
    job = place_patches(atlas, other)
    until = time.perf_counter() + 5
    while time.perf_counter() < until:
        next(job)
    cancel_s, _ = seconds(job.close)
    return {
        "patches": len(atlas),
        "umap_s": round(first_s, 1),
        "from_file_s": round(again_s, 3),
        "same": bool(np.array_equal(placed.map, again.map)),
        "cancel_s": round(cancel_s, 3),
    }


class Window:
    """The dock in a real window, moved by Qt's events."""

    def __init__(self, file: Path) -> None:
        self.viewer = napari.Viewer()
        self.viewer.window.resize(1280, 800)
        _, self.dock = self.viewer.window.add_plugin_dock_widget("napari-mcm", "Atlas")
        self.scatter = self.dock.map.scatter
        self.stalls: list[float] = []
        self._last = time.perf_counter()
        timer = QTimer(self.dock)
        timer.setTimerType(Qt.TimerType.PreciseTimer)
        timer.timeout.connect(self._tick)
        self._settle(2)
        timer.start(10)
        self.stalls.clear()
        self.make_s = self._make(file)
        timer.stop()

    def _tick(self) -> None:
        now = time.perf_counter()
        self.stalls.append(now - self._last - 0.01)
        self._last = now

    def _settle(self, wait_s: float) -> None:
        until = time.perf_counter() + wait_s
        while time.perf_counter() < until:
            QApplication.processEvents()
            time.sleep(0.001)
        self._last = time.perf_counter()

    def _make(self, file: Path) -> float:
        begun = time.perf_counter()
        jobs, controller = self.dock.session.jobs, self.dock.controller

        def config(files: tuple[Path, ...]) -> AtlasConfig:
            return AtlasConfig(
                features=files,
                most=5_000_000,
                neighbourhood=NeighbourhoodConfig(radius=0),
            )

        find = partial(Found, (file,), {})
        jobs.start("Atlas", lambda: _make(find, config), controller._arrived)
        while jobs.status.busy:
            QApplication.processEvents()
            time.sleep(0.001)
        return time.perf_counter() - begun

    def frame(self, event: Any) -> Times:
        """Return how long an event takes, with the painting that it causes."""
        begun, cpu = time.perf_counter(), time.thread_time()
        QApplication.sendEvent(self.scatter, event)
        QApplication.processEvents()
        return time.perf_counter() - begun, time.thread_time() - cpu

    def _mouse(self, at: QPointF, pressed: bool, key: Any = PLAIN) -> QMouseEvent:
        there = QPointF(self.scatter.mapToGlobal(at.toPoint()))
        down = LEFT if pressed else NO_BUTTON
        return QMouseEvent(QEvent.Type.MouseMove, at, there, NO_BUTTON, down, key)

    def pan(self) -> list[Times]:
        """Drag the map around."""
        middle = self.scatter.rect().center()
        QTest.mousePress(self.scatter, LEFT, PLAIN, middle)
        angles = np.linspace(0.1, 4 * np.pi, FRAMES)
        times = [
            self.frame(
                self._mouse(
                    QPointF(middle) + QPointF(80 * np.sin(a), 60 * np.cos(a)), True
                )
            )
            for a in angles
        ]
        QTest.mouseRelease(self.scatter, LEFT, PLAIN, middle)
        return times

    def zoom(self) -> list[Times]:
        """Turn the wheel in and out."""
        at = QPointF(self.scatter.rect().center())
        there = QPointF(self.scatter.mapToGlobal(at.toPoint()))
        phase = Qt.ScrollPhase.NoScrollPhase
        turns = [120 if n // 12 % 2 == 0 else -120 for n in range(FRAMES)]
        return [
            self.frame(
                QWheelEvent(
                    at, there, QPoint(), QPoint(0, t), NO_BUTTON, PLAIN, phase, False
                )
            )
            for t in turns
        ]

    def point(self) -> list[Times]:
        """Move the pointer over the points."""
        self.scatter.show_all()
        rect, rng = self.scatter.rect(), np.random.default_rng(0)
        places = rng.uniform(0.2, 0.8, (FRAMES, 2)) * (rect.width(), rect.height())
        return [self.frame(self._mouse(QPointF(x, y), False)) for x, y in places]

    def lasso(self) -> float:
        """Draw a lasso; return the time from its end to the selected points on screen."""
        middle = QPointF(self.scatter.rect().center())
        angles = np.linspace(0, 2 * np.pi, 80)
        ring = [middle + QPointF(60 * np.cos(a), 60 * np.sin(a)) for a in angles]
        QTest.mousePress(self.scatter, LEFT, SHIFT, ring[0].toPoint())
        for corner in ring[1:]:
            self.frame(self._mouse(corner, True, SHIFT))
        begun = time.perf_counter()
        QTest.mouseRelease(self.scatter, LEFT, SHIFT, ring[-1].toPoint())
        controller = self.dock.controller
        while not len(controller.selected):
            QApplication.processEvents()
        QApplication.processEvents()
        return time.perf_counter() - begun


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patches", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--umap", type=int, default=20_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "made.features.zarr"
        features = made_features(options.patches, options.dim)
        save_features(features, file)
        result: dict[str, Any] = {"patches": options.patches, "dim": options.dim}
        result |= measure_parts(features)
        del features
        if is_installed("umap") and options.umap:
            result["umap"] = measure_umap(Path(name), file, options.umap)
        window = Window(file)
        stalls = np.asarray(window.stalls) * 1000
        result["window"] = {
            "map_px": [window.scatter.width(), window.scatter.height()],
            "make_s": round(window.make_s, 2),
            "stall_p95_ms": round(float(np.percentile(stalls, 95)), 1),
            "stall_max_ms": round(float(stalls.max()), 1),
            "pan": figures(window.pan()),
            "zoom": figures(window.zoom()),
            "point": figures(window.point()),
            "lasso_ms": round(window.lasso() * 1000, 1),
            "selected": len(window.dock.controller.selected),
            "pan_selected": figures(window.pan()),
        }
        text = json.dumps(result, indent=2)
        print(text)
        if options.out is not None:
            options.out.write_text(text + "\n", encoding="utf-8")
        window.viewer.close()


if __name__ == "__main__":
    main()
