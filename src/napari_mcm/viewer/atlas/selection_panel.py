"""What is selected in an atlas, and its label; a cluster and its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSize
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_mcm.viewer.atlas.controller import SUGGESTED
from napari_mcm.viewer.layers.thumbnails import TopPatch
from napari_mcm.viewer.qt.helpers import (
    connect,
    narrow,
    note,
    set_enabled_with_reason,
    while_alive,
)
from napari_mcm.viewer.qt.primary_button import PrimaryButton
from napari_mcm.viewer.qt.thumbnail_strip import ThumbnailStrip

if TYPE_CHECKING:
    from napari_mcm.viewer.atlas.controller import AtlasController

SHOWN = 12
"""Number of typical patches that are shown."""
_SIDE_PX = 52
"""Side of their pictures on the screen."""


class SelectionPanel(QWidget):
    """Labels the selected patches, and names a cluster.

    Parameters
    ----------
    controller : AtlasController
        The atlas.

    Attributes
    ----------
    name : QComboBox
        The class; a new name makes one.
    label : PrimaryButton
        Labels all selected patches.
    name_cluster : QPushButton
        Labels the typical patches of the chosen cluster.
    strip : ThumbnailStrip
        Typical patches of the chosen cluster.
    """

    def __init__(self, controller: AtlasController) -> None:
        super().__init__()
        self._controller, self._session = controller, controller.session
        self._cluster = -1
        self._points: list[int] = []
        self.line, self.said = note(), note()
        self.name = narrow(QComboBox())
        self.name.setEditable(True)
        self.name.setAccessibleName("Class for the selected patches")
        self.name.setToolTip("Choose a class, or enter the name of a new one")
        edit = self.name.lineEdit()
        if edit is not None:
            edit.setPlaceholderText("class")
        self.label = PrimaryButton("La&bel", primary=True)
        self.name_cluster = QPushButton("&Name this cluster")
        self.clear = QPushButton("Clear")
        self.clear.setToolTip("Select nothing (Esc on the map)")
        self.strip = ThumbnailStrip("Typical patches of the cluster", "")
        self.strip.setIconSize(QSize(_SIDE_PX, _SIDE_PX))
        self.strip.setFixedHeight(_SIDE_PX + 42)
        self.strip.hide()
        self._lay_out()
        self._connect()
        self.refresh()

    def _lay_out(self) -> None:
        self._tools = QWidget()
        row = QHBoxLayout()
        row.addWidget(self.name, 1)
        row.addWidget(self.label)
        buttons = QHBoxLayout()
        buttons.addWidget(self.name_cluster)
        buttons.addStretch(1)
        buttons.addWidget(self.clear)
        tools = QVBoxLayout(self._tools)
        tools.setContentsMargins(0, 0, 0, 0)
        tools.setSpacing(3)
        tools.addLayout(row)
        tools.addLayout(buttons)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        for part in (self.line, self.strip, self._tools, self.said):
            column.addWidget(part)

    def _connect(self) -> None:
        controller = self._controller
        connect(controller.selection_changed, self._selection_changed)
        connect(self._session.labels.changed, self.refresh)
        controller.said.connect(while_alive(self._say))
        connect(self._session.order.moved, self._say_nothing)
        self.name.editTextChanged.connect(self._allow)
        self.label.clicked.connect(self._label)
        self.name_cluster.clicked.connect(self._name_cluster)
        self.clear.clicked.connect(self._select_nothing)
        self.strip.chosen.connect(self._go_to)

    def choose_cluster(self, cluster: int) -> None:
        """Show the typical patches of a cluster; -1 for none."""
        self._cluster = cluster
        self._points = []
        self.strip.show_patches([])
        if cluster >= 0:
            self._points = self._controller.typical(cluster, SHOWN).tolist()
            wanted = [self._controller.place_of(point) for point in self._points]
            self._controller.pictures.read(
                "typical",
                wanted,
                while_alive(self._show_typical),
                while_alive(self._say),
            )
        self.refresh()

    def refresh(self) -> None:
        """Show what is selected, and which classes there are."""
        controller, text = self._controller, self.name.currentText()
        names = [one.name for one in self._session.labels.classes]
        if [self.name.itemText(n) for n in range(self.name.count())] != names:
            blocked = self.name.blockSignals(True)
            self.name.clear()
            self.name.addItems(names)
            self.name.setEditText(text)
            self.name.blockSignals(blocked)
        count, slides = len(controller.selected), controller.selected_slides()
        plural = ("" if count == 1 else "es", "" if slides == 1 else "s")
        self.line.setText(
            f"{count:,} patch{plural[0]} selected on {slides:,} slide{plural[1]}"
            if count
            else "Draw a lasso, or choose a cluster, to select patches"
        )
        self.line.setVisible(controller.atlas is not None)
        self._tools.setVisible(bool(count))
        self.name_cluster.setVisible(self._cluster >= 0)
        self._allow()

    def _allow(self, *_: object) -> None:
        """Enable the buttons, or say why they are not."""
        reason = "" if self.name.currentText().strip() else "enter a class"
        count = len(self._controller.selected)
        self.label.setText(f"La&bel {count:,}")
        tip = "Give all selected patches this class; Undo in the dock Classes"
        set_enabled_with_reason(self.label, tip, reason)
        set_enabled_with_reason(
            self.name_cluster,
            f"Make a class of the cluster, and label its {SUGGESTED} most typical "
            "patches, from all slides",
            reason,
        )

    def _selection_changed(self) -> None:
        self._say_nothing()
        self.choose_cluster(self._chosen_cluster())

    def _chosen_cluster(self) -> int:
        """Return the cluster whose points are selected, all of them and no others."""
        atlas, selected = self._controller.atlas, self._controller.selected
        if atlas is None or not len(selected):
            return -1
        cluster = int(atlas.clusters[selected[0]])
        members = int((atlas.clusters == cluster).sum())
        alone = (atlas.clusters[selected] == cluster).all()
        return cluster if alone and members == len(selected) else -1

    def _show_typical(self) -> None:
        """Show the pictures that were read, unless another cluster is chosen."""
        controller = self._controller
        if controller.atlas is None or not self._points:
            return
        tops = []
        for point in self._points:
            known, pixels = controller.pictures.known(*controller.place_of(point))
            if not known:
                return
            tops.append(TopPatch(point, 0.0, pixels))
        self.strip.show_patches(tops)

    def _go_to(self, patch: TopPatch) -> None:
        self._controller.go_to(patch.row)

    def _label(self) -> None:
        self._controller.label_selected(self.name.currentText())

    def _name_cluster(self) -> None:
        self._controller.name_cluster(self._cluster, self.name.currentText())

    def _select_nothing(self, *_: object) -> None:
        self._controller.select(self._controller.selected[:0])

    def _say_nothing(self) -> None:
        self._say("")

    def _say(self, text: str) -> None:
        self.said.setText(text)
        self.said.setVisible(bool(text))
