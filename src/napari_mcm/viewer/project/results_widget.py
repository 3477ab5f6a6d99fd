"""The dock widget *Results table*."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QSortFilterProxyModel, Qt
from qtpy.QtGui import QKeySequence, QShortcut  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from napari_mcm.core.project import ResultRow, as_tsv
from napari_mcm.core.project.results import COLUMNS
from napari_mcm.viewer.project.results import ResultsTable, results_of
from napari_mcm.viewer.project.unsaved import unsaved_of
from napari_mcm.viewer.qt.dock import DockedWidget
from napari_mcm.viewer.qt.helpers import (
    connect,
    note,
    set_enabled_with_reason,
    while_alive,
)
from napari_mcm.viewer.qt.path_field import ask_save

if TYPE_CHECKING:
    import napari

    from napari_mcm.viewer.app.session import Session

_SORT = Qt.ItemDataRole.UserRole
_FORMATS = {
    "threshold": "{:.3f}",
    "area_mm2": "{:,.3f}",
    "tissue_percent": "{:.1f}",
    "patches": "{:,}",
}
"""How numbers are shown; CSV and clipboard have more digits."""

_SHORT = {"tissue_percent": "%"}
"""Titles that are shorter than those in files, so that the numbers are in sight."""
_NAME_PX = 96
"""Width of the slides' names, at most; a tooltip has all of it."""

_MOST_FITTED = 500
"""Columns are fitted to so many rows at most: measuring more would be slow."""

_HINT = (
    "No rows yet. Click on the slide, set the threshold, then press Add to table in the "
    "Similarity widget, or A on the slide."
)


class ResultsWidget(DockedWidget):
    """Shows the measured areas, and gives them to spreadsheets.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer that the widget is docked in.
    """

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self.results = ResultsPanel(self.session)
        # The table scrolls itself, and takes all the height there is.
        self._lay_out(self.results)


