"""What was used before is offered everywhere, and dialogs begin where the last ended."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from pytestqt.qtbot import QtBot
from qtpy.QtWidgets import QFileDialog

from napari_mcm.core.errors import McmError
from napari_mcm.viewer.app import persistence
from napari_mcm.viewer.app.persistence import (
    FEATURES,
    RUNS,
    known_mpp,
    last_folder,
    recent,
    remember_folder,
    remember_mil_folders,
    remember_mpp,
    remember_recent,
    remembered_mil_folders,
)
from napari_mcm.viewer.finetune.controller import FinetuneController
from napari_mcm.viewer.similarity.widget import SimilarityWidget
from tests.viewer.conftest import finish, wait_until, write_slide


def make_run(path: Path, finished: bool = True) -> Path:
    path.mkdir(parents=True)
    if finished:
        (path / "summary.json").write_text("{}")
    remember_recent(RUNS, str(path))
    return path


def dock(viewer: Any, name: str) -> Any:
    _, docked = viewer.window.add_plugin_dock_widget("napari-mcm", name)
    return docked


def test_similarity_and_fine_tune_offer_what_was_used_before(
    viewer: Any, slide_path: Path, tmp_path: Path
) -> None:
    begun = make_run(tmp_path / "begun", finished=False)
    runs = [make_run(tmp_path / "older"), make_run(tmp_path / "newer")]
    file = tmp_path / "resnet18" / "slide.features.zarr"
    file.mkdir(parents=True)
    remember_recent(FEATURES, str(file))
    viewer.open(slide_path, plugin="napari-mcm")
    similarity, tuning = dock(viewer, "Similarity"), dock(viewer, "Fine-tune")
    slots = (similarity.first, similarity.second, similarity.third)
    chosen = [slot.encoder.spec for slot in slots]
    lists = [slot.encoder for slot in slots] + [
        tuning.form.student,
        tuning.form.teacher,
    ]
    wait_until(lambda: all(box.findText(str(runs[0])) >= 0 for box in lists))
    for box in lists:
        assert [box.itemText(i) for i in range(2)] == [str(runs[1]), str(runs[0])]
        assert box.findText(str(begun)) < 0
    assert [slot.encoder.spec for slot in slots] == chosen
    for slot in slots:
        assert slot.load.menu().actions()[-1].toolTip() == str(file)
    finish(similarity)


def test_a_new_encoder_is_offered_by_itself(
    viewer: Any, slide_path: Path, tmp_path: Path
) -> None:
    viewer.open(slide_path, plugin="napari-mcm")
    similarity, features = dock(viewer, "Similarity"), dock(viewer, "Features")
    run = make_run(tmp_path / "run")
    assert similarity.first.encoder.findText(str(run)) < 0
    FinetuneController(similarity.session)._trained(run)
    for box in (similarity.first.encoder, features.extract.encoder):
        wait_until(lambda box=box: box.findText(str(run)) >= 0)
    finish(similarity)


def test_what_similarity_made_is_remembered(
    widget: SimilarityWidget, qtbot: QtBot
) -> None:
    widget.options.patch_size.setValue(200)
    widget.first.encoder.setCurrentText("random:test_resnet")
    widget.first.start()
    slots = (widget.first, widget.second)
    qtbot.waitUntil(lambda: len(recent(FEATURES)) == 1, timeout=100_000)
    wait_until(lambda: all(len(slot.load.menu().actions()) == 4 for slot in slots))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What dialogs are to answer, and where they began."""
    seen: dict[str, Any] = {"answer": "", "began": []}

    def answer(_parent: Any, _title: str, start: str, *_: Any) -> tuple[str, str]:
        seen["began"].append(start)
        return seen["answer"], ""

    def answer_folder(_parent: Any, _title: str, start: str) -> str:
        return answer(None, "", start)[0]

    monkeypatch.setattr(QFileDialog, "getOpenFileName", answer)
    monkeypatch.setattr(QFileDialog, "getSaveFileName", answer)
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", answer_folder)
    return seen


