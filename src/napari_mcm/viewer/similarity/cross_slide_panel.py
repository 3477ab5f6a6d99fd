"""The box that searches other slides for similar patches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_mcm.viewer.qt.command_panel import CommandMenu
from napari_mcm.viewer.qt.helpers import (
    connect,
    connect_deferred,
    note,
    set_enabled_with_reason,
)
from napari_mcm.viewer.qt.path_field import ask_folder
from napari_mcm.viewer.similarity.commands import cross_slide_commands

if TYPE_CHECKING:
    from napari_mcm.viewer.similarity.context import SimilarityContext

_SEARCH = (
    "Search the slides whose features are in the same folder as this slide's, by the "
    "same encoder (Alt+I)"
)


class CrossSlidePanel(QWidget):
    """The part that runs the query on other slides, and opens them with their map.

    Parameters
    ----------
    context : SimilarityContext
        Query, maps and shortcuts of the viewer.
    """

    def __init__(self, context: SimilarityContext) -> None:
        session = context.session
        self._context = context
        super().__init__()
        self._session, self._controller = session, context.cross_slide
        self.search = QPushButton("Search other sl&ides")
        self.search.clicked.connect(self._search)
        self.browse = QPushButton("Folder…")
        self.browse.setToolTip("Search the feature files of a folder")
        self.browse.clicked.connect(self._browse)
        self.command = CommandMenu(
            "Other slides",
            lambda: cross_slide_commands(context),
            session.report_error,
            saves=False,
        )
        self.hint = note("Finds slides with features of the same encoder.")
        self.table = QTableWidget(0, 3)
        self.table.setHorizontalHeaderLabels(["Slide", "Best", "mm²"])
        self.table.setAccessibleName("Slides found by the query")
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setTabKeyNavigation(False)
        self.table.setMinimumSize(100, 110)
        self.table.setToolTip(
            "Mean cosine of the 16 most similar patches, and area above the threshold. "
            "Double click or Enter opens the slide with the map"
        )
        _fit(self.table)
        self.table.itemActivated.connect(self._open)
        self.table.itemDoubleClicked.connect(self._open)
        self._lay_out()
        connect(self._controller.changed, self.show_found)
        connect_deferred(self.refresh, context.query_changed, session.slide_changed)
        connect(session.jobs.status.events.state, self.refresh)
        self.show_found()
        self.refresh()

    def _lay_out(self) -> None:
        row = QHBoxLayout()
        row.addWidget(self.search, 1)
        row.addWidget(self.browse)
        row.addWidget(self.command)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(row)
        column.addWidget(self.command.feedback)
        column.addWidget(self.hint)
        column.addWidget(self.table)

    def summary(self) -> str:
        """Return what was found in one line."""
        found = len(self._controller.matches)
        return f"Other slides: {found:,} found" if found else "Other slides"

    def refresh(self) -> None:
        """Enable the buttons that can be used."""
        session = self._session
        reason = "another job is running" if session.jobs.status.busy else ""
        set_enabled_with_reason(self.search, _SEARCH, reason)
        set_enabled_with_reason(
            self.browse, "Search the feature files of a folder", reason
        )

    def show_found(self) -> None:
        """Show the slides that were found in the table."""
        matches = self._controller.matches
        self.table.setVisible(bool(matches))
        self.table.setRowCount(len(matches))
        for row, match in enumerate(matches):
            texts = (match.name, f"{match.mean:.3f}", f"{match.area_mm2:.3f}")
            for column, text in enumerate(texts):
                item = QTableWidgetItem(text)
                item.setToolTip(
                    f"{match.name}: {match.patches:,} patches, {match.features}"
                )
                if column:
                    item.setTextAlignment(
                        Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
                    )
                self.table.setItem(row, column, item)

    def _search(self) -> None:
        if (folder := self._controller.folder()) is not None:
            self._controller.search(folder, self._context.areas.threshold)

    def _browse(self) -> None:
        folder = ask_folder(self, "A folder of feature files")
        if folder:
            self._controller.search(Path(folder), self._context.areas.threshold)

    def _open(self, item: QTableWidgetItem) -> None:
        self._controller.open(self._controller.matches[item.row()])


def _fit(table: QTableWidget) -> None:
    header, rows = table.horizontalHeader(), table.verticalHeader()
    if header is not None and rows is not None:
        modes = QHeaderView.ResizeMode
        header.setSectionResizeMode(modes.ResizeToContents)
        header.setSectionResizeMode(0, modes.Stretch)
        rows.setVisible(False)
