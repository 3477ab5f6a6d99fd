"""Properties of the active slide, its warnings, and its label and macro images."""

from __future__ import annotations

from functools import partial

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import (
    QFormLayout,
    QGroupBox,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_mcm.core.errors import McmError
from napari_mcm.core.grid import GridConfig, common_mpp
from napari_mcm.core.slides import Slide
from napari_mcm.core.slides.tiles import Pixels
from napari_mcm.viewer.app.session import Session
from napari_mcm.viewer.layers.metadata import slide_of
from napari_mcm.viewer.qt.helpers import connect, note

ROWS = ("Size", "Resolution", "Objective", "Vendor", "Levels", "Read with", "Patches")

UNKNOWN = "not stated"


class PropertiesPanel(QGroupBox):
    """The box with the properties of the slide, its patches and its warnings.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    """

    def __init__(self, session: Session) -> None:
        super().__init__("Properties")
        self._session = session
        self.rows = {row: note() for row in ROWS}
        self.warnings = note()
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.setVerticalSpacing(3)
        for row, value in self.rows.items():
            value.setTextInteractionFlags(
                Qt.TextInteractionFlag.TextSelectableByMouse
                | Qt.TextInteractionFlag.TextSelectableByKeyboard
            )
            value.setAccessibleName(row)
            label = QLabel(row)
            label.setAlignment(Qt.AlignmentFlag.AlignTop)
            form.addRow(label, value)
        self._table = QWidget()
        self._table.setLayout(form)
        column = QVBoxLayout(self)
        column.addWidget(self._table)
        column.addWidget(self.warnings)
        connect(session.slide_changed, self.refresh)
        connect(session.patches_changed, self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show the properties of the active slide."""
        slide = slide_of(self._session.slide)
        self.setVisible(slide is not None)
        if slide is None:
            return
        values = (
            size(slide),
            resolution(slide),
            objective(slide),
            vendor(slide),
            levels(slide),
            slide.backend,
            reading(slide, self._session.patches),
        )
        for row, value in zip(ROWS, values, strict=True):
            self.rows[row].setText(value)
        self.rows["Levels"].setToolTip(
            "\n".join(f"{w:,} × {h:,} px" for w, h in (v.size for v in slide.levels))
        )
        lines = [f"Warning: {line}" for line in slide.warnings]
        self.warnings.setText("\n".join(lines))
        self.warnings.setVisible(bool(lines))


def size(slide: Slide) -> str:
    """Return the size of a slide as text, in pixels and millimetres."""
    width, height = slide.size
    text = f"{width:,} × {height:,} px"
    if (mpp := slide.stated_mpp) is None:
        return text
    return f"{text}\n{width * mpp[0] / 1000:.3g} × {height * mpp[1] / 1000:.3g} mm"


def resolution(slide: Slide) -> str:
    """Return the resolution of a slide in µm/px as text, and where it comes from."""
    if (mpp := slide.stated_mpp) is None:
        return UNKNOWN
    source = "entered by you" if slide.mpp_override else "from the file"
    numbers = dict.fromkeys(f"{value:.4g}" for value in mpp)
    return f"{' × '.join(numbers)} µm/px, {source}"


def objective(slide: Slide) -> str:
    """Return the magnification of the objective as text."""
    power = slide.properties.get("objective", "")
    return f"{power}×" if power else UNKNOWN


def vendor(slide: Slide) -> str:
    """Return vendor and model of the scanner as text."""
    named = (slide.properties.get(key, "") for key in ("vendor", "model"))
    known = [name for name in named if name and name.lower() != "unknown"]
    return ", ".join(dict.fromkeys(known)) or UNKNOWN


def levels(slide: Slide) -> str:
    """Return the number of pyramid levels and their downsampling factors as text."""
    stored = sum(level.stored for level in slide.levels)
    factors = ", ".join(f"{level.downsample[0]:.3g}×" for level in slide.levels)
    made = len(slide.levels) - stored
    return f"{stored}{f' and {made} made' if made else ''} ({factors})"


def reading(slide: Slide, patches: GridConfig) -> str:
    """Return from which level patches are read and how they are resampled, as text.

    Parameters
    ----------
    slide : Slide
        An open slide.
    patches : GridConfig
        Resolution of patches.
    """
    if slide.stated_mpp is None:
        return UNKNOWN
    try:
        mpp = common_mpp([slide], patches)
    except McmError as error:
        return f"none: {getattr(error, 'what', error)}"
    plan = slide.plan(mpp)
    how = "as stored" if plan.exact else f"shrunk {plan.factor[0]:.4g}×"
    if plan.factor[0] < 1:
        how = f"enlarged {1 / plan.factor[0]:.4g}×"
    return f"{mpp:.4g} µm/px: level {plan.level}, {how}"


SIDE = 260
"""Largest side of an image in pixels."""

# Two lines, because a button is at least as wide as its text.
SHOW = "Show l&abel and macro\n(may show a patient's name)"

HIDE = "Hide l&abel and macro"


class LabelImages(QWidget):
    """A button that shows or hides the label and macro images of the slide.

    Images are read only on request, because they may show a patient's name, and hidden
    when another slide becomes active.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._slide: Slide | None = None
        self.button = QPushButton(SHOW)
        self.button.setCheckable(True)
        self.button.setToolTip(
            "Read now and shown only here; they are neither saved nor added as layers"
        )
        self.button.toggled.connect(self._toggled)
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.addWidget(self.button)
        self.labels: list[QLabel] = []
        connect(session.slide_changed, self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Hide the images if another slide is active."""
        slide = slide_of(self._session.slide)
        if slide is not self._slide or slide is None:
            self.button.setChecked(False)
            self._slide = slide
        self.setVisible(slide is not None and bool(_names(slide)))

    def _toggled(self, on: bool) -> None:
        self.button.setText(HIDE if on else SHOW)
        slide = self._slide
        if not on or slide is None:
            self._clear()
            return
        for name in _names(slide):
            self._session.disk.submit(
                f"image {name}",
                partial(_shrunk, slide, name),
                partial(self._show, slide, name),
                self._session.report_error,
            )

    def _show(self, slide: Slide, name: str, pixels: Pixels) -> None:
        if slide is not self._slide or not self.button.isChecked():
            return
        height, width = pixels.shape[:2]
        image = QImage(
            pixels.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888
        )
        label = QLabel()
        label.setPixmap(QPixmap.fromImage(image))
        label.setToolTip(name)
        label.setAccessibleName(f"{name} image of the slide")
        label.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.labels.append(label)
        self._column.addWidget(label)

    def _clear(self) -> None:
        for label in self.labels:
            self._column.removeWidget(label)
            label.deleteLater()
        self.labels.clear()


def _names(slide: Slide) -> list[str]:
    """Return the names of the images to show; the thumbnail only repeats the slide."""
    return [name for name in slide.associated if name != "thumbnail"]


def _shrunk(slide: Slide, name: str) -> Pixels:
    """Read an image, and shrink it to the width of the dock."""
    from PIL import Image

    image = Image.fromarray(slide.associated_image(name))
    image.thumbnail((SIDE, SIDE))
    return np.asarray(image)
