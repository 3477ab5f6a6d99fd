"""A colour bar for heatmaps, with the values at both ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QImage, QPainter, QPaintEvent
from qtpy.QtWidgets import QHBoxLayout, QLabel, QSizePolicy, QWidget

from napari_mcm.core.heatmaps.heatmap import Heatmap

if TYPE_CHECKING:
    from napari.utils.colormaps import Colormap


class ColorStrip(QWidget):
    """A horizontal strip that shows a colormap."""

    def __init__(self) -> None:
        super().__init__()
        self._image = QImage()
        policy = QSizePolicy.Policy
        self.setSizePolicy(policy.Expanding, policy.Fixed)

    def sizeHint(self) -> QSize:
        """Return the preferred size."""
        return QSize(120, 12)

    def show_map(self, name: str | Colormap) -> None:
        """Show a colormap of napari, or its name."""
        from napari.utils.colormaps import ensure_colormap

        colours = ensure_colormap(name).map(np.linspace(0, 1, 256))
        pixels = np.ascontiguousarray(np.rint(colours * 255), np.uint8)
        image = QImage(pixels.tobytes(), 256, 1, 1024, QImage.Format.Format_RGBA8888)
        self._image = image.copy()
        self.update()

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Paint the strip over the whole widget."""
        painter = QPainter(self)
        # As on a slide: colours that fade out let it shine through.
        painter.fillRect(self.rect(), Qt.GlobalColor.white)
        painter.drawImage(self.rect(), self._image)
        painter.end()


class Legend(QWidget):
    """A colour strip between labels of its lowest and highest value."""

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
        self,
        heatmap: Heatmap,
        lowest: str = "dissimilar",
        highest: str = "similar",
        colormap: Colormap | None = None,
    ) -> None:
        """Show the colours and limits of a heatmap.

        Parameters
        ----------
        heatmap : Heatmap
            The heatmap.
        lowest, highest : str
            Meaning of the lowest and the highest values.
        colormap : Colormap, optional
            Colours that it is drawn in; by default its own.
        """
        low, high = heatmap.limits
        self.low.setText(f"{lowest} {low:.2f}")
        self.high.setText(f"{high:.2f} {highest}")
        text = f"{heatmap.title}: colours run from {low:.3f} to {high:.3f}"
        self.setToolTip(text[:1].upper() + text[1:])
        self.setAccessibleDescription(text)
        name = heatmap.colormap if colormap is None else str(colormap.name)
        if self._shown != name:
            self._shown = name
            self.strip.show_map(colormap or name)
