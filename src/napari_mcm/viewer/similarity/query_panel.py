"""The query: what it consists of, and buttons to change, save and open it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtGui import QAction  # type: ignore[attr-defined]
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_mcm.core.heatmaps.similarity_index import MOST_NEAREST
from napari_mcm.viewer.qt.command_panel import CommandMenu
from napari_mcm.viewer.qt.helpers import (
    connect,
    connect_deferred,
    narrow,
    note,
    set_enabled_with_reason,
    set_shown,
    while_alive,
)
from napari_mcm.viewer.qt.path_field import ask_file, ask_save
from napari_mcm.viewer.similarity.commands import query_commands
from napari_mcm.viewer.similarity.context_slider import ContextSlider
from napari_mcm.viewer.similarity.query import load_query, save_query, suggested_path
from napari_mcm.viewer.similarity.query_text import describe_query
from napari_mcm.viewer.similarity.shortcuts import with_key

if TYPE_CHECKING:
    from napari_mcm.core.heatmaps.examples import Examples
    from napari_mcm.viewer.similarity.context import SimilarityContext

POOLS = {"Mean": "mean", "Nearest": "max"}
SYMBOLS = {"like": ("■", "similar"), "unlike": ("✕", "dissimilar")}
"""Kinds of examples to their symbol on the slide, and the word for it."""
_FILTER = "Query (*.query.json *.json)"
_START = "Click on the slide to find similar tissue."
_MORE = "Shift+click adds a similar example, Ctrl+click a dissimilar one."


class QueryPanel(QWidget):
    """Shows the query, and changes its examples.

    Parameters
    ----------
    context : SimilarityContext
        Query, maps and shortcuts of the viewer.

    Attributes
    ----------
    around : ContextSlider
        How much tissue around a patch counts.
    pool : QComboBox
        How several examples are combined.
    command : CommandMenu
        The menu with all that is rarely needed.
    save, open : QAction
        Entries of the menu, which save the query and open another one.
    """

    def __init__(self, context: SimilarityContext) -> None:
        session = context.session
        self._context = context
        super().__init__()
        self._session = session
        self.where = note()
        self.back = QPushButton("&Undo")
        self.back.clicked.connect(context.queries.undo)
        self.again = QPushButton("Redo")
        self.again.clicked.connect(context.queries.redo)
        self.clear = QPushButton("Cle&ar")
        self.clear.clicked.connect(context.queries.clear)
        self.region = QPushButton("Re&gion")
        self.region.clicked.connect(context.regions.begin)
        self.command = CommandMenu(
            "Query", lambda: query_commands(context), session.report_error
        )
        self.save, self.open = (
            QAction("Save query…", self),
            QAction("Open query…", self),
        )
        self.table = QAction("Table of patches", self)
        self.table.triggered.connect(context.scores.make)
        self.save.triggered.connect(self._save)
        self.open.triggered.connect(self._open)
        self._fill_menu()
        self.pool = narrow(QComboBox())
        for text, pool in POOLS.items():
            self.pool.addItem(text, pool)
        self.pool.setAccessibleName("Combine examples by")
        self.pool.setToolTip(
            "How several examples, or a region's patches, combine: their mean "
            "direction (Rocchio), or for each patch its nearest example, of at most "
            f"{MOST_NEAREST}"
        )
        self.pool.activated.connect(
            lambda _: context.queries.use_pool(self.pool.currentData())
        )
        self.around = ContextSlider(context)
        self._lay_out()
        connect_deferred(
            self.refresh,
            session.slide_changed,
            session.features_changed,
            context.query_changed,
            context.queries.history.changed,
        )
        connect(context.no_patch_at_click, self._show_no_patch)
        self.refresh()

    def _fill_menu(self) -> None:
        """Put saving and opening before the entries for the command line."""
        self.command.setText("⋮")
        self.command.setAccessibleName("More about the query")
        self.command.setToolTip("Save or open the query, or copy it as a command")
        self.command.setStyleSheet("QPushButton::menu-indicator { width: 0px; }")
        menu = self.command.menu()
        assert menu is not None
        own = [self.save, self.open, self.table]
        menu.insertActions(menu.actions()[0], own)
        menu.insertSeparator(menu.actions()[len(own)])
        menu.setToolTipsVisible(True)

    def _lay_out(self) -> None:
        row = QHBoxLayout()
        row.setSpacing(3)
        for button in (self.back, self.again, self.clear, self.region):
            row.addWidget(button, 1)
        row.addWidget(self.command)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        column.addWidget(self.where)
        column.addLayout(row)
        column.addWidget(self.command.feedback)

    def refresh(self) -> None:
        """Show the query, and enable the buttons that can be used."""
        session, query = self._session, self._context.query
        has_features = self._context.queries.has_features()
        set_shown(self, has_features or query is not None)
        self.where.setText(self._describe())
        self.where.setToolTip(self._details())
        none = "" if query else "there is no query"
        queries = self._context.queries
        set_enabled_with_reason(
            self.back,
            with_key("Undo the last change of the query", "undo", "back"),
            "" if queries.can_undo else "there is nothing to undo",
        )
        tip = "Make the change again that was undone last"
        set_enabled_with_reason(
            self.again,
            with_key(tip, "redo"),
            "" if queries.can_redo else "there is nothing to redo",
        )
        self.pool.setCurrentIndex(self.pool.findData(queries.pool))
        set_enabled_with_reason(
            self.clear, with_key("Remove all examples", "clear"), none
        )
        tip = "Draw around similar patches, or use the selection in a layer of "
        set_enabled_with_reason(
            self.region,
            with_key(tip + "shapes", "region"),
            "" if has_features else "there are no features",
        )
        away = "" if query is None or query.here else "the query is of another slide"
        tip = "Save the query in a small file, for other slides and the command line"
        _enable(self.save, tip, none or away)
        for action in (self.command.copy, self.command.save):
            if action is not None:
                action.setEnabled(query is not None)
        tip = "Make a layer whose features are the similarities of all patches"
        _enable(self.table, tip, none)
        reason = "" if session.slide is not None else "no slide is open"
        _enable(self.open, "Run a saved query on this slide", reason)

    def _describe(self) -> str:
        if not self._context.queries.has_features():
            return "Compute or load features, then click on the slide."
        query = self._context.query
        if query is None:
            return _START
        if not query.here:
            return describe_query(query)
        return _count(query.spec.examples)

    def _details(self) -> str:
        """Return where the newest example is, for the tooltip."""
        query = self._context.query
        if query is None:
            return "Hold Q and move the mouse to explore"
        return f"{describe_query(query)}\n{_MORE}"

    def _show_no_patch(self) -> None:
        if self._context.queries.has_features():
            self.where.setText("No patch there: click on tissue.")

    def _save(self) -> None:
        start = str(suggested_path(self._session))
        path = ask_save(self, "Save the query", start, _FILTER)
        if path:
            save_query(self._context, Path(path), while_alive(self._saved))

    def _saved(self, path: Path) -> None:
        self.where.setText(f"Saved in {path}")

    def _open(self) -> None:
        start = str(suggested_path(self._session).parent)
        path = ask_file(self, "Open a query", _FILTER, start)
        if path:
            load_query(self._context, Path(path))


def _enable(action: QAction, tip: str, reason: str) -> None:
    action.setEnabled(not reason)
    action.setToolTip(f"{tip}\n\nNot now: {reason}" if reason else tip)


def _count(examples: Examples) -> str:
    """Return the numbers of examples: ``2 ■ similar · 1 ✕ dissimilar · 1 region``."""
    parts = []
    for kind, (symbol, word) in SYMBOLS.items():
        if number := len(getattr(examples, kind)):
            parts.append(f"{number} {symbol} {word}")
    if number := len(examples.regions):
        parts.append(f"{number} region{'s' if number > 1 else ''}")
    return " · ".join(parts)