class ResultsPanel(QWidget):
    """The results table, with its buttons.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._results, self._unsaved = results_of(session), unsaved_of(session)
        self._rows = _Rows(self._results)
        self._sorted = QSortFilterProxyModel(self)
        self._sorted.setSourceModel(self._rows)
        self._sorted.setSortRole(_SORT)
        self.hint = note(_HINT)
        self.offer = note()
        self.bring_back = QPushButton("&Bring back")
        self.bring_back.setToolTip("Add these rows, and their slides, to those of now")
        self.bring_back.clicked.connect(self._unsaved.bring_back)
        self.table = QTableView()
        self.copy = QPushButton("Cop&y")
        self.export = QPushButton("&Save CSV…")
        self.delete = QPushButton("&Delete rows")
        self._set_up_table()
        self._lay_out()
        connect(self._results.changed, self.refresh)
        connect(self._results.added, self._show_newest)
        connect(self._unsaved.changed, self._show_offer)
        self.refresh()
        self._show_offer()
        self._unsaved.look()

    def _set_up_table(self) -> None:
        table = self.table
        table.setModel(self._sorted)
        table.setAccessibleName("Results table")
        table.setSortingEnabled(True)
        table.sortByColumn(-1, Qt.SortOrder.AscendingOrder)
        table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        table.setTabKeyNavigation(False)
        table.setMinimumSize(100, 180)
        if (header := table.horizontalHeader()) is not None:
            header.setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
            header.setDefaultSectionSize(84)
        if (numbers := table.verticalHeader()) is not None:
            numbers.hide()
        self.copy.clicked.connect(self._copy)
        self.export.clicked.connect(self._export)
        self.delete.clicked.connect(self._delete)
        keys = QKeySequence.StandardKey
        for key, call in ((keys.Copy, self._copy), (keys.Delete, self._delete)):
            shortcut = QShortcut(QKeySequence(key), table)
            shortcut.setContext(Qt.ShortcutContext.WidgetShortcut)
            shortcut.activated.connect(call)

    def _lay_out(self) -> None:
        buttons = QHBoxLayout()
        for button in (self.copy, self.export, self.delete):
            buttons.addWidget(button)
        earlier = QHBoxLayout()
        earlier.addWidget(self.offer, 1)
        earlier.addWidget(self.bring_back)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.hint)
        column.addLayout(earlier)
        column.addWidget(self.table, 1)
        column.addLayout(buttons)

    def refresh(self) -> None:
        """Show the rows, and enable the buttons that can be used."""
        self._rows.read()
        if len(self._results.rows) <= _MOST_FITTED:
            self.table.resizeColumnsToContents()
            self.table.setColumnWidth(0, min(self.table.columnWidth(0), _NAME_PX))
        none = "" if self._results.rows else "the table is empty"
        self.hint.setVisible(bool(none))
        set_enabled_with_reason(
            self.copy, "Copy the selected rows, or all, for a spreadsheet", none
        )
        set_enabled_with_reason(
            self.export, "Write the selected rows, or all, to a CSV file", none
        )
        set_enabled_with_reason(
            self.delete, "Delete the selected rows (key Del in the table)", none
        )

    def _show_offer(self) -> None:
        offer = self._unsaved.offer
        self.offer.setText(offer)
        self.offer.setVisible(bool(offer))
        self.bring_back.setVisible(bool(offer))

    def chosen(self) -> list[int]:
        """Return the positions of the selected rows, or of all, as they are sorted."""
        return self._selected() or [
            self._sorted.mapToSource(self._sorted.index(row, 0)).row()
            for row in range(self._sorted.rowCount())
        ]

    def _selected(self) -> list[int]:
        selection = self.table.selectionModel()
        chosen = selection.selectedIndexes() if selection is not None else []
        shown = sorted({one.row() for one in chosen})
        places = [self._sorted.index(row, 0) for row in shown]
        return [self._sorted.mapToSource(place).row() for place in places]

    def _chosen_rows(self) -> list[ResultRow]:
        return [self._results.rows[number] for number in self.chosen()]

    def _show_newest(self) -> None:
        newest = self._rows.index(self._rows.rowCount() - 1, 0)
        place = self._sorted.mapFromSource(newest)
        self.table.scrollTo(place)

    def _copy(self) -> None:
        if (clipboard := QApplication.clipboard()) is not None and self._results.rows:
            clipboard.setText(as_tsv(self._chosen_rows()))

    def _export(self) -> None:
        path = ask_save(self, "Save the results table", "results.csv", "CSV (*.csv)")
        if path:
            if not path.lower().endswith(".csv"):
                path += ".csv"
            rows = self._chosen_rows()
            self._results.export(Path(path), rows, while_alive(self._exported))

    def _exported(self, path: Path) -> None:
        self.hint.setText(f"Written to {path}")
        self.hint.setVisible(True)

    def _delete(self) -> None:
        self._results.remove(self._selected())


class _Rows(QAbstractTableModel):
    """The rows of the results table, as Qt's views read them."""

    def __init__(self, results: ResultsTable) -> None:
        super().__init__()
        self._results = results
        self._shown: tuple[ResultRow, ...] = ()

    def read(self) -> None:
        """Take the rows of the table."""
        self.beginResetModel()
        self._shown = self._results.rows
        self.endResetModel()

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """Return the number of rows."""
        return 0 if parent is not None and parent.isValid() else len(self._shown)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        """Return the number of columns."""
        return 0 if parent is not None and parent.isValid() else len(COLUMNS)

    def headerData(
        self,
        section: int,
        orientation: Qt.Orientation,
        role: int = Qt.ItemDataRole.DisplayRole,
    ) -> Any:
        """Return the title of a column, or what it says."""
        if orientation != Qt.Orientation.Horizontal:
            return None
        name = list(COLUMNS)[section]
        if role == Qt.ItemDataRole.DisplayRole:
            return _SHORT.get(name, COLUMNS[name][0])
        if role == Qt.ItemDataRole.ToolTipRole:
            return ResultRow.model_fields[name].description
        return None

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return the text of a cell, what it is sorted by, or its alignment."""
        name = list(COLUMNS)[index.column()]
        value = COLUMNS[name][1](self._shown[index.row()])
        is_number = name in _FORMATS
        if role == _SORT:
            if is_number:
                return -1.0 if value is None else float(value)
            return str(value).casefold()
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.ToolTipRole):
            if value is None:
                return ""
            return _FORMATS[name].format(value) if is_number else str(value)
        if role == Qt.ItemDataRole.TextAlignmentRole and is_number:
            right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
            # PySide6 takes the number, both bindings understand it.
            return int(getattr(right, "value", right))
        return None
