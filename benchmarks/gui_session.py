"""A pathologist's hour in the real window: every step asserted, a picture of each.

Open a slide, extract, click, fine-tune for one epoch, extract again and compare, see that
nothing is computed twice, save the query, and ask another slide the same. Buttons are pressed
and the canvas is clicked by real events. A timer of 10 ms in the window's thread tells how
long it stood still; each kind of job is cancelled once, and gone on with.

    scripts/with_display.sh .venv/bin/python benchmarks/gui_session.py SLIDE OTHER \\
        --out session [--at X Y] [--student NAME] [--teacher NAME] [--patch-size 224]
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QFileDialog

from napari_mcm.viewer.app.jobs import JobState
from napari_mcm.viewer.finetune.widget import FinetuneWidget
from napari_mcm.viewer.similarity.widget import SimilarityWidget
from napari_mcm.viewer.training.start_panel import RESUME

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
from screenshot_driver import Studio, settle, wait  # noqa: E402

from napari_mcm.viewer.similarity.context import context_of

TICK_MS = 10
LATE_S = 0.12


class Stalls:
    """How late a timer in the window's thread fires, by what goes on, and why."""

    def __init__(self) -> None:
        self.gaps: dict[str, list[float]] = {}
        self.where: list[str] = []
        self._during, self._last = "", time.perf_counter()
        self._window = threading.get_ident()
        threading.Thread(target=self._look, daemon=True).start()
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._tick)
        self._timer.start(TICK_MS)

    @contextmanager
    def during(self, what: str) -> Iterator[None]:
        """Count gaps towards something."""
        self._during, before = what, self._during
        self._last = time.perf_counter()
        yield
        self._during, self._last = before, time.perf_counter()

    def figures(self) -> dict[str, dict[str, float]]:
        """Give median, 95th percentile and maximum in milliseconds."""
        return {
            what: {
                "median": float(np.median(gaps)),
                "p95": float(np.percentile(gaps, 95)),
                "maximum": float(max(gaps)),
            }
            for what, gaps in self.gaps.items()
        }

    def _look(self) -> None:
        """See from another thread what the window's is at when it is late."""
        seen = 0.0
        while True:
            time.sleep(0.02)
            began, during = self._last, self._during
            if during and seen != began and time.perf_counter() - began > LATE_S:
                seen = began
                frames = traceback.extract_stack(sys._current_frames()[self._window])
                at = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames]
                self.where.append(f"{during}: {' < '.join(reversed(at[-12:]))}")

    def _tick(self) -> None:
        now = time.perf_counter()
        if self._during:
            gap = (now - self._last) * 1e3
            self.gaps.setdefault(self._during, []).append(gap)
        self._last = now


