"""One writer a feature file: leases are taken, kept, lost and taken over."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features import write_lock as leases
from napari_mcm.core.features.lock_owner import LockOwner, read_lock_file
from napari_mcm.core.features.write_lock import (
    WriteLock,
    WriteLockHeldError,
    hold,
    write_lock_path,
)

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "slide.features.zarr"


def leave(path, age=0.0, **changes):
    """Leave a lease of another machine behind."""
    other = LockOwner.this_process(1.0)
    other = dataclasses.replace(other, **{"place": "far/1", "host": "far", **changes})
    file = write_lock_path(path)
    file.write_bytes(other.dump())
    then = time.time() - age
    os.utime(file, (then, then))
    return other


def test_one_holds_it_and_gives_it_back(path):
    with WriteLock.take(path) as write_lock:
        write_lock.check()
        with pytest.raises(
            WriteLockHeldError, match=f"written by process {os.getpid()} on"
        ):
            WriteLock.take(path)
    assert not list(path.parent.iterdir())
    with WriteLock.take(path):
        pass


def test_who_waits_gets_it_as_soon_as_it_is_free(path):
    first, released = WriteLock.take(path), threading.Event()

    def release():
        released.set()
        first.release()

    threading.Timer(0.3, release).start()
    with WriteLock.take(path, patience=60):
        assert released.is_set()


def test_a_fresh_lease_of_another_machine_is_left_alone(path):
    leave(path, age=0.5)
    with pytest.raises(WriteLockHeldError, match="on far since"):
        WriteLock.take(path, stale=1)


def test_a_silent_lease_of_another_machine_is_taken_over(path):
    dead = leave(path, age=1.5)
    with WriteLock.take(path, stale=1) as write_lock:
        write_lock.check()
        assert read_lock_file(write_lock_path(path)).owner.token != dead.token
    assert not list(path.parent.iterdir())


def test_a_holder_that_asked_for_more_time_gets_it(path):
    leave(path, age=30, stale=60.0)
    with pytest.raises(WriteLockHeldError):
        WriteLock.take(path, stale=1)


@on_linux
def test_a_running_process_of_this_machine_keeps_its_lease(path):
    holder = leave(path, age=1000, place=LockOwner.this_process(1).place)
    assert holder.state == "running"
    with pytest.raises(WriteLockHeldError):
        WriteLock.take(path, stale=1)


@on_linux
def test_a_number_that_is_used_again_is_another_process(path):
    leave(path, place=LockOwner.this_process(1).place, born="1")
    with WriteLock.take(path):
        pass


def test_clocks_of_machines_may_differ(path, monkeypatch):
    leave(path, age=0)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 7200)
    with pytest.raises(WriteLockHeldError):
        WriteLock.take(path, stale=1)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1]",
        b"\xff" * 9000,
        json.dumps(
            {**dataclasses.asdict(LockOwner("../../x")), "token": "../x"}
        ).encode(),
        b"[" * 4000,
    ],
)
def test_a_lease_that_cannot_be_read_counts_by_its_time(path, content):
    file = write_lock_path(path)
    file.write_bytes(content)
    with pytest.raises(WriteLockHeldError):
        WriteLock.take(path, stale=1)
    os.utime(file, (time.time() - 2, time.time() - 2))
    with WriteLock.take(path, stale=1) as write_lock:
        write_lock.check()
    assert not list(path.parent.iterdir())


def test_signs_of_life_are_given(path):
    with WriteLock.take(path, stale=0.6):
        file = write_lock_path(path)
        os.utime(file, (1, 1))
        deadline = time.monotonic() + 10
        while file.stat().st_mtime < time.time() - 1:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert not [
        t for t in threading.enumerate() if t.name == "lease" and t.is_alive()
    ] or (time.sleep(0.2) is None)


def test_who_lost_it_is_told_and_leaves_it_to_the_other(path):
    write_lock = WriteLock.take(path)
    other = leave(path)
    with pytest.raises(FeatureError, match="taken over by process .* on far") as error:
        write_lock.check()
    assert "\n" not in str(error.value)
    write_lock.release()
    assert read_lock_file(write_lock_path(path)).owner == other
    write_lock_path(path).unlink()


def test_a_lease_that_was_removed_by_hand_is_lost(path):
    with WriteLock.take(path) as write_lock:
        write_lock_path(path).unlink()
        with pytest.raises(FeatureError, match="taken over"):
            write_lock.check()
    assert not list(path.parent.iterdir())


def test_after_a_long_silence_it_is_renewed_unless_it_is_being_taken(path, monkeypatch):
    write_lock = WriteLock.take(path, stale=30)
    write_lock._renewed -= 100
    write_lock.check()
    assert not write_lock._late
    write_lock._renewed -= 100
    claim = write_lock._beside(write_lock._me.token)
    claim.write_bytes(LockOwner("f" * 16, place="far", stale=60.0).dump())
    with pytest.raises(FeatureError, match="taken over"):
        write_lock.check()
    claim.unlink()
    write_lock.release()


def test_several_are_held_all_or_none(tmp_path):
    paths = [tmp_path / name for name in "cab"]
    with hold(paths) as held:
        assert [write_lock.path for write_lock in held] == paths
    with WriteLock.take(paths[0]):
        with pytest.raises(WriteLockHeldError, match=str(paths[0])), hold(paths):
            pass
        assert [f.name for f in tmp_path.iterdir()] == [".c.lease"]


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_to_is_one_line(path, monkeypatch, number):
    def refuse(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(FeatureError, match=os.strerror(number)) as error:
        WriteLock.take(path)
    assert not isinstance(error.value, WriteLockHeldError)
    assert "--out" in str(error.value) and "\n" not in str(error.value)


@pytest.fixture(params=["links", "no links"])
def linking(request, monkeypatch):
    def no_links(*args):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    if request.param == "no links":
        monkeypatch.setattr(leases.os, "link", no_links)


def test_file_systems_without_hard_links_do(path, linking):
    for age in (None, 1.5):
        if age:
            leave(path, age=age)
        with WriteLock.take(path, stale=1) as write_lock:
            write_lock.check()
            with pytest.raises(WriteLockHeldError):
                WriteLock.take(path)
    assert not list(path.parent.iterdir())


def test_an_answer_that_the_network_lost_is_no_refusal(path, monkeypatch):
    link = os.link

    def link_and_fail(*args):
        link(*args)
        raise FileExistsError(errno.EEXIST, "File exists")

    monkeypatch.setattr(leases.os, "link", link_and_fail)
    with WriteLock.take(path) as write_lock:
        write_lock.check()


def test_of_many_takers_of_a_dead_lease_one_wins(path, linking):
    for _ in range(15):
        leave(path, age=1.5)
        won, start = [], threading.Barrier(8)

        def take(won=won, start=start):
            start.wait()
            time.sleep(random.random() * 0.01)
            with contextlib.suppress(WriteLockHeldError):
                won.append(WriteLock.take(path, stale=1))

        takers = [threading.Thread(target=take) for _ in range(8)]
        for taker in takers:
            taker.start()
        for taker in takers:
            taker.join()
        assert len(won) == 1
        won[0].check()
        won[0].release()
        assert not list(path.parent.iterdir())


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", range(12))
def test_a_taker_that_dies_half_way_is_taken_over_too(path, monkeypatch, step):
    """Nothing more reaches the disk after the n-th change that a taker makes."""
    leave(path, age=100)
    changes = []

    def dying(real):
        def change(*args, **kwargs):
            changes.append(real)
            if len(changes) > step:
                raise Killed
            return real(*args, **kwargs)

        return change

    with monkeypatch.context() as patch:
        patch.setattr(leases.os, "link", dying(os.link))
        for name in ("write_bytes", "replace", "unlink"):
            patch.setattr(Path, name, dying(getattr(Path, name)))
        with contextlib.suppress(Killed):
            WriteLock.take(path, stale=1)._lost = True  # no more signs of life
    # Whatever it left is as of another machine, and long ago.
    for file in path.parent.iterdir():
        content = json.loads(file.read_bytes())
        file.write_text(json.dumps({**content, "place": "far/1"}))
        os.utime(file, (1, 1))
    with WriteLock.take(path, stale=1) as write_lock:
        write_lock.check()
    left = [file.name for file in path.parent.iterdir()]
    assert not left, left


# Processes ------------------------------------------------------------------

_HOLD = """
import sys, time
from pathlib import Path
from napari_mcm.core.features.write_lock import WriteLock
from napari_mcm.core.errors import FeatureError
with WriteLock.take(Path(sys.argv[1]), stale=float(sys.argv[2])) as lease:
    print("held", flush=True)
    for line in sys.stdin:
        try:
            lease.check()
            print("fine", flush=True)
        except FeatureError as error:
            print(error, flush=True)
