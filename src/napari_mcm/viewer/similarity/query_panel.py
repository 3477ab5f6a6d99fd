"""The box of the query: its examples, and buttons to change, save and open it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QGridLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
)

from napari_mcm.core.heatmaps.similarity_index import MOST_NEAREST
from napari_mcm.viewer.qt.collapsible_forms import CollapsibleSection
from napari_mcm.viewer.qt.command_panel import CommandMenu
from napari_mcm.viewer.qt.helpers import (
    connect,
    connect_deferred,
    narrow,
    note,
    set_enabled_with_reason,
    while_alive,
)
from napari_mcm.viewer.qt.path_field import ask_file, ask_save
from napari_mcm.viewer.similarity.commands import query_commands
from napari_mcm.viewer.similarity.context_slider import ContextSlider
from napari_mcm.viewer.similarity.query import load_query, save_query, suggested_path
from napari_mcm.viewer.similarity.shortcuts import KEY_HELP, with_key

if TYPE_CHECKING:
    from napari_mcm.viewer.similarity.context import SimilarityContext

POOLS = {"Mean": "mean", "Nearest": "max"}
_FILTER = "Query (*.query.json *.json)"


class QueryPanel(QGroupBox):
    """The box that shows the query and changes its examples.

    Parameters
    ----------
    context : SimilarityContext
        Query, maps and shortcuts of the viewer.
    """

    def __init__(self, context: SimilarityContext) -> None:
        session = context.session
        self._context = context
        super().__init__("Query")
        self._session = session
        self.where = note()
        self.back = QPushButton("&Undo")
        self.back.clicked.connect(context.queries.undo)
        self.clear = QPushButton("Cle&ar")
        self.clear.clicked.connect(context.queries.clear)
        self.region = QPushButton("Draw re&gion")
        self.region.clicked.connect(context.regions.begin)
        self.save = QPushButton("&Save…")
        self.save.clicked.connect(self._save)
        self.open = QPushButton("Ope&n…")
        self.open.clicked.connect(self._open)
        self.command = CommandMenu(
            "Query", lambda: query_commands(context), session.report_error
        )
        self.pool = narrow(QComboBox())
        for text, pool in POOLS.items():
            self.pool.addItem(text, pool)
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
        )
        connect(context.no_patch_at_click, self._show_no_patch)
        self.refresh()

    def _lay_out(self) -> None:
        column = QVBoxLayout(self)
        column.addWidget(self.where)
        # In a row of its own: the form's wide labels would leave the slider no room.
        row = QHBoxLayout()
        label = QLabel("Context")
        label.setBuddy(self.around.slider)
        row.addWidget(label, 0, Qt.AlignmentFlag.AlignTop)
        row.addWidget(self.around, 1)
        column.addLayout(row)
        buttons = QGridLayout()
        for place, button in enumerate(
            (self.back, self.clear, self.region, self.save, self.open, self.command)
        ):
            buttons.addWidget(button, *divmod(place, 3))
        column.addLayout(buttons)
        column.addWidget(self.command.feedback)
        form = QFormLayout()
        form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        label = QLabel("Combine examples by")
        label.setBuddy(self.pool)
        form.addRow(label, self.pool)
        column.addLayout(form)
        keys = CollapsibleSection("Mouse and keys on the slide")
        keys.setToolTip("What clicks and keys do")
        keys.addWidget(note(KEY_HELP))
        column.addWidget(keys)

    def refresh(self) -> None:
        """Show the query, and enable the buttons that can be used."""
        session = self._session
        self.where.setText(self._describe())
        query = self._context.query
        none = "" if query else "there is no query"
        set_enabled_with_reason(
            self.back, with_key("Remove the newest example", "back"), none
        )
        set_enabled_with_reason(
            self.clear, with_key("Remove all examples", "clear"), none
        )
        reason = "" if self._context.queries.has_features() else "there are no features"
        tip = "Draw around similar patches, or use the selection in a layer of "
        set_enabled_with_reason(self.region, with_key(tip + "shapes", "region"), reason)
        away = "" if query is None or query.here else "the query is of another slide"
        tip = "Save the query in a small file, for other slides and the command line"
        set_enabled_with_reason(self.save, f"{tip} (Alt+S)", none or away)
        self.command.setEnabled(query is not None)
        reason = "" if session.slide is not None else "no slide is open"
        set_enabled_with_reason(
            self.open, "Run a saved query on this slide (Alt+N)", reason
        )

    def _describe(self) -> str:
        if not self._context.queries.has_features():
            return "Compute or load features, then click on the slide."
        query = self._context.query
        if query is None:
            return (
                "Click on the slide to map similar patches. Shift+click adds a similar "
                "example, Ctrl+click a dissimilar one; hold Q and move to explore."
            )
        if not query.here:
            return f"Query from slide {query.spec.name}, run on this slide."
        lines = [_count(query.spec.examples)]
        if query.um or not query.spec.examples.regions:
            unit, at = ("µm", query.um) if query.um else ("px", query.xy)
            lines.append(f"x {at[0]:,.1f} {unit}, y {at[1]:,.1f} {unit}")
        for heatmap in query.maps.values():
            if heatmap is not None and heatmap.query is not None:
                lines.append(f"patch {heatmap.query:,} of {len(heatmap.grid):,}")
        return " · ".join(line for line in dict.fromkeys(lines) if line)

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


def _count(examples: object) -> str:
    """Return the numbers of examples as text; empty for one similar example."""
    parts = []
    names = {"like": "similar", "unlike": "dissimilar", "regions": "region"}
    for name, text in names.items():
        number = len(getattr(examples, name))
        if number:
            plural = "s" if text == "region" and number > 1 else ""
            parts.append(f"{number} {text}{plural}")
    return "" if parts == ["1 similar"] else ", ".join(parts)