class Hour:
    """The session's steps, in their order."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.studio = Studio(options.out, (1500, 950))
        self.session = self.studio.session
        self.stalls, self.cancels = Stalls(), {}
        self.number = 0

    def take(self, name: str) -> None:
        """Save a numbered picture."""
        self.number += 1
        with self.stalls.during(""):
            self.studio.take(f"{self.number:02}-{name}")

    def open(self, path: Path) -> None:
        """Open a slide; it is what is worked on then."""
        with self.stalls.during("opening"):
            self.studio.open(path)
        metadata = self.session.metadata
        assert metadata is not None and metadata.mpp is not None
        assert Path(metadata.path).resolve() == path.resolve()

    def extract(self, widget: SimilarityWidget) -> None:
        """Extract by the student; cancelled once on the way."""
        slot, status = widget.first, self.session.jobs.status
        slot.encoder.setCurrentText(self.options.student)
        slot.compute.click()
        wait(lambda: status.progress is not None and status.progress.done > 8)
        self.cancel("extracting")
        with self.stalls.during("extracting"):
            slot.compute.click()
            self.studio.finish()
        loaded = self.session.features("first")
        assert loaded is not None and len(loaded.index.features) > 50

    def cancel(self, what: str) -> None:
        """Cancel the job that runs, and tell how long that took."""
        began = time.perf_counter()
        self.session.jobs.cancel()
        wait(lambda: not self.session.jobs.status.busy)
        self.cancels[what] = time.perf_counter() - began
        assert self.session.jobs.status.state is JobState.CANCELLED

    def click(self, at: tuple[float, float]) -> None:
        """Click on a place; a map of its likeness is there."""
        self.studio.click(*at)
        heatmap = context_of(self.session).queries.maps()["first"]
        assert heatmap is not None and heatmap.query is not None
        x, y = heatmap.grid.centres[heatmap.query]
        half = max(heatmap.grid.patch_size_level0) / 2
        assert abs(x - at[0]) <= half and abs(y - at[1]) <= half
        assert abs(heatmap.values[heatmap.query] - 1) < 1e-4

    def fine_tune(self, run_dir: Path) -> FinetuneWidget:
        """Fine-tune one epoch; cancelled once and gone on with."""
        widget = self.studio.dock("Fine-tune")
        assert isinstance(widget, FinetuneWidget)
        widget.form.student.setCurrentText(self.options.student)
        widget.form.teacher.setCurrentText(self.options.teacher)
        widget.form.patches.patch_size.setValue(self.options.patch_size)
        widget.start.out.put(run_dir)
        wait(widget.start.start.isEnabled)
        self.take("fine-tune")
        widget.start.start.click()
        wait(lambda: len(widget.controller.series.get("step", [])) >= 2)
        self.cancel("fine-tuning")
        wait(lambda: widget.start.start.text() == RESUME)
        with self.stalls.during("fine-tuning"):
            widget.start.start.click()
            wait(lambda: len(widget.controller.series.get("step", [])) >= 4)
            self.take("fine-tuning")
            self.studio.finish()
        wait(lambda: widget.controller.run is not None)
        assert (run_dir / "encoder" / "model.safetensors").exists()
        return widget

    def compare(self, widget: FinetuneWidget) -> None:
        """Before and after on the open slide; the query is asked of both."""
        with self.stalls.during("comparing"):
            widget.results.compare.click()
            self.studio.finish()
        wait(lambda: context_of(self.session).queries.maps().get("second") is not None)
        maps = context_of(self.session).queries.maps()
        assert maps["first"].query == maps["second"].query
        apart = np.abs(maps["first"].values - maps["second"].values)
        assert np.nanmax(apart) > 1e-3

    def nothing_twice(self, widget: FinetuneWidget, run_dir: Path) -> None:
        """What is finished is neither trained nor extracted again."""
        before = stamps(run_dir), stamps(self.options.out / "features")
        wait(lambda: not widget.start.start.isEnabled())
        began = time.perf_counter()
        widget.results.compare.click()
        self.studio.finish()
        self.cancels["found again"] = time.perf_counter() - began
        assert (stamps(run_dir), stamps(self.options.out / "features")) == before

    def carry(self, widget: SimilarityWidget, run_dir: Path) -> None:
        """Save the query, open the other slide, and ask it the same."""
        file = self.options.out / "query.json"
        QFileDialog.getSaveFileName = lambda *_: (str(file), "")
        QFileDialog.getOpenFileName = lambda *_: (str(file), "")
        widget.query.save.trigger()
        wait(file.exists)
        content = json.loads(file.read_text(encoding="utf-8"))
        assert content
        self.open(self.options.other)
        self.session.choose_slide(self.studio.viewer.layers[-1])
        self.studio.compute(widget.first, str(run_dir))
        widget.query.open.trigger()
        wait(lambda: context_of(self.session).queries.maps().get("first") is not None)
        heatmap = context_of(self.session).queries.maps()["first"]
        assert heatmap.query is None and np.nanmax(heatmap.values) > 0.5


def stamps(folder: Path) -> dict[str, int]:
    """When each file below a folder was written."""
    return {
        str(path): path.stat().st_mtime_ns
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def main() -> None:
    """Do it all, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slide", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--out", type=Path, default=Path("session"))
    parser.add_argument("--at", type=float, nargs=2)
    parser.add_argument("--student", default="offline:efficientnet_lite0")
    parser.add_argument("--teacher", default="offline:efficientnet_lite2")
    parser.add_argument("--patch-size", type=int, default=224)
    options = parser.parse_args()
    hour, run_dir = Hour(options), options.out / "run"
    hour.open(options.slide)
    hour.take("opened")
    similarity = hour.studio.dock("Similarity")
    assert isinstance(similarity, SimilarityWidget)
    similarity.options.patch_size.setValue(options.patch_size)
    similarity.options.folder.setText(str(options.out / "features"))
    hour.extract(similarity)
    size = hour.session.metadata.size
    hour.click(tuple(options.at or (size[0] / 2, size[1] / 2)))
    hour.take("clicked")
    tuning = hour.fine_tune(run_dir)
    hour.take("fine-tuned")
    hour.compare(tuning)
    hour.take("compared")
    hour.nothing_twice(tuning, run_dir)
    hour.carry(similarity, run_dir)
    hour.take("other-slide")
    settle()
    figures = {"stalls_ms": hour.stalls.figures(), "seconds": hour.cancels}
    print(json.dumps(figures, indent=1))
    print("later than 120 ms:", *hour.stalls.where, sep="\n  ")
    hour.studio.viewer.close()


if __name__ == "__main__":
    main()
