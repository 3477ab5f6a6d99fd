"""The slider that chooses how much tissue around a patch counts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from psygnal import Signal
from qtpy.QtCore import QRect, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QSlider,
    QStyle,
    QStyleOptionSlider,
    QVBoxLayout,
    QWidget,
)

from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.viewer.qt.helpers import connect

if TYPE_CHECKING:
    from napari_mcm.viewer.similarity.context import SimilarityContext

_TIP = (
    "How much tissue is compared: each patch alone, or its features averaged with those "
    "of the patches around it, without gaps of tissue. More context finds a place and a "
    "pattern of tissue again; the patch alone finds small targets and sharp borders"
)


class StepLabel(QLabel):
    """The name of a step under a slider; a click chooses it.

    The keyboard chooses it by the slider.

    Parameters
    ----------
    text : str
        The name.

    Attributes
    ----------
    clicked : Signal
        Emitted on a click with the left button.
    """

    clicked = Signal()

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.setCursor(Qt.CursorShape.PointingHandCursor)

    def mousePressEvent(self, event: QMouseEvent | None) -> None:
        """Choose the step."""
        if event is not None and event.button() == Qt.MouseButton.LeftButton:
            self.clicked.emit()


class StepSlider(QSlider):
    """A horizontal slider that goes to the step that is clicked in its groove."""

    def __init__(self) -> None:
        super().__init__(Qt.Orientation.Horizontal)

    def mousePressEvent(self, event: QMouseEvent | None) -> None:
        """Go to the step nearest to a click beside the handle; else drag the handle."""
        left = event is not None and event.button() == Qt.MouseButton.LeftButton
        if event is None or not left or self._part("Handle").contains(event.pos()):
            super().mousePressEvent(event)
            return
        groove, width = self._part("Groove"), self._part("Handle").width()
        self.setValue(
            QStyle.sliderValueFromPosition(
                self.minimum(),
                self.maximum(),
                event.pos().x() - groove.left() - width // 2,
                groove.width() - width,
            )
        )
        if self._part("Handle").contains(event.pos()):
            super().mousePressEvent(event)

    def _part(self, name: str) -> QRect:
        option, style = QStyleOptionSlider(), self.style()
        self.initStyleOption(option)
        if style is None:
            return self.rect()
        control = QStyle.ComplexControl.CC_Slider
        part = getattr(QStyle.SubControl, f"SC_Slider{name}")
        return style.subControlRect(control, option, part, self)


class ContextSlider(QWidget):
    """A slider from the patch alone to 7 × 7 patches, which repaints the maps.

    Parameters
    ----------
    context : SimilarityContext
        Query, maps and shortcuts of the viewer.
    """

    def __init__(self, context: SimilarityContext) -> None:
        super().__init__()
        self._queries = queries = context.queries
        self.slider = StepSlider()
        self.slider.setRange(0, 3)
        self.slider.setPageStep(1)
        self.slider.setTickPosition(QSlider.TickPosition.TicksBelow)
        self.slider.setTickInterval(1)
        self.slider.setToolTip(_TIP)
        self.slider.setAccessibleName("Context")
        self.slider.valueChanged.connect(self._moved)
        self.state = QLabel()
        self.labels = [
            StepLabel(NeighbourhoodConfig(radius=radius).describe())
            for radius in range(4)
        ]
        for radius, label in enumerate(self.labels):
            label.clicked.connect(partial(self._choose, radius))
        self._lay_out()
        connect(queries.neighbourhood_changed, self.refresh)
        connect(queries.preparation.changed, self.refresh)
        self.refresh()

    def _lay_out(self) -> None:
        below = QHBoxLayout()
        for label in self.labels:
            below.addWidget(label)
            if label is not self.labels[-1]:
                below.addStretch(1)
        column = QVBoxLayout()
        column.setSpacing(0)
        column.addWidget(self.slider)
        column.addLayout(below)
        column.addWidget(self.state)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        title = QLabel("Context")
        title.setBuddy(self.slider)
        row.addWidget(title, 0, Qt.AlignmentFlag.AlignTop)
        row.addLayout(column, 1)

    def refresh(self) -> None:
        """Show the neighbourhood, and whether it is being prepared."""
        around, waiting = self._queries.neighbourhood, self._queries.preparation.waiting
        self.slider.blockSignals(True)
        self.slider.setValue(around.radius)
        self.slider.blockSignals(False)
        self.slider.setAccessibleDescription(f"Now: {around.describe()}. {_TIP}")
        for radius, label in enumerate(self.labels):
            font = label.font()
            font.setBold(radius == around.radius)
            label.setFont(font)
        notes = ["distance-weighted"] if around.weights == "distance" else []
        notes += ["preparing…"] if waiting else []
        self.state.setText(", ".join(notes))
        self.state.setVisible(bool(notes))

    def _choose(self, radius: int) -> None:
        self.slider.setValue(radius)

    def _moved(self, radius: int) -> None:
        self._queries.use_neighbourhood(NeighbourhoodConfig(radius=radius))
