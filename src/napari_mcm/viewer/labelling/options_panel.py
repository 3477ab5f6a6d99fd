"""What classes are learnt on: features, context, and when a patch is unsure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QFormLayout, QWidget
from superqt import QLabeledDoubleSlider

from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.viewer.app.features import SLOTS
from napari_mcm.viewer.qt.helpers import connect, narrow

if TYPE_CHECKING:
    from napari_mcm.viewer.labelling.context import LabellingContext

_RADII = range(4)


class ClassifierOptions(QWidget):
    """Chooses features, context and the limit of unsure patches.

    Parameters
    ----------
    context : LabellingContext
        Labels, classifier and maps of the viewer.
    """

    def __init__(self, context: LabellingContext) -> None:
        super().__init__()
        self._classifier, self._session = context.classifier, context.session
        self.features = narrow(QComboBox())
        self.features.setToolTip("The encoder whose features classes are trained on")
        self.features.activated.connect(self._use_features)
        self.around = narrow(QComboBox())
        self.around.setToolTip(
            "Patches over which features are averaged: more tissue around each patch"
        )
        for radius in _RADII:
            self.around.addItem(NeighbourhoodConfig(radius=radius).describe(), radius)
        self.around.activated.connect(self._use_around)
        self.limit = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
        self.limit.setRange(0.0, 1.0)
        self.limit.setDecimals(2)
        self.limit.setSingleStep(0.05)  # type: ignore[arg-type]
        self.limit.setToolTip(
            "A patch whose likeliest class is less probable than this is unsure"
        )
        self.limit.setAccessibleName("Limit of unsure patches")
        self.limit.valueChanged.connect(self._use_limit)
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        form.addRow("Features", self.features)
        form.addRow("Context", self.around)
        form.addRow("Unsure below", self.limit)
        connect(context.classifier.changed, self.refresh)
        self.refresh()

    def summary(self) -> str:
        """Return the options in one line."""
        loaded, config = self._classifier.loaded, self._classifier.config
        if loaded is None:
            return "No features yet"
        around = config.neighbourhood.describe()
        # The name of the encoder is last: a narrow dock cuts the end of the line.
        return f"{around} · unsure below {config.unsure_below:.2f} · {loaded.label}"

    def refresh(self) -> None:
        """Show the options."""
        session, config = self._session, self._classifier.config
        loaded = {} if session.slide is None else session.features_of(session.slide)
        shown = [(loaded[slot].label, slot) for slot in SLOTS if slot in loaded]
        if shown != [
            (self.features.itemText(i), self.features.itemData(i))
            for i in range(self.features.count())
        ]:
            self.features.clear()
            for label, slot in shown:
                self.features.addItem(label, slot)
        self.features.setCurrentIndex(self.features.findData(self._classifier.slot))
        self.around.setCurrentIndex(self.around.findData(config.neighbourhood.radius))
        if abs(self.limit.value() - config.unsure_below) > 1e-9:
            self.limit.blockSignals(True)
            self.limit.setValue(config.unsure_below)
            self.limit.blockSignals(False)

    def _use_features(self, number: int) -> None:
        self._classifier.use_slot(str(self.features.itemData(number)))

    def _use_around(self, number: int) -> None:
        self._classifier.use_radius(int(self.around.itemData(number)))

    def _use_limit(self, value: float) -> None:
        self._classifier.use_limit(round(float(value), 2))
