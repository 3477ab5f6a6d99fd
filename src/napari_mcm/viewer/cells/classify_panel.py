"""Classify boxes or points on an open image."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from psygnal import Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
)

from napari_mcm.core.cells.classified import Classified, colour_of
from napari_mcm.core.cells.config import ClassifyConfig, MarkedCellsConfig
from napari_mcm.core.runtime.command import Command
from napari_mcm.viewer.app.session import Session
from napari_mcm.viewer.cells.annotations import is_points, symbol_of
from napari_mcm.viewer.cells.controller import cells_command
from napari_mcm.viewer.qt.command_panel import CommandMenu
from napari_mcm.viewer.qt.helpers import connect, narrow, note, set_enabled_with_reason
from napari_mcm.viewer.qt.option_form import OptionForm
from napari_mcm.viewer.qt.path_field import PathField

if TYPE_CHECKING:
    from pathlib import Path

    from napari.layers import Layer

_CLASSIFY = (
    "Classify each box or point in the background: colors the layer by class, and adds "
    "class, confidence and all probabilities to its features table"
)


class ClassifyPanel(QGroupBox):
    """Choose classifier, image and cells, and show the classes.

    Parameters
    ----------
    session : Session
        Session of the viewer.

    Attributes
    ----------
    classify_requested : Signal
        Cells are to be classified: run (Path), image and marks (Layer), side (px) of
        boxes around points, margin around shapes.
    """

    classify_requested = Signal(object, object, object, int, float)

    def __init__(self, session: Session) -> None:
        super().__init__("Classify cells of an open image")
        self._session = session
        self._images: list[Layer] = []
        self._marks: list[Layer] = []
        self.run = PathField("Classifier", "Finished run of a classifier")
        self.image = narrow(QComboBox())
        self.image.setToolTip("Open slide or picture")
        self.marks = narrow(QComboBox())
        self.marks.setToolTip("Layer with one box or one point per cell")
        self.side = QSpinBox()
        self.side.setRange(4, 2048)
        self.side.setValue(MarkedCellsConfig.model_fields["side"].default)
        self.side.setSuffix(" px")
        self.side.setToolTip(
            "Side of the box around a point, in pixels at full resolution; it should "
            "match the pictures that the classifier was trained on"
        )
        self.rim = OptionForm(
            ClassifyConfig, (("labels.box_margin", "Margin of boxes"),)
        )
        self.start = QPushButton("Classif&y")
        self.start.clicked.connect(self.classify)
        self.command = CommandMenu("Cells", self.as_command, session.report_error)
        self.result = note()
        self._lay_out()
        self.show_classes(None)
        connect(session.layers.changed, self._list_layers)
        connect(session.slide_changed, self._list_layers)
        connect(session.jobs.status.events.state, self.refresh)
        connect(self.run.changed, self.refresh)
        self.marks.currentIndexChanged.connect(lambda _: self.refresh())
        self._list_layers()

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.addRow("Cla&ssifier", self.run)
        form.addRow("Im&age", self.image)
        form.addRow("&Boxes or points", self.marks)
        form.addRow("At points", self.side)
        buttons = QHBoxLayout()
        buttons.addWidget(self.start, 1)
        buttons.addWidget(self.command)
        column = QVBoxLayout(self)
        column.addLayout(form)
        column.addWidget(self.rim)
        column.addLayout(buttons)
        for part in (self.command.feedback, self.result):
            column.addWidget(part)

    def refresh(self) -> None:
        """Update the button and the fields of boxes and points."""
        set_enabled_with_reason(self.start, _CLASSIFY, self._reason())
        marks = self._chosen(self.marks, self._marks)
        self.side.setEnabled(marks is None or is_points(marks))
        self.rim.setEnabled(marks is None or not is_points(marks))

    def show_classes(self, found: Classified | None) -> None:
        """Show how many cells each class has; None where none are classified."""
        self.result.setText("" if found is None else legend(found))
        self.result.setVisible(found is not None)

    def classify(self) -> None:
        """Request the classes of the marked cells."""
        if not self._missing():
            self.classify_requested.emit(*self._asked())

    def as_command(self) -> Command:
        """Return the command that does what the button would do."""
        if missing := self._missing():
            raise ValueError(f"{missing[0].upper()}{missing[1:]}")
        run, image, marks, side, margin = self._asked()
        return cells_command(self._session, run, image, marks, (side, margin))

    def _asked(self) -> tuple[Path, Layer, Layer, int, float]:
        image = self._chosen(self.image, self._images)
        marks = self._chosen(self.marks, self._marks)
        assert self.run.path is not None and image is not None and marks is not None
        margin = float(self.rim.values()["labels.box_margin"])
        return self.run.path, image, marks, self.side.value(), margin

    def _reason(self) -> str:
        busy = self._session.jobs.status.busy
        return "another job is running" if busy else self._missing()

    def _missing(self) -> str:
        if self.run.path is None:
            return "no classifier is chosen"
        if self._chosen(self.image, self._images) is None:
            return "no slide or picture is open"
        if self._chosen(self.marks, self._marks) is None:
            return "there is no layer of shapes or points: draw boxes or points"
        return ""

    def _list_layers(self) -> None:
        layers = self._session.layers
        self._images = _fill(self.image, self._images, layers.image_layers())
        self._marks = _fill(self.marks, self._marks, layers.annotations())
        self.refresh()

    @staticmethod
    def _chosen(combo: QComboBox, layers: list[Layer]) -> Layer | None:
        number = combo.currentIndex()
        return layers[number] if 0 <= number < len(layers) else None


def legend(found: Classified) -> str:
    """Return the classes as rich text, each with its color and symbol."""
    lines = [
        f'<span style="color:{colour_of(number)}">■</span> {escape(text)} '
        f"({symbol_of(number)})"
        for number, text in found.describe()
    ]
    if found.failed:
        lines.append(f"{found.failed:,} could not be read")
    return "<br>".join(lines)


def _fill(combo: QComboBox, before: list[Layer], now: list[Layer]) -> list[Layer]:
    """List layers by name, and keep the choice; the newest where it is gone."""
    number = combo.currentIndex()
    chosen = before[number] if 0 <= number < len(before) else None
    combo.blockSignals(True)
    combo.clear()
    combo.addItems([layer.name for layer in now])
    combo.setCurrentIndex(now.index(chosen) if chosen in now else len(now) - 1)
    combo.blockSignals(False)
    return now
