"""How long the window's thread is held up when a dock of the plugin is opened.

Each widget is opened in a process of its own: for the first time, where its modules are
imported, too, and again with all other docks open. The largest gap of a 5 ms timer is
what a user feels; a dock with nothing in it tells what of it is napari's own.

    scripts/with_display.sh .venv/bin/python benchmarks/opening.py [--widgets Slide MIL]
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from sparse_slide import write_sparse_slide

PLUGIN, HEARTBEAT_MS, AGAIN = "napari-mcm", 5, 7
MODULES = {
    "Slide": "slide:SlideWidget",
    "Features": "features:FeaturesWidget",
    "Similarity": "similarity:SimilarityWidget",
    "Fine-tune": "finetune:FinetuneWidget",
    "MIL": "mil:MilWidget",
    "MAE & cells": "mae:MaeWidget",
}
EMPTY = "(empty)"
Figures = dict[str, float]


def main() -> None:
    """Measure each widget in a process of its own, and print all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widgets", nargs="*", default=[EMPTY, *MODULES])
    parser.add_argument("--slide", type=Path, help="by default a generated one")
    parser.add_argument("--once", action="store_true", help="here, as JSON")
    options = parser.parse_args()
    if options.once:
        print(json.dumps(measure(options.widgets[0], options.slide)))
        return
    print(f"{'ms':12s} {'':7s} import   make   dock    gap")
    with tempfile.TemporaryDirectory() as folder:
        slide = options.slide or write_sparse_slide(Path(folder) / "s.tif", 20_000)
        for name in options.widgets:
            for when, figures in _apart(name, slide).items():
                row = " ".join(f"{value:6.0f}" for value in figures.values())
                print(f"{name:12s} {when:7s} {row}", flush=True)


def _apart(name: str, slide: Path) -> dict[str, Figures]:
    command = [sys.executable, __file__, "--once", "--widgets", name]
    command += ["--slide", str(slide)]
    environment = os.environ | {"NAPARI_ASYNC": "0"}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Figures] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(name: str, slide: Path) -> dict[str, Figures]:
    """Open a widget for the first time, and again, in a viewer that shows a slide."""
    import napari

    viewer = napari.Viewer()
    viewer.window.resize(1400, 900)
    viewer.open(slide, plugin=PLUGIN)
    others = [other for other in MODULES if other != name]
    viewer.window.add_plugin_dock_widget(PLUGIN, others[0])
    run(1.5)
    found = {"first": watch(viewer, name)}
    for other in others[1:]:
        viewer.window.add_plugin_dock_widget(PLUGIN, other)
        run(0.3)
    again = []
    for _ in range(AGAIN):
        close(viewer, name)
        run(0.7)
        again.append(watch(viewer, name))
    found["again"] = {
        key: statistics.median(figures[key] for figures in again) for key in again[0]
    }
    viewer.close()
    return found


def watch(viewer: Any, name: str) -> Figures:
    """Open a widget from the event loop, and find the loop's largest gap."""
    from qtpy.QtCore import QEventLoop, QTimer

    figures: Figures = {}
    ticks: list[float] = []
    loop, beat = QEventLoop(), QTimer()
    beat.timeout.connect(lambda: ticks.append(time.perf_counter()))
    beat.start(HEARTBEAT_MS)
    QTimer.singleShot(100, lambda: figures.update(open_dock(viewer, name)))
    QTimer.singleShot(1200, loop.quit)
    loop.exec()
    return figures | {"gap": 1e3 * float(np.diff(ticks).max())}


def open_dock(viewer: Any, name: str) -> Figures:
    """Do what napari's menu does; gives ms for imports, constructor and docking."""
    from qtpy.QtWidgets import QWidget

    began = time.perf_counter()
    if name == EMPTY:
        made: list[float] = [time.perf_counter()]
        viewer.window.add_dock_widget(QWidget(), name=name, area="right")
        imported = began
    else:
        module, _, widget = MODULES[name].partition(":")
        kind = getattr(import_module(f"napari_mcm.viewer.{module}.widget"), widget)
        imported = time.perf_counter()
        made, construct = [], kind.__init__

        @functools.wraps(construct)
        def timed(*args: Any, **kwargs: Any) -> None:
            construct(*args, **kwargs)
            made.append(time.perf_counter())

        kind.__init__ = timed
        viewer.window.add_plugin_dock_widget(PLUGIN, name)
        kind.__init__ = construct
    times = (began, imported, made[0], time.perf_counter())
    return dict(zip(("import", "make", "dock"), 1e3 * np.diff(times), strict=True))


def close(viewer: Any, name: str) -> None:
    """Close a dock as its button does."""
    full = name if name == EMPTY else f"{name} ({PLUGIN})"
    viewer.window._wrapped_dock_widgets[full].destroyOnClose()
    gc.collect()


def run(seconds: float) -> None:
    """Let the window's own event loop run."""
    from qtpy.QtCore import QEventLoop, QTimer

    loop = QEventLoop()
    QTimer.singleShot(int(seconds * 1000), loop.quit)
    loop.exec()


if __name__ == "__main__":
    main()
