"""From the launch of napari to the first map and 20 clicks, with all stalls on the way.

The window is driven by its own buttons and real mouse events: the slide is opened, the
dock *Similarity* opens or is opened, *Compute features* is pressed, the map is asked for.
Once the features are there, all is done again in a new process that finds them. A 5 ms
timer in the window's thread reports how long the window stands still; a second thread
looks at what it is doing then. A fresh interpreter that imports PyTorch in the same run is
the measure for the machine: compare ratios. "cold" has the libraries out of the file
cache; "no bytecode" compiles every module anew, as in containers that keep none.

    scripts/with_display.sh .venv/bin/python benchmarks/first_map.py SLIDE \\
        [--before CHECKOUT] [--states warm cold] [--encoder offline:efficientnet_lite0]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

PLUGIN, DOCK = "napari-mcm", "Similarity"
HEARTBEAT_MS, LATE_S, CLICKS = 5, 0.05, 20
HERE = Path(__file__).resolve().parents[1]
REFERENCE = (
    "import time; t = time.perf_counter(); import torch, timm;"
    "print(time.perf_counter() - t)"
)
HEAVY = ("torch", "timm", "pandas", "sklearn", "matplotlib.pyplot")


def main() -> None:
    """Measure each state in processes of its own, and print all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slide", type=Path)
    parser.add_argument("--before", type=Path, help="checkout to compare with")
    parser.add_argument("--states", nargs="*", default=["warm", "cold"])
    parser.add_argument("--encoder", default="offline:efficientnet_lite0")
    parser.add_argument(
        "--think", type=float, default=6, help="seconds until the press"
    )
    parser.add_argument("--patch-size", type=int, default=224)
    parser.add_argument("--once", choices=("compute", "reopen"), help="here, as JSON")
    parser.add_argument("--launched", type=float, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        print(json.dumps(FirstUse(options).figures()), flush=True)
        return
    for state in options.states:
        for name, checkout in {"before": options.before, "now": HERE}.items():
            if checkout is not None:
                compare(options, state, name, checkout)


def compare(options: argparse.Namespace, state: str, name: str, where: Path) -> None:
    """Print the figures of one checkout in one state."""
    with tempfile.TemporaryDirectory() as folder:
        slide = Path(folder) / options.slide.name
        slide.symlink_to(options.slide.resolve())
        environment = os.environ | {
            "PYTHONPATH": f"{where / 'src'}:{where}",
            "NAPARI_CONFIG": f"{folder}/settings.yaml",
            "XDG_CONFIG_HOME": f"{folder}/config",
            "NAPARI_ASYNC": "0",
        }
        if state == "no bytecode":
            environment |= {
                "PYTHONPYCACHEPREFIX": f"{folder}/none",
                "PYTHONDONTWRITEBYTECODE": "1",
            }
        for once in ("compute", "reopen"):
            fresh = call(state, environment, ["-c", REFERENCE])
            command = [__file__, str(slide), "--once", once]
            command += ["--encoder", options.encoder, "--think", str(options.think)]
            command += ["--patch-size", str(options.patch_size)]
            found = json.loads(call(state, environment, [*command, "--launched"]))
            ended = time.time() - found["closed"]
            found["seconds"]["and until the process ended"] = ended
            report(f"{state}, {name}, {once}", float(fresh), found)


def call(state: str, environment: dict[str, str], arguments: list[str]) -> str:
    """Run Python on something, and return the last line that it prints."""
    if state == "cold":
        forget_libraries()
    if arguments[-1] == "--launched":
        arguments = [*arguments, str(time.time())]
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[-1]


def forget_libraries() -> None:
    """Put the installed packages out of the system's file cache."""
    for path in Path(json.__file__).parents[1].rglob("*"):
        _forget(path)
    packages = Path(sys.prefix) / "lib"
    for path in packages.rglob("*"):
        _forget(path)


def _forget(path: Path) -> None:
    if path.is_file() and path.suffix in (".py", ".pyc", ".so"):
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def report(what: str, fresh: float, found: dict[str, Any]) -> None:
    """Print one run."""
    print(
        f"\n{what}: {found['actions']} actions; import in a fresh process {fresh:.2f} s"
    )
    for key, seconds in found["seconds"].items():
        ratio = (
            f"  ({seconds / fresh:.2f} x fresh)" if key.startswith("PyTorch") else ""
        )
        print(f"  {key:42s} {seconds:7.2f} s{ratio}")
    for module, thread in found["imported"].items():
        print(f"  {module} was imported in {thread}")
    for phase, owners in found["stalls"].items():
        shown = ", ".join(
            f"{owner} {len(ms)} of {max(ms):.0f} ms at most"
            for owner, ms in owners.items()
        )
        print(f"  stalls, {phase}: {shown}")
    modules = found["modules imported in the window's thread"]
    print(
        f"  {len(modules)} modules were imported in the window's thread after the dock"
    )
    for line in found["where"]:
        print(f"    {line}")


class Stalls:
    """How long the window's thread stands still, in which phase, and by whose code."""

    def __init__(self) -> None:
        from qtpy.QtCore import Qt, QTimer

        self.phase = ""
        self.found: dict[str, dict[str, list[float]]] = {}
        self.where: list[str] = []
        self._seen: list[tuple[float, str, str]] = []
        self._window, self._last = threading.get_ident(), time.perf_counter()
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._tick)
        self._timer.start(HEARTBEAT_MS)
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            time.sleep(0.008)
            late = time.perf_counter() - self._last
            if late > LATE_S / 3:
                owner, where = owner_of(sys._current_frames().get(self._window))
                self._seen.append((time.perf_counter(), owner, where))

    def _tick(self) -> None:
        began, now = self._last, time.perf_counter()
        self._last, seen = now, [one for one in self._seen if one[0] > began]
        self._seen.clear()
        if now - began < LATE_S or not self.phase:
            return
        times = [began, *(one[0] for one in seen), now]
        blind = max(b - a for a, b in zip(times, times[1:], strict=False))
        owners = [one[1] for one in seen]
        owner = max(set(owners), key=owners.count) if owners else "lock"
        # Not even the thread that looks could run: another one held the interpreter.
        if blind > 0.6 * (now - began):
            owner = "lock"
        ms = (now - began) * 1e3
        self.found.setdefault(self.phase, {}).setdefault(owner, []).append(ms)
        if ms > 100 or owner == "ours":
            places = [one[2] for one in seen if one[1] == owner] or ["?"]
            at = max(set(places), key=places.count)
            self.where.append(f"{self.phase}: {ms:.0f} ms, {owner}: {at}")


