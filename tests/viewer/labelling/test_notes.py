"""One note at a time, which the next action ends; names that are typed at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QFileDialog, QLineEdit, QMessageBox

from napari_mcm.viewer.similarity.context import context_of
from tests.viewer.conftest import wait_until
from tests.viewer.labelling.conftest import Labeller, is_left

LEFT = Qt.MouseButton.LeftButton


def mapped(user: Labeller) -> None:
    left = is_left(user.grid)
    user.label(int(np.flatnonzero(left)[0]), "1")
    user.label(int(np.flatnonzero(~left)[0]), "2")
    user.settle()


def test_a_note_ends_with_the_next_action_also_of_another_kind(user: Labeller) -> None:
    queries = context_of(user.session).queries
    user.label(3, "1")
    assert user.context.labels.note == "1 patch labelled left"
    user.session.order.undo()
    assert user.context.labels.note == ""
    user.widget.classes._delete("right")
    assert user.context.labels.note == "right deleted: Undo brings it back"
    queries.point(*map(float, user.grid.centres[5]))
    wait_until(lambda: len(queries.examples) == 1)
    assert user.context.labels.note == ""
    user.label(3, "1")
    user.session.order.undo()
    user.session.order.redo()
    assert user.context.labels.note == ""


def test_an_error_and_a_note_are_not_shown_together(
    user: Labeller, tmp_path: Path
) -> None:
    mapped(user)
    results = user.widget.results.results
    results.export(tmp_path / "x.unknown")
    user.session.disk.wait()
    wait_until(lambda: user.widget.problem.text())
    assert user.context.labels.note == ""
    results.export(tmp_path / "x.csv")
    user.session.disk.wait()
    wait_until(lambda: user.context.labels.note.startswith("Written to"))
    assert user.widget.problem.text() == ""
    user.session.report_error("Something else")
    assert user.context.labels.note == ""


def test_what_was_copied_is_said_until_the_next_action(
    user: Labeller, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mapped(user)
    panel = user.widget.results
    monkeypatch.setattr(panel, "_folder", lambda: tmp_path)
    panel._copy()
    user.session.disk.wait()
    wait_until(lambda: user.context.labels.note.startswith("Copied"))
    user.session.order.undo()
    assert user.context.labels.note == ""
    assert not panel.total.isVisible()


@pytest.mark.parametrize(
    ("typed", "written"), [("C2.geojson", "C2.geojson"), ("C2", "")]
)
def test_the_entry_of_the_menu_sets_the_format_and_a_missing_ending(
    user: Labeller,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    typed: str,
    written: str,
) -> None:
    mapped(user)
    chosen = str(tmp_path / typed)
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (chosen, ""))
    menu = user.widget.results.export.menu()
    (entry,) = (one for one in menu.actions() if one.text().startswith("Regions"))
    entry.trigger()
    user.session.disk.wait()
    path = tmp_path / (written or "C2.geojson")
    wait_until(path.exists)
    kinds = {
        one["properties"]["objectType"]
        for one in json.loads(path.read_text())["features"]
    }
    assert kinds == {"annotation"}


def test_a_file_with_the_added_ending_is_replaced_only_after_a_question(
    user: Labeller, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mapped(user)
    (tmp_path / "C2.csv").write_text("mine")
    chosen = str(tmp_path / "C2")
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (chosen, ""))
    no = QMessageBox.StandardButton.No
    monkeypatch.setattr(QMessageBox, "question", lambda *_: no)
    user.widget.results._export_areas()
    user.session.disk.wait()
    assert (tmp_path / "C2.csv").read_text() == "mine"


def editor_of(user: Labeller) -> Any:
    tree = user.widget.classes.list
    found = tree.findChildren(QLineEdit)
    return next((one for one in found if one.isVisibleTo(tree)), None)


def test_a_new_class_is_named_at_once_and_return_stays_in_the_list(
    user: Labeller,
) -> None:
    queries = context_of(user.session).queries
    QTest.mouseClick(user.widget.classes.add, LEFT)
    for _ in range(3):
        QTest.qWait(30)
    editor = editor_of(user)
    assert editor.selectedText() == editor.text() == "class 3"
    QTest.keyClicks(editor, "fat")
    QTest.keyClick(editor, Qt.Key.Key_Return)
    wait_until(lambda: user.labels.names[-1] == "fat")
    wait_until(lambda: editor_of(user) is None)
    # Pressed once more, the window would give it to the canvas, which starts a query.
    QTest.keyClick(user.widget.classes.list, Qt.Key.Key_Return)
    QApplication.processEvents()
    QTest.qWait(50)
    assert len(queries.examples) == 0


def test_unsure_tissue_has_the_grey_of_the_list(user: Labeller) -> None:
    mapped(user)
    (rgba,) = user.map.colormap.map(np.asarray([2.5 / 3]))
    assert np.allclose(rgba, (0x8C / 255,) * 3 + (1,), atol=1 / 255)


def test_a_narrow_dock_cuts_the_name_of_the_encoder_and_not_the_limit(
    user: Labeller,
) -> None:
    line = user.widget.section.line
    wait_until(lambda: "two kinds" in line.full_text)
    metrics, room = line.fontMetrics(), line.iconSize().width() + 12
    wanted = "patch · unsure below 0.60 · t…"
    line.resize(metrics.horizontalAdvance(wanted) + room, line.height())
    # Qt sends a hidden widget no event of its new size.
    line._elide()
    assert "unsure below 0.60" in line.text()
    assert line.text() != line.full_text
