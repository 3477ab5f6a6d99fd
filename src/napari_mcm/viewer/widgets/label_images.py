"""Label and macro images, which may name a patient: shown only when asked for."""

from __future__ import annotations

from functools import partial

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QLabel, QPushButton, QVBoxLayout, QWidget

from napari_mcm.core.slides import Slide
from napari_mcm.core.slides.tiles import Pixels
from napari_mcm.viewer.session import Session
from napari_mcm.viewer.slide_facts import slide_of
from napari_mcm.viewer.widgets.parts import follow

SIDE = 260
# In two lines: a button is never narrower than its text.
SHOW = "Show l&abel and macro\n(may show a patient's name)"
HIDE = "Hide l&abel and macro"


class LabelImages(QWidget):
    """A button, and what it shows until it is pressed again or the slide changes.

    Parameters
    ----------
    session : Session
        Of the viewer.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._slide: Slide | None = None
        self.button = QPushButton(SHOW)
        self.button.setCheckable(True)
        self.button.setToolTip(
            "They are read now, shown here only, and neither kept nor added as layers"
        )
        self.button.toggled.connect(self._toggled)
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.addWidget(self.button)
        self.pictures: list[QLabel] = []
        follow(session.slide_changed, self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Take the images of another slide away."""
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
                self._session.complain,
            )

    def _show(self, slide: Slide, name: str, pixels: Pixels) -> None:
        if slide is not self._slide or not self.button.isChecked():
            return
        height, width = pixels.shape[:2]
        image = QImage(
            pixels.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888
        )
        picture = QLabel()
        picture.setPixmap(QPixmap.fromImage(image))
        picture.setToolTip(name)
        picture.setAccessibleName(f"{name} image of the slide")
        picture.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.pictures.append(picture)
        self._column.addWidget(picture)

    def _clear(self) -> None:
        for picture in self.pictures:
            self._column.removeWidget(picture)
            picture.deleteLater()
        self.pictures.clear()


def _names(slide: Slide) -> list[str]:
    """Leave the thumbnail out: it shows what the slide itself does."""
    return [name for name in slide.associated if name != "thumbnail"]


def _shrunk(slide: Slide, name: str) -> Pixels:
    """Read an image, no larger than the dock is wide."""
    from PIL import Image

    image = Image.fromarray(slide.associated_image(name))
    image.thumbnail((SIDE, SIDE))
    return np.asarray(image)
