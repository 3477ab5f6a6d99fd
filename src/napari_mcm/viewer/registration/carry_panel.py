"""The box that carries annotations over, and lists what has no place there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QGroupBox,
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
)

from napari_mcm.viewer.qt.helpers import (
    connect,
    connect_deferred,
    narrow,
    note,
    set_enabled_with_reason,
    set_shown,
)
from napari_mcm.viewer.qt.path_field import ask_file
from napari_mcm.viewer.registration.carrying import FILE

if TYPE_CHECKING:
    from napari_mcm.viewer.registration.carrying import Carriable, Carrier
    from napari_mcm.viewer.registration.controller import SectionsController

_CARRY = "Put it at its place on the other section (Alt+Y)"
_WHAT = "What lies on the current slide"
_SETTLE_MS = 200
"""Delay from a change to the list of what can be carried, in milliseconds."""


class CarryPanel(QGroupBox):
    """The box that carries things from the current slide over to the other one.

    Parameters
    ----------
    sections : SectionsController
        The two slides and their registration.
    carrier : Carrier
        Carries things over.
    """

    def __init__(self, sections: SectionsController, carrier: Carrier) -> None:
        super().__init__("Carry over")
        self._sections, self._carrier = sections, carrier
        self._found: list[Carriable] = []
        self.what = narrow(QComboBox())
        self.what.setAccessibleName("What to carry over")
        self.carry = QPushButton("Carr&y over")
        self.carry.clicked.connect(self._carry)
        self.outcome = note()
        self.table = QTableWidget(0, 2)
        self.table.setHorizontalHeaderLabels(["Left out", "Reason"])
        self.table.setAccessibleName("What has no place on the other section")
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setTabKeyNavigation(False)
        self.table.setMinimumSize(100, 110)
        self.table.setToolTip("Double click or Enter goes there, on the slide it is on")
        header, rows = self.table.horizontalHeader(), self.table.verticalHeader()
        if header is not None and rows is not None:
            header.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
            rows.setVisible(False)
        self.table.itemActivated.connect(self._go)
        row = QHBoxLayout()
        row.addWidget(self.what, 1)
        row.addWidget(self.carry)
        column = QVBoxLayout(self)
        column.addLayout(row)
        column.addWidget(self.outcome)
        column.addWidget(self.table)
        session = sections.session
        connect(carrier.changed, self._show)
        # Also when features come, as a query comes back with them.
        connect_deferred(
            self.refresh,
            sections.changed,
            session.layers.changed,
            session.labels.changed,
            session.tissue.changed,
            carrier.listable,
            wait_ms=_SETTLE_MS,
        )
        self._show()
        self.refresh()

    def refresh(self) -> None:
        """List what can be carried over, and enable the button."""
        known, other = self._sections.known, self._sections.other
        chosen = self.what.currentText()
        self._found = self._carrier.carriable()
        self.what.clear()
        self.what.addItems([one.title for one in self._found])
        titles = [one.title.split(":")[0] for one in self._found]
        if chosen.split(":")[0] in titles:
            self.what.setCurrentIndex(titles.index(chosen.split(":")[0]))
        reason = "" if known else "the sections are not registered"
        set_enabled_with_reason(self.what, _WHAT, reason)
        set_enabled_with_reason(self.carry, _CARRY, reason)
        to = f" to {other.name}" if other is not None and known else ""
        self.setTitle(f"Carry over{to}")

    def _show(self) -> None:
        carrier = self._carrier
        self.outcome.setText(carrier.outcome)
        set_shown(self.outcome, bool(carrier.outcome))
        set_shown(self.table, bool(carrier.left_out))
        self.table.setRowCount(len(carrier.left_out))
        for row, left in enumerate(carrier.left_out):
            for column, text in enumerate((left.what, left.state)):
                self.table.setItem(row, column, QTableWidgetItem(text))

    def _carry(self) -> None:
        at = self.what.currentIndex()
        if not 0 <= at < len(self._found):
            return
        what, path = self._found[at], None
        if what.kind == FILE:
            name = ask_file(self, "Regions of this slide", "GeoJSON (*.geojson *.json)")
            if not name:
                return
            path = Path(name)
        self._carrier.carry(what, path)

    def _go(self, item: QTableWidgetItem) -> None:
        self._carrier.go_to(self._carrier.left_out[item.row()])
