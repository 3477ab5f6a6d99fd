"""A reconstruction in the dock: original, masked, and what was filled in."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtGui import QImage
from qtpy.QtWidgets import QGridLayout, QLabel, QVBoxLayout, QWidget

from napari_mcm.viewer.mae_looks import FILLED, MASKED, ORIGINAL, Look
from napari_mcm.viewer.mae_preview import TrainingPreview
from napari_mcm.viewer.widgets.mil_picture import Picture
from napari_mcm.viewer.widgets.parts import follow, note
from napari_mcm.viewer.widgets.patch_strip import image_of


class LookPictures(QWidget):
    """Three pictures side by side, and the errors below."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures = {name: Picture() for name in (ORIGINAL, MASKED, FILLED)}
        self.text = note()
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        for column, (name, picture) in enumerate(self.pictures.items()):
            picture.setAccessibleName(name)
            picture.setToolTip(name)
            label = QLabel(name)
            label.setAlignment(Qt.AlignmentFlag.AlignCenter)
            grid.addWidget(picture, 0, column)
            grid.addWidget(label, 1, column)
            grid.setColumnStretch(column, 1)
        grid.addWidget(self.text, 2, 0, 1, len(self.pictures))
        self.show_look(None)

    def show_look(self, look: Look | None) -> None:
        """Show a reconstruction, or none."""
        self.setVisible(look is not None)
        if look is None:
            return
        for name, pixels in look.pictures.items():
            self.pictures[name].show_image(_large(image_of(pixels)))
        self.text.setText(look.describe())


class PreviewBox(QWidget):
    """The reconstruction that refreshes while the training runs.

    Parameters
    ----------
    preview : TrainingPreview
        Which makes it.
    """

    def __init__(self, preview: TrainingPreview) -> None:
        super().__init__()
        self._preview = preview
        self.pictures = LookPictures()
        self.about = note()
        column = QVBoxLayout(self)
        column.setContentsMargins(4, 0, 0, 0)
        column.addWidget(self.pictures)
        column.addWidget(self.about)
        follow(preview.changed, self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show the newest one."""
        look = self._preview.look
        self.pictures.show_look(look)
        self.about.setText(
            "A reconstruction appears with the first checkpoint (Reading and saving: "
            "checkpoint seconds), and is made anew with each."
            if look is None
            else "By the last checkpoint of the training that the curves are of."
        )


def _large(image: QImage) -> QImage:
    """Enlarge a small image so that its patches can be seen."""
    least = 160
    return image if image.width() >= least else image.scaled(least, least)
