"""A slide of 100,000 × 100,000 px in the viewer: first picture, memory, panning.

    scripts/with_display.sh .venv/bin/python benchmarks/first_view.py [SLIDE]

Prints the time from `viewer.open` to the painted slide, how much the process grew, and
how long the event loop stood still while the finest level was panned over 20 steps.
Targets: 1.5 s, 500 MB, and 95 % of the stalls below 100 ms.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

STEPS = 20
HEARTBEAT_MS = 5


def main() -> None:
    """Measure each run in a process of its own, and print all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slide", nargs="?", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--once", action="store_true", help="one run, as JSON")
    options = parser.parse_args()
    if options.once:
        print(json.dumps(measure(options.slide)))
        return
    with tempfile.TemporaryDirectory() as folder:
        slide = options.slide or _write(Path(folder))
        for asynchronous in ("0", "1"):
            runs = [_apart(slide, asynchronous) for _ in range(options.runs)]
            _report(
                f"asynchronous slicing {'on' if asynchronous == '1' else 'off'}", runs
            )


def _write(folder: Path) -> Path:
    from sparse_slide import write_sparse_slide

    return write_sparse_slide(folder / "sparse.tif")


def _apart(slide: Path, asynchronous: str) -> dict[str, object]:
    import os

    env = os.environ | {"NAPARI_ASYNC": asynchronous}
    command = [sys.executable, __file__, str(slide), "--once"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(path: Path) -> dict[str, object]:
    """Open the slide in a viewer and pan over its finest level."""
    import napari
    from qtpy.QtWidgets import QApplication

    viewer = napari.Viewer()
    viewer.window.resize(1400, 900)
    run(0.5)
    before = resident()
    began = time.perf_counter()
    viewer.open(path, plugin="napari-mcm")
    # Painted when the canvas has drawn what the open asked for.
    native = viewer.window._qt_viewer.canvas.native
    QApplication.processEvents()
    native.repaint()
    wait_loaded(viewer)
    opened = time.perf_counter() - began
    check_painted(viewer)
    layer = viewer.layers[0]
    camera = viewer.scene.camera
    height, width = layer.level_shapes[0][:2]
    centre = np.array([0.35 * height, 0.3 * width]) * layer.scale
    camera.center = tuple(centre)
    camera.zoom = 1 / layer.scale[0]
    run(1.0)
    level = int(layer.data_level)
    stalls = pan(camera, centre, layer.scale)
    peak = peak_resident()
    # What of the stalls is drawing, whoever gives the pixels.
    viewer.layers.clear()
    # Mesa's software renderer crashes on a picture that replaces another in one turn.
    run(0.5)
    plain = np.random.default_rng(0).integers(0, 255, (1280, 1536, 3), np.uint8)
    viewer.add_image(plain, scale=layer.scale, units=layer.units)
    camera.center, camera.zoom = (0, 0), 1 / layer.scale[0]
    run(1.0)
    drawing = pan(camera, np.zeros(2), layer.scale * 0.1)
    viewer.close()
    return {
        "opened_s": opened,
        "grown_mb": (peak - before) / 2**20,
        "level": level,
        "stalls_ms": stalls,
        "drawing_ms": drawing,
    }


def pan(camera, start, pixel) -> list[float]:
    """Pan a third of a window at a time, to the lower right; give each step's stall."""
    stalls = []
    for step in range(1, STEPS + 1):
        there = tuple(start + np.array([150, 300]) * step * pixel)
        stalls.append(
            1000 * stall(lambda there=there: setattr(camera, "center", there))
        )
    return stalls


def check_painted(viewer) -> None:
    """Make sure that the slide is in sight: a blank canvas would be quick, too."""
    seen = viewer.screenshot(canvas_only=True, flash=False)
    assert np.ptp(seen[..., 1]) > 50, "nothing was painted"


def stall(act) -> float:
    """Act, and give the longest pause of a heartbeat in the half second after."""
    from qtpy.QtCore import QTimer

    last = time.perf_counter()
    longest = 0.0

    def beat() -> None:
        nonlocal last, longest
        now = time.perf_counter()
        longest, last = max(longest, now - last), now

    timer = QTimer()
    timer.setInterval(HEARTBEAT_MS)
    timer.timeout.connect(beat)
    timer.start()
    QTimer.singleShot(20, act)
    run(0.5)
    timer.stop()
    return longest


def run(seconds: float) -> None:
    """Let the event loop run."""
    from qtpy.QtCore import QEventLoop, QTimer

    loop = QEventLoop()
    QTimer.singleShot(round(seconds * 1000), loop.quit)
    loop.exec()


def wait_loaded(viewer) -> None:
    """With asynchronous slicing, wait until the layer has its pixels."""
    from qtpy.QtWidgets import QApplication

    until = time.perf_counter() + 20
    while not viewer.layers[0].loaded and time.perf_counter() < until:
        QApplication.processEvents()
        time.sleep(0.001)
    QApplication.processEvents()
    viewer.window._qt_viewer.canvas.native.repaint()


def resident() -> int:
    """Bytes of this process in memory."""
    return _status("VmRSS")


def peak_resident() -> int:
    """The most bytes of this process that were in memory."""
    return _status("VmHWM")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"no {field}: this benchmark needs Linux")


def _report(name: str, runs: list[dict[str, object]]) -> None:
    opened = [run["opened_s"] for run in runs]
    grown = [run["grown_mb"] for run in runs]
    print(f"{name}, {len(runs)} runs, level {runs[0]['level']} panned")
    print(f"  open to painted  {np.median(opened):.2f} s (max {max(opened):.2f})")
    print(
        f"  memory           +{np.median(grown):.0f} MB at most (max {max(grown):.0f})"
    )
    for what, key in (("stalls", "stalls_ms"), ("drawing alone", "drawing_ms")):
        times = np.concatenate([run[key] for run in runs])
        half, most = np.percentile(times, (50, 95))
        print(
            f"  {what:16} median {half:.0f}, p95 {most:.0f}, max {times.max():.0f} ms"
        )


if __name__ == "__main__":
    main()
