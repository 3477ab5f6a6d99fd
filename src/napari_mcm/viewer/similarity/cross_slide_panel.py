"""The box that searches all slides for similar patches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QSpinBox,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_mcm.core.project import ENDING
from napari_mcm.viewer.project.controller import project_of
from napari_mcm.viewer.qt.command_panel import CommandMenu
from napari_mcm.viewer.qt.helpers import (
    connect,
    connect_deferred,
    narrow,
    note,
    set_enabled_with_reason,
    set_shown,
)
from napari_mcm.viewer.qt.path_field import ask_folder
from napari_mcm.viewer.qt.thumbnail_grid import ThumbnailGrid
from napari_mcm.viewer.similarity.commands import cross_slide_commands

if TYPE_CHECKING:
    from napari_mcm.core.search import SlideMatch
    from napari_mcm.viewer.similarity.context import SimilarityContext

_SEARCH = (
    "Search the slides with features of the same encoder: those of the project, or those "
    "whose features are in the folder of this slide's (Alt+I)"
)
_ROWS = 6
"""Rows of the table that are in sight."""

_MOST_ROWS = 500
"""Slides in the table; more would take the window time, and the command writes all."""

_COLUMNS = {
    "Slide": "Double click or Enter opens the slide with the map",
    "Best": "Cosine of the most similar patch",
    "Mean": "Mean cosine of the 16 most similar patches, by which slides are ranked",
    "mm²": "Area above the threshold",
}


class CrossSlidePanel(QWidget):
    """The part that runs the query on all slides, and opens what is found.

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
        self.search = QPushButton("Search all sl&ides")
        self.search.clicked.connect(self._search)
        self.browse = QPushButton("Folder…")
        self.browse.setToolTip("Search the feature files of a folder")
        self.browse.clicked.connect(self._browse)
        self.command = CommandMenu(
            "All slides",
            lambda: cross_slide_commands(context),
            session.report_error,
            saves=False,
        )
        self.hint = note("Finds patches on slides with features of the same encoder.")
        self.where = self._make_where()
        self.per_slide = self._make_per_slide()
        self.gallery = ThumbnailGrid("Most similar patches of all slides", True)
        self.gallery.setToolTip("Click or Enter opens the slide there")
        self.gallery.chosen.connect(self._controller.open_top)
        self.table = self._make_table()
        self._lay_out()
        self._connect()
        self.show_found()
        self.refresh()

    def _make_where(self) -> QComboBox:
        where = narrow(QComboBox())
        where.setAccessibleName("Slides that are searched")
        where.setToolTip("Slides that are searched")
        return where

    def _make_per_slide(self) -> QSpinBox:
        count = QSpinBox()
        count.setRange(0, 60)
        count.setSpecialValueText("all")
        count.setAccessibleName("Patches listed per slide, at most")
        count.setToolTip("Number of patches in the list per slide, at most")
        return count

    def _make_table(self) -> QTableWidget:
        table = QTableWidget(0, len(_COLUMNS))
        table.setHorizontalHeaderLabels(list(_COLUMNS))
        for column, tip in enumerate(_COLUMNS.values()):
            if (header := table.horizontalHeaderItem(column)) is not None:
                header.setToolTip(tip)
        table.setAccessibleName("Slides found by the query")
        table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        table.setTabKeyNavigation(False)
        table.setMinimumWidth(100)
        table.setToolTip(_COLUMNS["Slide"])
        _fit(table)
        table.itemActivated.connect(self._open)
        table.itemDoubleClicked.connect(self._open)
        return table

    def _connect(self) -> None:
        session, context = self._session, self._context
        connect(self._controller.changed, self.show_found)
        connect_deferred(self.show_thumbnails, self._controller.thumbnails_changed)
        connect_deferred(self.refresh, context.query_changed, session.slide_changed)
        connect_deferred(self.refresh, project_of(session).changed)
        connect(session.jobs.status.events.state, self.refresh)

    def _lay_out(self) -> None:
        row = QHBoxLayout()
        row.addWidget(self.search, 1)
        row.addWidget(self.browse)
        row.addWidget(self.command)
        options = QHBoxLayout()
        options.addWidget(self.where, 1)
        self._per_slide_label = QLabel("per slide")
        self._per_slide_label.setBuddy(self.per_slide)
        options.addWidget(self._per_slide_label)
        options.addWidget(self.per_slide)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        column.addLayout(row)
        column.addLayout(options)
        column.addWidget(self.command.feedback)
        column.addWidget(self.hint)
        column.addWidget(self.gallery)
        column.addWidget(self.table)

    def summary(self) -> str:
        """Return what was found in one line."""
        matches = self._controller.matches
        if not matches:
            return "All slides"
        best = max(matches, key=lambda match: match.best)
        return (
            f"All slides: {len(matches):,} found, best {best.best:.2f} on {best.name}"
        )

    def refresh(self) -> None:
        """Enable the buttons that can be used, and offer what can be searched."""
        session = self._session
        reason = "another job is running" if session.jobs.status.busy else ""
        set_enabled_with_reason(self.search, _SEARCH, reason)
        set_enabled_with_reason(
            self.browse, "Search the feature files of a folder", reason
        )
        self._offer_sources()

    def _offer_sources(self) -> None:
        """Offer the project, then the folder of the features; keep what was chosen."""
        sources = {}
        if (project := self._controller.project()) is not None:
            sources[project] = f"Project {project.name.removesuffix(ENDING)}"
        if (folder := self._controller.folder()) is not None:
            sources[folder] = f"Folder {folder.name}"
        known = [self.where.itemData(i) for i in range(self.where.count())]
        if known != list(map(str, sources)):
            chosen = self.where.currentData()
            self.where.clear()
            for path, text in sources.items():
                self.where.addItem(text, str(path))
            self.where.setCurrentIndex(max(self.where.findData(chosen), 0))
        self.where.setToolTip(f"Searched: {self.where.currentData() or ''}")

    def show_found(self) -> None:
        """Show the patches and the slides that were found."""
        matches = self._controller.matches[:_MOST_ROWS]
        lines = self._controller.report.splitlines()
        if lines:
            more = len(self._controller.matches) > _MOST_ROWS
            notes = [lines[0]]
            notes += [f"{len(lines) - 1:,} not searched"] * (len(lines) > 1)
            notes += [f"the table has the best {_MOST_ROWS}"] * more
            self.hint.setText("; ".join(notes))
            self.hint.setToolTip("\n".join(lines[1:25]))
        self.show_thumbnails()
        self._fit_height(len(matches))
        self.table.setVisible(bool(matches))
        self.table.setRowCount(len(matches))
        for row, match in enumerate(matches):
            for column, text in enumerate(_cells(match)):
                item = QTableWidgetItem(text)
                item.setToolTip(
                    f"{match.name}: {match.patches:,} patches, {match.features}"
                )
                if column:
                    item.setTextAlignment(
                        Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
                    )
                self.table.setItem(row, column, item)

    def _fit_height(self, rows: int) -> None:
        """Make the table as high as its rows, up to a number of them."""
        header, row = self.table.horizontalHeader(), self.table.verticalHeader()
        if header is not None and row is not None:
            shown = min(rows, _ROWS) * row.defaultSectionSize()
            self.table.setFixedHeight(shown + header.sizeHint().height() + 4)

    def show_thumbnails(self) -> None:
        """Show the patches as far as their thumbnails have been read."""
        self.gallery.show_patches(self._controller.tops)
        set_shown(self.gallery, bool(self._controller.tops))

    def _search(self) -> None:
        source = self.where.currentData() or self._controller.folder()
        if source is None:
            self._session.report_error("There is no map yet: click on the slide")
        else:
            self._search_in(Path(source))

    def _browse(self) -> None:
        folder = ask_folder(self, "A folder of feature files")
        if folder:
            self._search_in(Path(folder))

    def _search_in(self, source: Path) -> None:
        per_slide = self.per_slide.value() or None
        self._controller.search(source, self._context.areas.threshold, per_slide)

    def _open(self, item: QTableWidgetItem) -> None:
        self._controller.open(self._controller.matches[item.row()])


def _cells(match: SlideMatch) -> tuple[str, ...]:
    """Return the texts of a slide's row."""
    area = f"{'≥ ' if match.is_lower_bound else ''}{match.area_mm2:.3f}"
    return match.name, f"{match.best:.3f}", f"{match.mean:.3f}", area


def _fit(table: QTableWidget) -> None:
    header, rows = table.horizontalHeader(), table.verticalHeader()
    if header is not None and rows is not None:
        modes = QHeaderView.ResizeMode
        header.setSectionResizeMode(modes.ResizeToContents)
        header.setSectionResizeMode(0, modes.Stretch)
        rows.setVisible(False)