def test_dialogs_begin_where_the_last_one_ended(
    viewer: Any, tmp_path: Path, asked: dict[str, Any]
) -> None:
    mkdir(tmp_path / "far")
    path = write_slide(tmp_path / "far" / "away.tif")
    widget = dock(viewer, "Similarity")
    widget.slide.open.click()
    # Broken off: nothing is kept.
    assert asked["began"] == [""] and last_folder() is None
    asked["answer"] = str(path)
    widget.slide.open.click()
    wait_until(lambda: widget.session.slide is not None)
    assert last_folder() == tmp_path / "far"
    asked["answer"] = ""
    press: list[Callable[[], Any]] = [
        widget.first.load._browse_file,
        widget.first.load._browse_folder,
        widget.options._browse,
        widget.slide._browse_folder,
    ]
    for one in press:
        one()
        assert asked["began"][-1] == str(tmp_path / "far"), one
    widget.first.command.save.trigger()
    assert asked["began"][-1] == str(tmp_path / "far" / "config.json")
    # What is remembered beside it is not lost, nor the other way round.
    make_run(tmp_path / "run")
    assert last_folder() == tmp_path / "far" and recent(RUNS) == (tmp_path / "run",)
    # A folder that is gone is no place to begin.
    (tmp_path / "far").rename(tmp_path / "gone")
    widget.slide.open.click()
    assert asked["began"][-1] == ""
    finish(widget)


def mkdir(path: Path) -> None:
    path.mkdir()


def test_napari_begins_where_a_slide_was_opened(viewer: Any, tmp_path: Path) -> None:
    from napari.utils.history import get_open_history

    mkdir(tmp_path / "slides")
    path = write_slide(tmp_path / "slides" / "a.tif")
    widget = dock(viewer, "Slide")
    widget.slide.take(str(path))
    wait_until(lambda: widget.session.slide is not None)
    assert get_open_history()[0] == str(tmp_path / "slides")
    finish(widget)


Write = Callable[[], None]


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        (
            lambda: remember_mpp("a", 0.25),
            lambda: remember_mpp("b", 0.5),
            lambda: (known_mpp("a"), known_mpp("b")) == (0.25, 0.5),
        ),
        (
            lambda: remember_mil_folders({"features": "f"}),
            lambda: remember_mil_folders({"slides": "s"}),
            lambda: remembered_mil_folders() == {"features": "f", "slides": "s"},
        ),
        (
            lambda: remember_recent(FEATURES, str(Path.cwd())),
            lambda: remember_folder(Path.cwd()),
            lambda: (recent(FEATURES), last_folder()) == ((Path.cwd(),), Path.cwd()),
        ),
    ],
    ids=["mpp", "mil", "recent"],
)
def test_two_writers_at_once_lose_nothing(
    first: Write,
    second: Write,
    kept: Callable[[], bool],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(persistence, "_mil_file", lambda: tmp_path / "mil.json")
    write = persistence.write_json
    others: list[threading.Thread] = []

    def write_while_another_begins(file: Path, content: Any) -> None:
        if not others:
            others.append(threading.Thread(target=second))
            others[0].start()
            # Without a lock, the other reads and writes before this one has written.
            others[0].join(0.3)
        write(file, content)

    monkeypatch.setattr(persistence, "write_json", write_while_another_begins)
    first()
    others[0].join()
    assert kept()


REMEMBER = """
import sys
from pathlib import Path

from napari_mcm.viewer.app import persistence

persistence._file = lambda: Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for number in range(60):
    persistence.remember_mpp(f"{sys.argv[2]}-{number}", 0.25)
"""


def test_two_programs_at_once_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "resolutions.json"
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", REMEMBER, str(file), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    # Both begin together, once both have imported everything.
    assert [program.stdout and program.stdout.readline() for program in programs] == [
        "ready\n",
        "ready\n",
    ]
    for program in programs:
        assert program.stdin is not None
        program.stdin.write("\n")
        program.stdin.flush()
    for program in programs:
        program.communicate(timeout=120)
        assert program.returncode == 0
    assert set(json.loads(file.read_text())) == {
        f"{name}-{number}" for name in ("one", "two") for number in range(60)
    }


def test_a_program_that_holds_the_settings_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "resolutions.json"
    monkeypatch.setattr(persistence, "_file", lambda: file)
    monkeypatch.setattr(persistence, "_LONGEST_S", 0.05)
    remember_mpp("a", 0.5)
    with (
        FileLock(file.with_name(".resolutions.json.lock")),
        pytest.raises(McmError, match=r"resolutions\.json: is being written"),
    ):
        remember_mpp("b", 0.25)
    remember_mpp("b", 0.25)
    assert (known_mpp("a"), known_mpp("b")) == (0.5, 0.25)