def owner_of(frame: Any) -> tuple[str, str]:
    """Tell whose code a frame runs: ours, napari's for us, napari's, or only Qt's."""
    files, names = [], []
    while frame is not None:
        files.append(frame.f_code.co_filename)
        names.append(f"{Path(files[-1]).name}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    ours = [n for n, f in enumerate(files) if "/napari_mcm/" in f]
    theirs = [n for n, f in enumerate(files) if "/napari/" in f or "/vispy/" in f]
    where = " < ".join(names[:6])
    if ours and (not theirs or ours[0] < theirs[0]):
        return "ours", where
    if ours:
        return "napari for us", " < ".join([*names[:3], "...", *names[ours[0] :][:3]])
    return ("napari" if theirs else "Qt"), where


class Imports:
    """Which thread imports the heavy modules, and when PyTorch is ready."""

    def __init__(self) -> None:
        self.threads: dict[str, str] = {}
        self.in_window: list[str] = []
        self.ready = 0.0
        sys.meta_path.insert(0, self)  # type: ignore[arg-type]
        threading.Thread(target=self._wait, daemon=True).start()

    def find_spec(self, name: str, *_: object) -> None:
        """Note the thread; find nothing."""
        if threading.current_thread() is threading.main_thread():
            self.in_window.append(name)
        if name in HEAVY:
            self.threads.setdefault(name, threading.current_thread().name)

    def _wait(self) -> None:
        while not self.ready:
            time.sleep(0.02)
            timm = sys.modules.get("timm")
            spec = getattr(timm, "__spec__", None)
            if spec is not None and not getattr(spec, "_initializing", False):
                self.ready = time.perf_counter()


class FirstUse:
    """One user's first minute."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.seconds = options, dict[str, float]()
        self.actions = 1  # the launch
        self.imports = Imports()
        import napari

        self.viewer = napari.Viewer()
        self.viewer.window.resize(1280, 800)
        self.stalls, self.drawn = Stalls(), 0
        self.canvas = self.viewer.window._qt_viewer.canvas
        self.canvas._scene_canvas.events.draw.connect(self._count)
        wait(lambda: self.drawn > 0)
        self.seconds["launch to window"] = time.time() - options.launched
        self.widget: Any = None

    def _count(self, _event: object) -> None:
        self.drawn += 1

    def figures(self) -> dict[str, Any]:
        """Do all, and return what was measured."""
        self.open()
        self.features()
        self.clicks()
        self.quit()
        return {
            "seconds": self.seconds,
            "closed": self.closed,
            "actions": self.actions,
            "imported": self.imports.threads,
            "stalls": self.stalls.found,
            "where": self.stalls.where,
            "modules imported in the window's thread": self.imports.in_window,
        }

    def phase(self, name: str) -> Callable[[], float]:
        """Begin a phase; the result gives the seconds since then."""
        self.stalls.phase, began = name, time.perf_counter()
        return lambda: time.perf_counter() - began

    def open(self) -> None:
        """Drop the slide on the window; open the dock where none opens."""
        self.actions += 1
        passed, before = self.phase("opening the slide"), self.drawn
        self.viewer.open(self.options.slide, plugin=PLUGIN)
        wait(lambda: self.drawn > before)
        self.seconds["slide seen"] = passed()
        self.seen = time.perf_counter()
        passed = self.phase("opening the dock")
        try:
            # Before this module was, no dock opened.
            import_module("napari_mcm.viewer.app.first_dock")
            wait(lambda: self._dock() is not None)
        except ModuleNotFoundError:
            settle(0.3)
            self.actions += 3  # Plugins, the plugin, the dock
            self.viewer.window.add_plugin_dock_widget(PLUGIN, DOCK)
        self.opened = time.perf_counter()
        self.imports.in_window.clear()
        self.widget = self._dock()
        wait(self.widget.isVisible)
        self.seconds["dock"] = passed()

    def _dock(self) -> Any:
        from qtpy.QtWidgets import QWidget

        window = self.viewer.window._qt_window
        found = [
            one
            for one in window.findChildren(QWidget)
            if type(one).__name__ == "SimilarityWidget"
        ]
        return found[0] if found else None

    def features(self) -> None:
        """Press the button after a while, unless the features are found before."""
        session, once = self.widget.session, self.options.once
        passed = self.phase("features")
        if once == "reopen":
            settle(0.5)
        else:
            settle(max(self.options.think - (time.perf_counter() - self.opened), 0))
        if session.features("first") is None and not session.jobs.status.busy:
            self.actions += 1
            self.widget.first.encoder.setCurrentText(self.options.encoder)
            self.widget.options.patch_size.setValue(self.options.patch_size)
            pressed = self.phase("features")
            self.widget.first.compute.click()
            status = session.jobs.status
            wait(
                lambda: (
                    (status.progress is not None and status.progress.done > 0)
                    or not status.busy
                )
            )
            self.seconds["press to first patches"] = pressed()
        wait(lambda: session.features("first") is not None)
        self.seconds["features"] = passed()
        if self.imports.ready:
            ready = self.imports.ready - self.opened
            self.seconds["PyTorch ready after the dock opened"] = ready

    def clicks(self) -> None:
        """Click on 20 patches; each is done when its map was drawn."""
        import numpy as np

        from napari_mcm.viewer.similarity.context import context_of

        features = self.widget.session.features("first").index.features
        places = np.random.default_rng(0).permutation(features.grid.centres)[:CLICKS]
        queries, times = context_of(self.widget.session).queries, []
        self.actions += 1
        for number, place in enumerate(places):
            before, drawn = queries.query, self.drawn
            passed = self.phase("first click" if not number else "later clicks")
            self._click(*place)
            wait(
                lambda b=before, d=drawn: (
                    queries.query not in (None, b) and self.drawn > d
                )
            )
            times.append(passed())
            if not number:
                self.at_first_click = len(self.imports.in_window)
                self.seconds["launch to first map"] = (
                    time.time() - self.options.launched
                )
                self.seconds["slide seen to first map"] = (
                    time.perf_counter() - self.seen
                )
            settle(0.4)
        self.seconds["first click to map"] = times[0]
        self.seconds["later clicks to map, median"] = sorted(times[1:])[CLICKS // 2]

    def _click(self, x: float, y: float) -> None:
        import numpy as np
        from qtpy.QtCore import QPoint, Qt
        from qtpy.QtTest import QTest

        native, camera = self.canvas.native, self.viewer.scene.camera
        middle = np.array([native.height(), native.width()]) / 2
        world = np.asarray(self.viewer.layers[0].data_to_world((y, x)))
        row, column = (world - camera.center[-2:]) * camera.zoom + middle
        at, left = QPoint(round(column), round(row)), Qt.MouseButton.LeftButton
        QTest.mouseMove(native, at)
        QTest.mouseClick(native, left, Qt.KeyboardModifier.NoModifier, at)

    def quit(self) -> None:
        """Close the window; what is left of the process is short."""
        passed = self.phase("quitting")
        self.viewer.close()
        self.seconds["closing the window"] = passed()
        self.closed = time.time()


def wait(until: Callable[[], bool], seconds: float = 600) -> None:
    """Let the window's own event loop run until something has happened."""
    from qtpy.QtCore import QEventLoop, QTimer

    end, loop, poll = time.monotonic() + seconds, QEventLoop(), QTimer()
    poll.timeout.connect(lambda: (until() or time.monotonic() > end) and loop.quit())
    poll.start(5)
    loop.exec()
    poll.stop()
    if not until():
        raise SystemExit(f"gave up after {seconds:.0f} s")


def settle(seconds: float) -> None:
    """Let the window's own event loop run for a while."""
    end = time.monotonic() + seconds
    wait(lambda: time.monotonic() > end)


if __name__ == "__main__":
    main()
