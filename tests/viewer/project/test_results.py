"""The results table says what the Similarity dock says, and keeps it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QFileDialog

from napari_mcm.viewer.app.features import LoadedFeatures
from napari_mcm.viewer.project.results_widget import ResultsPanel
from napari_mcm.viewer.similarity.area import add_result
from napari_mcm.viewer.similarity.context import context_of
from napari_mcm.viewer.similarity.widget import SimilarityWidget
from tests.viewer.conftest import Click, finish, wait_until


@pytest.fixture
def panel(
    widget: SimilarityWidget, viewer: Any, loaded: LoadedFeatures
) -> Iterator[ResultsPanel]:
    """The table, beside a slide with features."""
    session = widget.session
    session.set_features(session.slide, "first", loaded)
    _, docked = viewer.window.add_plugin_dock_widget("napari-mcm", "Results table")
    yield docked.results
    finish(docked)


def cells(panel: ResultsPanel, row: int) -> list[str]:
    model = panel.table.model()
    return [str(model.index(row, c).data()) for c in range(model.columnCount())]


def column(panel: ResultsPanel, number: int) -> list[str]:
    return [cells(panel, row)[number] for row in range(panel.table.model().rowCount())]


def test_a_row_is_what_the_dock_says(
    panel: ResultsPanel, widget: SimilarityWidget, viewer: Any, click: Click
) -> None:
    context = context_of(widget.session)
    add_result(context)
    assert "no map yet" in widget.session.problem and not panel.table.model().rowCount()
    assert "No rows yet" in panel.hint.text() and not panel.copy.isEnabled()
    click((250, 300))
    context.areas.set_threshold(0.25)
    click((260, 320), modifiers=["Shift"])
    click((280, 280), modifiers=["Control"])
    context.areas.set_threshold(0.1)
    QApplication.processEvents()
    said = widget.area.area.text()
    call = viewer.keymap[next(k for k in viewer.keymap if str(k) == "A")]
    call(viewer)
    (row,) = panel._results.rows
    slot, heatmap = context.queries.shown_map() or ("", None)
    assert heatmap is not None
    # As anybody counts it: the patches with a value of at least the threshold.
    patches = int(np.sum(heatmap.values[np.isfinite(heatmap.values)] >= 0.1))
    side_um = 50 * heatmap.grid.mpp
    assert 0 < patches < len(heatmap.grid) and row.patches == patches
    assert row.area_mm2 == pytest.approx(patches * (side_um / 1000) ** 2)
    assert row.tissue_percent == pytest.approx(100 * patches / len(heatmap.grid))
    # And as the dock says it, at its precision.
    assert float(re.findall(r"[\d.]+", said)[0]) == pytest.approx(
        row.area_mm2, abs=0.0051
    )
    assert f"{patches:,}" in said
    assert cells(panel, 0) == [
        "slide",
        f"{row.area_mm2:,.3f}",
        f"{row.tissue_percent:.1f}",
        *("0.100", "2 similar, 1 dissimilar", "random 50", "patch", f"{patches:,}"),
    ]
    assert panel.hint.isHidden()


def test_rows_are_sorted_by_number_and_deleted(
    panel: ResultsPanel, widget: SimilarityWidget, click: Click
) -> None:
    context = context_of(widget.session)
    click((250, 300))
    for threshold in (0.5, -0.5, 0.0):
        context.areas.set_threshold(threshold)
        add_result(context)
    assert column(panel, 3) == ["0.500", "-0.500", "0.000"]
    panel.table.sortByColumn(3, Qt.SortOrder.AscendingOrder)
    assert column(panel, 3) == ["-0.500", "0.000", "0.500"]
    patches = [int(text) for text in column(panel, 7)]
    assert patches == sorted(patches, reverse=True) and patches[0] != patches[2]
    # What is selected as it is sorted is deleted, and no other row.
    panel.table.selectRow(1)
    panel.delete.click()
    assert column(panel, 3) == ["-0.500", "0.500"]
    assert [row.threshold for row in panel._results.rows] == [0.5, -0.5]
    panel.table.clearSelection()
    panel.delete.click()
    assert len(panel._results.rows) == 2


def test_copy_and_csv_hold_the_rows_as_sorted(
    panel: ResultsPanel,
    widget: SimilarityWidget,
    click: Click,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context = context_of(widget.session)
    click((250, 300))
    for threshold in (0.5, -0.5):
        context.areas.set_threshold(threshold)
        add_result(context)
    panel.table.sortByColumn(3, Qt.SortOrder.AscendingOrder)
    panel.copy.click()
    lines = QApplication.clipboard().text().splitlines()
    assert [line.split("\t")[3] for line in lines] == ["Threshold", "-0.5", "0.5"]
    panel.table.selectRow(1)
    panel.copy.click()
    assert len(QApplication.clipboard().text().splitlines()) == 2
    out = tmp_path / "areas"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(out), ""))
    panel.table.clearSelection()
    panel.export.click()
    csv = tmp_path / "areas.csv"
    wait_until(lambda: str(csv) in panel.hint.text())
    assert [line.split(",")[3] for line in csv.read_text().splitlines()] == [
        *("threshold", "-0.5", "0.5"),
    ]


def test_adding_says_which_row_and_the_same_one_is_not_added_twice(
    panel: ResultsPanel, widget: SimilarityWidget, viewer: Any, click: Click
) -> None:
    context, said = context_of(widget.session), widget.area.added
    click((250, 300))
    context.areas.set_threshold(0.25)
    QApplication.processEvents()
    assert said.isHidden()
    widget.area.add.click()
    assert said.text() == "Row 1 added to the results table" == viewer.status
    QApplication.processEvents()
    assert not said.isHidden()
    context.areas.set_threshold(0.3)
    QApplication.processEvents()
    assert said.isHidden()
    widget.area.add.click()
    assert "Row 2 added" in said.text() and len(panel._results.rows) == 2
    context.areas.set_threshold(0.25)
    widget.area.add.click()
    assert said.text() == "Nothing added: row 1 is the same" == viewer.status
    assert len(panel._results.rows) == 2
    # What was deleted may be added again.
    panel.table.selectRow(0)
    panel.delete.click()
    widget.area.add.click()
    assert "Row 2 added" in said.text() and len(panel._results.rows) == 2


def test_area_and_percent_are_in_sight_beside_a_long_name(
    panel: ResultsPanel, widget: SimilarityWidget, click: Click
) -> None:
    click((250, 300))
    add_result(context_of(widget.session))
    (row,) = panel._results.rows
    panel._results.replace([row.model_copy(update={"slide": "a long name " * 9})])
    model, table = panel.table.model(), panel.table
    title = Qt.ItemDataRole.DisplayRole
    titles = [model.headerData(at, Qt.Orientation.Horizontal, title) for at in range(4)]
    assert titles == ["Slide", "mm²", "%", "Threshold"]
    # A dock is 330 pixels wide, less its margins.
    assert sum(table.columnWidth(at) for at in range(4)) <= 300
    tip = model.headerData(2, Qt.Orientation.Horizontal, Qt.ItemDataRole.ToolTipRole)
    assert "patches on tissue" in tip
