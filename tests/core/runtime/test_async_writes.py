"""Files that are written while others go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from napari_mcm.core.errors import McmError
from napari_mcm.core.runtime import async_writes as writes
from napari_mcm.core.runtime.jobs import Job, Note, Progress, run


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Holds writers until it is set."""
    opened = threading.Event()
    yield opened
    opened.set()
    writes.wait_for_all_writes()


def slowly(file: Path, text: str, gate: threading.Event) -> Callable[[], None]:
    def write() -> None:
        gate.wait(20)
        file.write_text(text)

    return write


def fails() -> None:
    raise McmError("cannot be written (No space left on device)", Path("x"))


def test_nobody_waits_but_who_needs_the_file(
    tmp_path: Path, gate: threading.Event
) -> None:
    file, other = tmp_path / "a", tmp_path / "b"
    writes.begin(file, slowly(file, "one", gate))
    writes.wait_for_write(other)
    assert writes.is_under_way(file) and not file.exists()
    threading.Timer(0.2, gate.set).start()
    writes.wait_for_write(file)
    assert file.read_text() == "one" and not writes.has_pending_writes()


def test_the_last_that_was_begun_is_what_stays(
    tmp_path: Path, gate: threading.Event
) -> None:
    file = tmp_path / "a"
    writes.begin(file, slowly(file, "one", gate))
    writes.begin(file, lambda: (file.write_text("two"), None)[1])
    time.sleep(0.1)
    assert not file.exists()
    gate.set()
    writes.wait_for_write(file)
    assert file.read_text() == "two"


def test_a_program_that_ends_writes_without_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    file = tmp_path / "a"
    writes.begin(file, lambda: (file.write_text("one"), None)[1])
    assert file.read_text() == "one" and not writes.is_under_way(file)
    monkeypatch.undo()
    writes.wait_for_write(file)


def test_what_went_wrong_is_told_once(tmp_path: Path) -> None:
    writes.begin(tmp_path / "a", fails)
    while writes.is_under_way(tmp_path / "a"):
        time.sleep(0.01)
    assert writes.has_pending_writes()
    with pytest.raises(McmError, match="No space left"):
        writes.wait_for_write(tmp_path / "a")
    assert not writes.has_pending_writes()
    writes.wait_for_write(tmp_path / "a")


def leaving(file: Path, write: Callable[[], None]) -> Job[None]:
    """A job that is broken off, and begins to write as it goes."""
    try:
        yield Progress("Working", 0, None)
        raise KeyboardInterrupt
    finally:
        writes.begin(file, write)


def test_a_program_says_that_it_writes_and_waits(
    tmp_path: Path, gate: threading.Event
) -> None:
    file, heard = tmp_path / "a", []

    def hear(event: object) -> None:
        heard.append(event)
        if isinstance(event, Note):
            gate.set()

    with pytest.raises(KeyboardInterrupt):
        run(leaving(file, slowly(file, "one", gate)), hear)
    assert file.read_text() == "one"
    assert isinstance(heard[-1], Note) and "writing" in heard[-1].text


def test_a_program_says_that_what_it_leaves_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(McmError, match="No space left"):
        run(leaving(tmp_path / "a", fails))
