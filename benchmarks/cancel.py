"""How long every job of the window takes from a press of Cancel to idle, and if it goes on.

    scripts/with_display.sh .venv/bin/python benchmarks/cancel.py \\
        [--slide SLIDE] [--cells FOLDER] [--n 15] [--cold 5] [--only JOB] [--gaps]

Each job is the very function that a widget hands to the runner of jobs, in a running event
loop. Cancel is pressed at moments drawn uniformly, and the job is gone on with: from its
folder, or from the start where it keeps nothing; at last it must end well. Some presses fall
in the first seconds of a process of their own, when PyTorch is imported. A press counts from
the moment it was due, so a window that stands still counts, too.

Without a slide and cells, generated ones are taken.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from cancel_jobs import JOBS, NEEDED, RESUMED, Make, Place, fine_tuning, generated
from qtpy.QtCore import QEventLoop, Qt, QTimer
from qtpy.QtWidgets import QApplication

from napari_mcm.core.runtime.jobs import Job
from napari_mcm.viewer.app.jobs import JobRunner, JobState

COLD_S, TIRED_S = 7.0, 600.0


class Window:
    """The window's thread: starts jobs, presses Cancel, sees the state change."""

    def __init__(self) -> None:
        self.application = QApplication.instance() or QApplication([])
        self.runner, self.gaps = JobRunner(), Gaps()

    def run(self, make: Make, press_s: float | None) -> tuple[JobState, float, str]:
        """Run a job, and press Cancel after some seconds; None leaves it to end.

        Returns the state it ends in, the seconds it took, or from the press to idle, and
        what it was at.
        """
        runner, loop = self.runner, QEventLoop()
        ended, pressed_at = [0.0], [""]

        def seen(state: JobState) -> None:
            if state not in (JobState.RUNNING, JobState.CANCELLING):
                ended[0] = time.perf_counter()
                loop.quit()

        def press() -> None:
            progress = runner.status.progress
            pressed_at[0] = progress.stage if progress else "starting"
            self.gaps.pressed = True
            runner.cancel()

        runner.status.events.state.connect(seen)
        timer = QTimer()
        timer.setSingleShot(True)
        timer.setTimerType(Qt.TimerType.PreciseTimer)
        timer.timeout.connect(press)
        self.gaps.pressed = False
        began = time.perf_counter()
        if press_s is not None:
            timer.start(round(press_s * 1e3))
        runner.start("Job", lambda: self.gaps.watch(make), lambda _: None)
        loop.exec()
        timer.stop()
        runner.status.events.state.disconnect(seen)
        state = runner.status.state
        if state is JobState.FAILED:
            raise SystemExit(runner.status.details)
        due = began if press_s is None else began + round(press_s * 1e3) / 1e3
        return state, ended[0] - due, pressed_at[0]


class Gaps:
    """The longest a job goes without an event, and where it was then."""

    LATE_S = 0.4

    def __init__(self) -> None:
        self.found: dict[str, float] = {}
        self.pressed = False
        self._began: float | None = None
        self._thread = 0
        threading.Thread(target=self._look, daemon=True).start()

    def watch(self, make: Make) -> Job[Any]:
        """Drive a job, and note how long it is silent."""
        self._thread = threading.get_ident()
        self._began = time.perf_counter()
        job = make()
        try:
            while True:
                self._began = time.perf_counter()
                try:
                    event = next(job)
                except StopIteration as end:
                    return end.value
                self._began = None
                yield event
        finally:
            self._began = time.perf_counter()
            job.close()
            self._began = None

    def _look(self) -> None:
        while True:
            time.sleep(0.05)
            began = self._began
            if began is None or time.perf_counter() - began < self.LATE_S:
                continue
            frame = sys._current_frames().get(self._thread)
            late = time.perf_counter() - began
            stack = traceback.extract_stack(frame) if frame else []
            ours = [f for f in stack if "napari_mcm" in f.filename][-3:]
            where = " < ".join(f"{Path(f.filename).name}:{f.name}" for f in ours[::-1])
            self.found[where] = max(self.found.get(where, 0.0), late)


def moments(job: str, seconds: float, rng: random.Random) -> Iterator[float]:
    """Draw when to press: over all of a run, or of a third of it where it goes on."""
    whole = seconds / 3 if job in RESUMED else seconds
    while True:
        yield rng.uniform(0, whole)


def outcome(make: Callable[[Place, Path], Make], at: Place, out: Path) -> None:
    """See that what was broken off so often is whole."""
    metrics = out / "metrics.csv"
    if metrics.exists():
        rows = [row.split(",")[0] for row in metrics.read_text().splitlines()[1:]]
        assert rows == [str(number) for number in range(len(rows))], rows
    assert make is not fine_tuning or (out / "encoder" / "model.safetensors").exists()


