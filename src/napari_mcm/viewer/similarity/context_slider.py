"""The slider that chooses how much tissue around a patch counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGridLayout, QLabel, QSizePolicy, QSlider, QWidget

from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.viewer.qt.helpers import connect

if TYPE_CHECKING:
    from napari_mcm.viewer.similarity.context import SimilarityContext

_TIP = (
    "How much tissue is compared: each patch alone, or its features averaged with those "
    "of the patches around it, without gaps of tissue. More context finds a place and a "
    "pattern of tissue again; the patch alone finds small targets and sharp borders"
)


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
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, 3)
        self.slider.setPageStep(1)
        self.slider.setTickPosition(QSlider.TickPosition.TicksBelow)
        self.slider.setTickInterval(1)
        self.slider.setToolTip(_TIP)
        self.slider.setAccessibleName("Context")
        self.slider.valueChanged.connect(self._moved)
        self.state = QLabel()
        self.labels = [
            QLabel(NeighbourhoodConfig(radius=radius).describe()) for radius in range(4)
        ]
        self._lay_out()
        connect(queries.neighbourhood_changed, self.refresh)
        connect(queries.preparation.changed, self.refresh)
        self.refresh()

    def _lay_out(self) -> None:
        # Eight columns: the outer labels are half as wide, and all stand under their
        # ticks.
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(0)
        grid.setHorizontalSpacing(0)
        grid.addWidget(self.slider, 0, 0, 1, 6)
        start, middle, end = (
            Qt.AlignmentFlag.AlignLeft,
            Qt.AlignmentFlag.AlignHCenter,
            Qt.AlignmentFlag.AlignRight,
        )
        places = ((0, 1, start), (1, 2, middle), (3, 2, middle), (5, 1, end))
        for label, (column, width, side) in zip(self.labels, places, strict=True):
            label.setAlignment(side)
            label.setSizePolicy(
                QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred
            )
            grid.addWidget(label, 1, column, 1, width)
        grid.addWidget(self.state, 2, 0, 1, 6)
        for column in range(6):
            grid.setColumnStretch(column, 1)

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

    def _moved(self, radius: int) -> None:
        self._queries.use_neighbourhood(NeighbourhoodConfig(radius=radius))
