"""The colours of a heatmap, with the values at their ends written out."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import QSize
from qtpy.QtGui import QImage, QPainter, QPaintEvent
from qtpy.QtWidgets import QHBoxLayout, QLabel, QSizePolicy, QWidget

from napari_mcm.core.heatmaps.heatmap import Heatmap


class ColorStrip(QWidget):
    """A horizontal strip of a colour map."""

    def __init__(self) -> None:
        super().__init__()
        self._image = QImage()
        policy = QSizePolicy.Policy
        self.setSizePolicy(policy.Expanding, policy.Fixed)

    def sizeHint(self) -> QSize:
        """Tell Qt how large the strip would like to be."""
        return QSize(120, 12)

    def show_map(self, name: str) -> None:
        """Paint a colour map that napari knows."""
        from napari.utils.colormaps import ensure_colormap

        colours = ensure_colormap(name).map(np.linspace(0, 1, 256))
        pixels = np.ascontiguousarray(np.rint(colours * 255), np.uint8)
        image = QImage(pixels.tobytes(), 256, 1, 1024, QImage.Format.Format_RGBA8888)
        self._image = image.copy()
        self.update()

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Paint the strip over the whole widget."""
        painter = QPainter(self)
        painter.drawImage(self.rect(), self._image)
        painter.end()


class Legend(QWidget):
    """A strip of colours between its least and greatest value."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.strip, self.high = QLabel(), ColorStrip(), QLabel()
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.low)
        row.addWidget(self.strip, 1)
        row.addWidget(self.high)
        self._shown = ""

    def show_heatmap(
        self, heatmap: Heatmap, least: str = "unlike", most: str = "alike"
    ) -> None:
        """Show the colours and limits of a heatmap, with a word for each end."""
        low, high = heatmap.limits
        self.low.setText(f"{least} {low:.2f}")
        self.high.setText(f"{high:.2f} {most}")
        text = f"{heatmap.title}: colours run from {low:.3f} to {high:.3f}"
        self.setToolTip(text[:1].upper() + text[1:])
        self.setAccessibleDescription(text)
        if self._shown != heatmap.colormap:
            self._shown = heatmap.colormap
            self.strip.show_map(heatmap.colormap)
