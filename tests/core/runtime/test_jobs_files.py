"""Long jobs can be driven, watched and cancelled; files appear whole or not at all."""

from __future__ import annotations

import threading
import time

import pytest

from napari_mcm.core.errors import ConfigError, McmError
from napari_mcm.core.mil.trainer import LONG_BAG, run_step
from napari_mcm.core.runtime.files import atomic_path, write_json
from napari_mcm.core.runtime.jobs import Meter, Note, Progress, format_seconds, run
from napari_mcm.core.runtime.threads import prefetch, run_in_thread
from napari_mcm.core.training import warmup_cosine


def test_run_gives_events_and_the_result():
    def job():
        yield Note("one")
        yield Note("two")
        return 7

    seen = []
    assert run(job(), seen.append) == 7
    assert [event.text for event in seen] == ["one", "two"]


def test_a_failing_listener_still_lets_the_job_clean_up():
    cleaned = []

    def job():
        try:
            yield Note("one")
            yield Note("two")
        finally:
            cleaned.append(True)

    with pytest.raises(ZeroDivisionError):
        run(job(), lambda event: 1 / 0)
    assert cleaned


def test_meter_tells_rate_and_time_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    meter = Meter("Extracting", 100, done=40)
    assert meter.progress().rate is None
    now[0] = 102.0
    progress = meter.advance(20)
    assert (progress.done, progress.rate, progress.eta_s) == (60, 10.0, 4.0)
    assert progress.describe() == "60/100 patches, 10/s, 4 s left"
    assert Progress("x", 1, None).eta_s is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(8.6, "9 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_durations_read_as_people_say_them(seconds, text):
    assert format_seconds(seconds) == text


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "config.json"
    write_json(path, {"a": 1})
    before = path.read_text()
    with pytest.raises(RuntimeError), atomic_path(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_unwritable_place_is_said_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(McmError, match="cannot be written"):
        write_json(tmp_path / "file" / "below.json", {})


def test_errors_say_what_where_and_what_next():
    error = ConfigError("must be positive", "mpp", "Give microns per pixel")
    assert str(error) == "mpp: must be positive. Give microns per pixel"
    assert error.exit_code == 2


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_prefetch_keeps_the_order(workers):
    def slow(number):
        time.sleep(0.002 * (number % 3))
        return number

    assert list(prefetch(slow, range(40), workers)) == list(range(40))


def test_prefetch_reads_a_bounded_way_ahead_and_stops_when_closed():
    started = []
    ahead = prefetch(lambda n: started.append(n) or n, iter(range(1000)), 2, ahead=4)
    assert next(ahead) == 0
    time.sleep(0.05)
    assert len(started) <= 8
    ahead.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("prefetch")]


def test_an_error_in_prefetch_reaches_whoever_waits():
    def fail(number):
        raise ValueError(number)

    with pytest.raises(ValueError, match="0"):
        list(prefetch(fail, range(3)))


def test_a_thread_is_called_after_what_it_does():
    def name():
        return threading.current_thread().name

    here = name()
    assert (
        run(run_in_thread("Reading features", name)) == "napari-mcm: Reading features"
    )
    assert run(run_step("predict", name, LONG_BAG)) == "napari-mcm: predict"
    # What takes a moment only needs no thread.
    assert run(run_step("predict", name, LONG_BAG - 1)) == here


@pytest.mark.parametrize("abandon", [False, True])
def test_a_step_in_a_thread_is_left_when_its_job_is_cancelled(abandon):
    release, ended = threading.Event(), threading.Event()

    def step(number):
        release.wait(60)
        ended.set()
        return number

    progress = Progress("Computing", 3, 9, "cells")
    job = run_in_thread(progress, step, 7, abandon=abandon)
    assert next(job) is progress
    job.close()
    assert not ended.is_set()
    release.set()
    assert run(run_in_thread("again", step, 7, abandon=abandon)) == 7


def test_an_error_of_a_step_in_a_thread_reaches_its_job():
    def fail():
        raise McmError("no luck")

    for job in (run_in_thread("step", fail), run_step("step", fail, LONG_BAG)):
        with pytest.raises(McmError, match="no luck"):
            run(job)


def test_schedule_warms_up_then_falls_to_zero():
    factors = [warmup_cosine(step, 100, 0.1) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == factors[9] == 1.0
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert 0 < factors[-1] < 0.001
    assert warmup_cosine(0, 1, 0.05) == 1.0
