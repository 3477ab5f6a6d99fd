"""Jobs in the worker thread: progress, results, failures, cancelling."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytestqt.qtbot import QtBot

from napari_mcm.core.errors import FeatureError, McmError
from napari_mcm.core.runtime import async_writes as writes
from napari_mcm.core.runtime.jobs import Job, Note, Progress
from napari_mcm.core.runtime.threads import run_in_thread
from napari_mcm.viewer.app.jobs import JobRunner, JobState
from napari_mcm.viewer.qt.job_bar import JobBar, describe

Wait = Callable[[JobRunner], None]


@pytest.fixture
def jobs(qtbot: QtBot) -> JobRunner:
    return JobRunner()


@pytest.fixture
def finished(qtbot: QtBot) -> Wait:
    return lambda jobs: qtbot.waitUntil(lambda: not jobs.status.busy, timeout=5000)


def counting(steps: int, pause: float = 0.0) -> Job[int]:
    for step in range(steps):
        time.sleep(pause)
        yield Progress("Counting", step + 1, steps, "steps", rate=10.0)
    return steps


def test_a_result_arrives_before_the_job_is_done(
    jobs: JobRunner, finished: Wait
) -> None:
    seen: list[tuple[str, Any]] = []
    jobs.status.events.state.connect(lambda state: seen.append((state.value, None)))
    jobs.start("Count", lambda: counting(3), lambda n: seen.append(("result", n)))
    finished(jobs)
    assert seen == [("running", None), ("result", 3), ("done", None)]


def test_it_runs_in_a_thread_of_its_own(jobs: JobRunner, finished: Wait) -> None:
    threads: list[object] = []

    def job() -> Job[None]:
        threads.append(threading.current_thread())
        yield Note("here")

    jobs.start("Look", job, lambda _: threads.append(threading.current_thread()))
    finished(jobs)
    assert threads[0] is not threading.main_thread()
    assert threads[1] is threading.main_thread()


def test_progress_comes_ten_times_a_second_at_most(
    jobs: JobRunner, finished: Wait
) -> None:
    heard: list[Any] = []
    jobs.status.events.progress.connect(heard.append)
    jobs.start("Count", lambda: counting(2000, 0.0002), lambda _: None)
    began = time.monotonic()
    finished(jobs)
    assert 1 < len(heard) <= (time.monotonic() - began) * 10 + 3


def test_an_error_of_the_engine_is_one_line_with_details(
    jobs: JobRunner, finished: Wait
) -> None:
    def job() -> Job[None]:
        yield Note("so far so good")
        raise FeatureError("holds nothing", "a.features.zarr", "Extract again")

    jobs.start("Load", job, lambda _: pytest.fail("no result"))
    finished(jobs)
    assert jobs.status.state is JobState.FAILED
    assert jobs.status.message == "a.features.zarr: holds nothing. Extract again"
    assert "Traceback" in jobs.status.details
    assert "so far so good" in jobs.status.details
    assert describe(jobs.status).startswith("Load failed: a.features.zarr")


def test_an_unexpected_error_is_one_line_too(jobs: JobRunner, finished: Wait) -> None:
    def job() -> Job[None]:
        yield Note("on the way")
        raise RuntimeError("out of memory\nwith a long tail")

    jobs.start("Load", job, lambda _: pytest.fail("no result"))
    finished(jobs)
    assert jobs.status.message == "RuntimeError: out of memory"
    jobs.start("Again", lambda: counting(1), lambda _: None)
    finished(jobs)
    assert jobs.status.state is JobState.DONE and not jobs.status.details


def test_a_result_that_cannot_be_shown_does_not_hold_up_the_next_job(
    jobs: JobRunner, qtbot: QtBot
) -> None:
    def show(_: object) -> None:
        raise ValueError("the layer is gone")

    with qtbot.captureExceptions() as raised:
        jobs.start("Count", lambda: counting(1), show)
        qtbot.waitUntil(lambda: bool(raised))
    assert jobs.status.state is JobState.FAILED
    assert (
        jobs.status.message
        == "The job ended, but its result cannot be shown: the layer is gone"
    )
    assert "Traceback" in jobs.status.details
    # Nor is it hidden: it is reported like any other mistake of ours.
    assert "the layer is gone" in str(raised[0][1])


def test_cancel_closes_the_job_in_its_thread(jobs: JobRunner, finished: Wait) -> None:
    closed: list[object] = []

    def job() -> Job[None]:
        try:
            # Longer than anybody waits.
            yield from counting(100_000, 0.02)
        finally:
            closed.append(threading.current_thread())

    jobs.start("Count", job, lambda _: pytest.fail("no result"))
    time.sleep(0.1)
    jobs.cancel()
    assert jobs.status.state is JobState.CANCELLING
    finished(jobs)
    assert jobs.status.state is JobState.CANCELLED
    assert closed and closed[0] is not threading.main_thread()


def test_a_step_that_cannot_be_interrupted_delays_no_cancel(
    jobs: JobRunner, finished: Wait
) -> None:
    resume, ended = threading.Event(), threading.Event()

    def load() -> None:
        resume.wait(60)
        ended.set()

    jobs.start("Load", lambda: run_in_thread("Loading", load), lambda _: None)
    time.sleep(0.2)
    jobs.cancel()
    finished(jobs)
    assert not ended.is_set()
    resume.set()


@pytest.mark.parametrize("full", [False, True])
def test_a_cancel_does_not_wait_for_what_is_being_written(
    jobs: JobRunner, finished: Wait, qtbot: QtBot, tmp_path: Path, full: bool
) -> None:
    gate = threading.Event()

    def write() -> None:
        gate.wait(20)
        if full:
            raise McmError("cannot be written (No space left on device)")

    def job() -> Job[None]:
        try:
            yield from counting(1000, 0.02)
        finally:
            writes.begin(tmp_path / "checkpoint", write)

    jobs.start("Train", job, lambda _: None)
    time.sleep(0.1)
    jobs.cancel()
    finished(jobs)
    assert jobs.status.state is JobState.CANCELLED and writes.has_pending_writes()
    gate.set()
    qtbot.waitUntil(lambda: not writes.has_pending_writes())
    qtbot.wait(100)
    assert ("No space left" in jobs.status.message) == full
    assert jobs.status.state is JobState.CANCELLED


def test_one_job_at_a_time(jobs: JobRunner, finished: Wait) -> None:
    jobs.start("First", lambda: counting(100, 0.01), lambda _: None)
    with pytest.raises(RuntimeError, match="First is still running"):
        jobs.start("Second", lambda: counting(1), lambda _: None)
    jobs.close()
    finished(jobs)


def test_warnings_are_not_lost(jobs: JobRunner, finished: Wait) -> None:
    def job() -> Job[None]:
        yield Note("careful")
        warnings.warn("this is odd", UserWarning, stacklevel=1)

    jobs.start("Warn", job, lambda _: None)
    finished(jobs)
    assert "UserWarning: this is odd" in jobs.status.details


def test_the_bar_shows_and_cancels(
    qtbot: QtBot, jobs: JobRunner, finished: Wait
) -> None:
    bar = JobBar(jobs)
    qtbot.addWidget(bar)
    bar.show()
    assert not bar.cancel.isVisible()
    jobs.start("Count", lambda: counting(1000, 0.02), lambda _: None)
    qtbot.waitUntil(lambda: bar.bar.value() > 0)
    assert bar.cancel.isVisible() and bar.bar.format().endswith(" %")
    assert "of 1,000 steps" in bar.line.text() and "10 per second" in bar.line.text()
    bar.cancel.click()
    assert bar.cancel.text() == "Cancelling…" and not bar.cancel.isEnabled()
    finished(jobs)
    assert not bar.cancel.isVisible() and "Cancelled" in bar.line.text()