"""


@contextlib.contextmanager
def holding(path, stale=60.0):
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path), str(stale)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            assert child.stdout.readline() == "held\n"
            yield child
        finally:
            child.kill()


@on_linux
def test_a_killed_process_is_taken_over_at_once(path):
    with holding(path) as child:
        with pytest.raises(WriteLockHeldError, match=f"process {child.pid}"):
            WriteLock.take(path)
        child.kill()
        # Not waited for: it is a zombie meanwhile. Patience ends before the lease would
        # be stale, so that only the process's death can have freed it.
        with WriteLock.take(path, patience=30) as write_lock:
            write_lock.check()


_HALF_DEAD = """
import ctypes, platform, sys, threading, time
from pathlib import Path
from napari_mcm.core.features.write_lock import WriteLock
WriteLock.take(Path(sys.argv[1]))
threading.Thread(target=time.sleep, args=(60,)).start()
print("held", flush=True)
# The first thread alone ends; whoever looks sees a zombie.
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)
"""


@on_linux
def test_a_process_is_not_gone_while_one_of_its_threads_may_still_write(path):
    with subprocess.Popen(
        [sys.executable, "-c", _HALF_DEAD, str(path)],
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            assert child.stdout.readline() == "held\n"
            stat = Path(f"/proc/{child.pid}/stat")
            deadline = time.monotonic() + 20
            while stat.read_text().rpartition(")")[2].split()[0] != "Z":
                assert time.monotonic() < deadline
                time.sleep(0.01)
            with pytest.raises(WriteLockHeldError, match=f"process {child.pid}"):
                WriteLock.take(path)
        finally:
            child.kill()
        with WriteLock.take(path, patience=30) as write_lock:
            write_lock.check()


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs SIGSTOP")
def test_a_suspended_process_loses_it_and_is_told_when_it_awakes(path):
    with holding(path, stale=1) as child:
        child.send_signal(signal.SIGSTOP)
        with pytest.raises(WriteLockHeldError):
            WriteLock.take(path, stale=1)
        with WriteLock.take(path, patience=20, stale=1) as write_lock:
            child.send_signal(signal.SIGCONT)
            print("?", file=child.stdin, flush=True)
            assert "taken over" in child.stdout.readline()
            write_lock.check()
