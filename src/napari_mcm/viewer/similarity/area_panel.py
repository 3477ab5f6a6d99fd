"""The similarity threshold, the area above it, and what is made of that area."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget
from superqt import QLabeledDoubleSlider

from napari_mcm.viewer.app.persistence import writable_base
from napari_mcm.viewer.project.results import results_of
from napari_mcm.viewer.qt.helpers import (
    connect,
    connect_deferred,
    note,
    set_enabled_with_reason,
    set_shown,
    while_alive,
)
from napari_mcm.viewer.qt.path_field import ask_save
from napari_mcm.viewer.qt.primary_button import PrimaryButton
from napari_mcm.viewer.similarity.area import add_result
from napari_mcm.viewer.similarity.maps import DIFFERENCE
from napari_mcm.viewer.similarity.shortcuts import KEYS, with_key

if TYPE_CHECKING:
    from napari_mcm.core.heatmaps import Heatmap
    from napari_mcm.viewer.similarity.context import SimilarityContext

_FILTER = "QuPath (*.geojson);;Raster (*.ome.tif);;Figure (*.png)"


_RESET = "Put the threshold back where it starts for this kind of query"


class AreaPanel(QWidget):
    """The threshold, the area above it, and its export.

    Parameters
    ----------
    context : SimilarityContext
        Query, maps and shortcuts of the viewer.
    """

    def __init__(self, context: SimilarityContext) -> None:
        session = context.session
        self._context = context
        super().__init__()
        self._session, self._controller = session, context.areas
        self.threshold = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
        self.threshold.setDecimals(3)
        lower, higher = KEYS["lower"], KEYS["higher"]
        self.threshold.setToolTip(
            "Smallest cosine that counts as similar "
            f"(keys {lower} and {higher} on the slide)"
        )
        self.threshold.setAccessibleName("Threshold of similarity")
        self.threshold.valueChanged.connect(self._moved)
        self.reset = QPushButton("Reset")
        self.reset.setToolTip(_RESET)
        self.reset.clicked.connect(self._controller.reset_threshold)
        self.area, self.added = note(), note()
        self.added.hide()
        self._added_for: object = None
        self.add = PrimaryButton("Add to ta&ble", primary=True)
        self.add.setToolTip(
            with_key("Add this area as a row of the results table", "result")
        )
        self.add.clicked.connect(self._add)
        self.make = QPushButton("&Make labels")
        self.make.setToolTip(
            with_key("Outline the area above the threshold, as a layer", "area")
        )
        self.make.clicked.connect(self._controller.make_labels)
        self.export = QPushButton("E&xport…")
        self.export.setToolTip(
            "Write these patches for QuPath (GeoJSON), as a raster or a figure (Alt+X)"
        )
        self.export.clicked.connect(self._export)
        self._lay_out()
        self._results = results_of(session)
        connect(self._results.noted, self._show_added)
        connect_deferred(self.refresh, self._controller.changed, session.slide_changed)
        self.refresh()

    def _lay_out(self) -> None:
        first = QHBoxLayout()
        title = QLabel("Threshold")
        title.setBuddy(self.threshold)
        first.addWidget(title)
        first.addWidget(self.threshold, 1)
        first.addWidget(self.reset)
        row = QHBoxLayout()
        row.setSpacing(3)
        row.addWidget(self.add)
        row.addWidget(self.make)
        row.addWidget(self.export)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        column.addLayout(first)
        column.addWidget(self.area)
        column.addLayout(row)
        column.addWidget(self.added)

    def refresh(self) -> None:
        """Show the threshold and its area."""
        heatmap, measured = self._controller.heatmap, self._controller.area
        set_shown(self, heatmap is not None)
        if self._measured() != self._added_for:
            self.added.hide()
        if heatmap is None or measured is None:
            return
        low, high = heatmap.limits
        self.threshold.blockSignals(True)
        self.threshold.setRange(low, high)
        self.threshold.setSingleStep((high - low) / 100)  # type: ignore[arg-type]
        self.threshold.setValue(self._controller.threshold)
        self.threshold.blockSignals(False)
        set_enabled_with_reason(
            self.reset,
            _RESET,
            "" if self._controller.is_moved else "it is there",
        )
        area, patches = measured
        encoder = self._controller.encoder
        # The button of a map that is seen names the encoder; a difference has none.
        unseen = DIFFERENCE in self._context.queries.drawn.shown()
        self.area.setText(_describe(area, patches, heatmap, encoder if unseen else ""))
        self.area.setToolTip(
            f"{encoder + ': ' if encoder else ''}{patches:,} of {len(heatmap.grid):,} "
            "patches of tissue have a cosine of at least "
            f"{self._controller.threshold:.3f}; the area is of whole patches"
        )

    def _add(self) -> None:
        add_result(self._context)

    def _show_added(self) -> None:
        """Say whether the row was added, until there is another area."""
        self._added_for = self._measured()
        self.added.setText(self._results.note)
        self.added.show()

    def _measured(self) -> object:
        controller = self._controller
        return self._session.slide, controller.threshold, controller.area

    def _moved(self, value: float) -> None:
        self._controller.move_threshold(float(value))

    def _export(self) -> None:
        metadata = self._session.metadata
        if metadata is None:
            return
        base = writable_base(Path(metadata.path)) / f"{metadata.name}.similar.geojson"
        path = ask_save(self, "Export", str(base), _FILTER)
        if path:
            self._path = Path(path)
            self._controller.export(self._path, while_alive(self._written))

    def _written(self) -> None:
        self.area.setText(f"Written to {self._path}")


def _describe(area_mm2: float, patches: int, heatmap: Heatmap, encoder: str) -> str:
    """Return the area in one line: ``3.41 mm² · 27 % of tissue · 84 patches``."""
    compared = int(np.isfinite(heatmap.values).sum())
    percent = 100 * patches / compared if compared else 0.0
    parts = [
        f"{area_mm2:,.{2 if area_mm2 >= 1 else 3}f} mm²",
        f"{percent:.{0 if percent >= 10 or not patches else 1}f} % of tissue",
        f"{patches:,} patch{'es' if patches != 1 else ''}",
    ]
    return " · ".join([*parts, encoder] if encoder else parts)