def warm(job: str, at: Place, n: int, seed: int) -> dict[str, Any]:
    """Press n times in one process, then let the job end."""
    window, make, rng = Window(), JOBS[job], random.Random(f"{seed} {job}")
    whole = at.root / "runs" / f"{job} {time.time_ns()}"
    _, seconds, _ = window.run(make(at, whole), None)
    outcome(make, at, whole)
    first = seconds
    if job not in RESUMED:  # the first one imports, too: see the cold presses
        _, seconds, _ = window.run(make(at, whole), None)
    presses: list[tuple[float, str]] = []
    ends, number = 1, 0
    out = whole.with_name(f"{whole.name} {number}")
    for moment in moments(job, seconds, rng):
        again = out.exists()
        state, took, at_stage = window.run(make(at, out), moment)
        if state is JobState.DONE:
            outcome(make, at, out)
            ends, number = ends + again, number + 1
            out = whole.with_name(f"{whole.name} {number}")
            continue
        presses.append((took, at_stage))
        if len(presses) == n:
            break
    state, _, _ = window.run(make(at, out), None)
    assert state is JobState.DONE
    outcome(make, at, out)
    return {"presses": presses, "seconds": first, "gaps": window.gaps.found}


def cold(job: str, at: Place, seed: int, seconds: float) -> dict[str, Any]:
    """Press once in a fresh process, among its first seconds."""
    window, rng = Window(), random.Random(f"cold {seed} {job}")
    out = at.root / "runs" / f"{job} cold {seed}"
    state, took, stage = window.run(JOBS[job](at, out), rng.uniform(0, seconds))
    presses = [(took, stage)] if state is JobState.CANCELLED else []
    return {"presses": presses, "gaps": window.gaps.found}


def prepare(at: Place, job: str) -> None:
    """Make what a job needs before it."""
    window = Window()
    for done, make in NEEDED.get(job, {}).items():
        if not at.run(done).exists():
            window.run(make(at, at.run(done)), None)


def in_a_process(options: argparse.Namespace, at: Place, *words: str) -> dict[str, Any]:
    """Do a part in a fresh process; gives what it found."""
    command = [sys.executable, __file__, "--seed", str(options.seed)]
    command += ["--slide", str(at.slide), "--cells", str(at.cells)]
    command += ["--work", str(at.root), "--n", str(options.n), *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=TIRED_S)
    if done.returncode:
        raise SystemExit(f"{words} failed: {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def report(job: str, found: dict[str, Any], colds: list[dict[str, Any]]) -> None:
    """Print the figures of a job."""
    first = [press for one in colds for press in one["presses"]]
    all_of_them = [*found["presses"], *first]
    took = np.array([seconds for seconds, _ in all_of_them])
    slowest = max(all_of_them)
    print(
        f"{job:12} n {len(took):3} ({len(first)} cold)  median {np.median(took):.2f} s  "
        f"p95 {np.percentile(took, 95):.2f} s  maximum {took.max():.2f} s "
        f"({slowest[1]})  goes on: yes  [whole run {found['seconds']:.1f} s]",
        flush=True,
    )


def show_gaps(found: list[dict[str, Any]]) -> None:
    """Print where jobs said nothing for long."""
    gaps: dict[str, float] = {}
    for one in found:
        for where, seconds in one["gaps"].items():
            gaps[where] = max(gaps.get(where, 0.0), seconds)
    for where, seconds in sorted(gaps.items(), key=lambda item: -item[1])[:12]:
        print(f"    silent {seconds:.2f} s: {where}")


def measure(options: argparse.Namespace, at: Place, job: str) -> None:
    """Measure a job and print it."""
    in_a_process(options, at, "--part", "prepare", "--only", job)
    found = in_a_process(options, at, "--part", "warm", "--only", job)
    until = min(COLD_S, found["seconds"])
    colds = [
        in_a_process(options, at, "--part", f"cold {seed} {until}", "--only", job)
        for seed in range(options.cold)
    ]
    report(job, found, colds)
    if options.gaps:
        for seconds, stage in [
            *found["presses"],
            *(p for c in colds for p in c["presses"]),
        ]:
            print(f"    {seconds:.2f} s at {stage}")
        show_gaps([found, *colds])


def do_part(options: argparse.Namespace, at: Place) -> None:
    """Do a part in this process, and print what was found."""
    part, job = options.part, options.only[0]
    found: dict[str, Any] = {}
    if part == "prepare":
        prepare(at, job)
    elif part == "warm":
        found = warm(job, at, options.n, options.seed)
    else:
        number, until = part.split()[1:]
        found = cold(job, at, options.seed * 1000 + int(number), float(until))
    print(json.dumps(found), flush=True)
    # What was walked away from, an import say, is not waited for.
    os._exit(0)


def main() -> None:
    """Measure all jobs, or some."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slide", type=Path)
    parser.add_argument("--cells", type=Path)
    parser.add_argument("--n", type=int, default=15, help="presses a job")
    parser.add_argument("--cold", type=int, default=5, help="more, in fresh processes")
    parser.add_argument("--only", nargs="+", choices=[*JOBS], default=[*JOBS])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--gaps", action="store_true", help="show where jobs are silent"
    )
    parser.add_argument("--work", type=Path, help="keep what is made; else temporary")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        do_part(options, Place(options.work, options.slide, options.cells))
    with tempfile.TemporaryDirectory() as folder:
        root = options.work or Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        slide, cells = options.slide, options.cells
        if slide is None or cells is None:
            made = generated(root)
            slide, cells = slide or made[0], cells or made[1]
        for job in options.only:
            measure(options, Place(root, slide, cells), job)


if __name__ == "__main__":
    main()
