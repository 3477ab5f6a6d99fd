"""Controls of how maps are drawn: the switch, the style, colours, opacity, smoothness."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import numpy as np
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QIcon, QImage, QPainter, QPixmap
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QSlider,
    QVBoxLayout,
    QWidget,
)
from superqt import QToggleSwitch

from napari_mcm.viewer.layers.colormaps import COLORMAPS, faded
from napari_mcm.viewer.layers.look import Style
from napari_mcm.viewer.qt.helpers import (
    connect_deferred,
    narrow,
    set_enabled_with_reason,
)
from napari_mcm.viewer.similarity.shortcuts import with_key

if TYPE_CHECKING:
    from napari_mcm.viewer.similarity.context import SimilarityContext

STYLES: dict[Style, str] = {style: style.capitalize() for style in get_args(Style)}
"""Styles of maps to their labels."""
_STYLE_TIP = (
    "Overlay: colours over the tissue. Spotlight: similar tissue in its own colours, the "
    "rest dimmed. Outline: only a line around what is above the threshold"
)
_SWATCH = QSize(24, 12)


class LookControls(QWidget):
    """Two rows of controls, valid for all maps of the viewer.

    Parameters
    ----------
    context : SimilarityContext
        Query, maps and shortcuts of the viewer.
    """

    def __init__(self, context: SimilarityContext) -> None:
        super().__init__()
        self._context = context
        self._look = look = context.session.layers.look
        self.switch = QToggleSwitch("Map")
        self.switch.setToolTip(with_key("Show or hide the map", "map"))
        self.switch.clicked.connect(look.use_visible)
        self.style_list = narrow(QComboBox())
        for style, label in STYLES.items():
            self.style_list.addItem(label, style)
        self.style_list.setAccessibleName("Style of the map")
        self.style_list.setToolTip(_STYLE_TIP)
        self.style_list.activated.connect(
            lambda _: look.use_style(self.style_list.currentData())
        )
        self.colours = narrow(QComboBox())
        self.colours.setIconSize(_SWATCH)
        for name in COLORMAPS:
            self.colours.addItem(_swatch(name), name.capitalize(), name)
        self.colours.setAccessibleName("Colours of the map")
        self.colours.activated.connect(
            lambda _: look.use_colormap(self.colours.currentData())
        )
        self.opacity = QSlider(Qt.Orientation.Horizontal)
        self.opacity.setRange(0, 100)
        self.opacity.setPageStep(10)
        self.opacity.setAccessibleName("Opacity of the map")
        self.opacity.setMinimumWidth(60)
        self.opacity.valueChanged.connect(lambda value: look.use_opacity(value / 100))
        self.smooth = QCheckBox("Smooth")
        self.smooth.setToolTip("Interpolate between the centres of patches")
        self.smooth.clicked.connect(look.use_smooth)
        self.finer = QPushButton("Fi&ner")
        self.finer.setToolTip(
            "Compute features at half a patch's step for what the canvas shows, and "
            "paint the map finer there"
        )
        self.finer.clicked.connect(lambda: context.finer.refine())
        for field in (self.style_list, self.colours):
            # Together with the switch they fit a dock of 320 px.
            field.setMinimumContentsLength(3)
            field.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            field.setMinimumWidth(70)
        self._lay_out()
        connect_deferred(
            self.refresh,
            look.changed,
            context.query_changed,
            context.session.slide_changed,
        )
        self.refresh()

    def _lay_out(self) -> None:
        first = QHBoxLayout()
        first.addWidget(self.switch)
        # The colours have a swatch beside their name.
        first.addWidget(self.style_list, 5)
        first.addWidget(self.colours, 6)
        second = QHBoxLayout()
        title = QLabel("Opacity")
        title.setBuddy(self.opacity)
        second.addWidget(title)
        second.addWidget(self.opacity, 1)
        second.addWidget(self.smooth)
        second.addWidget(self.finer)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        column.addLayout(first)
        column.addLayout(second)

    def refresh(self) -> None:
        """Show the look, and whether the map is visible."""
        look = self._look
        self.switch.setChecked(look.visible)
        self.style_list.setCurrentIndex(self.style_list.findData(look.style))
        if self.colours.findData(look.colormap) < 0:
            name = look.colormap
            self.colours.addItem(_swatch(name), name.capitalize(), name)
        self.colours.setCurrentIndex(self.colours.findData(look.colormap))
        self.opacity.blockSignals(True)
        self.opacity.setValue(round(look.opacity * 100))
        self.opacity.blockSignals(False)
        self.opacity.setToolTip(f"Opacity of the map, now {look.opacity:.0%}")
        self.smooth.setChecked(look.smooth)
        overlay = look.style == "overlay"
        set_enabled_with_reason(
            self.colours,
            "Colours of similarity maps; what is dissimilar fades out",
            "" if overlay else f"the style {look.style} has no colours",
        )


def _swatch(name: str) -> QIcon:
    """Draw a colour map as it is seen on a white slide."""
    colours = np.asarray(faded(name).map(np.linspace(0, 1, _SWATCH.width())))
    pixels = np.ascontiguousarray(np.rint(colours * 255), np.uint8)
    strip = QImage(
        pixels.tobytes(), len(pixels), 1, 4 * len(pixels), QImage.Format.Format_RGBA8888
    )
    pixmap = QPixmap(_SWATCH)
    pixmap.fill(Qt.GlobalColor.white)
    painter = QPainter(pixmap)
    painter.drawImage(pixmap.rect(), strip)
    painter.end()
    return QIcon(pixmap)
