"""Show the reconstruction that refreshes while a masked autoencoder trains."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtGui import QImage
from qtpy.QtWidgets import QGridLayout, QLabel, QVBoxLayout, QWidget

from napari_mcm.viewer.mae.live_preview import TrainingPreview
from napari_mcm.viewer.mae.reconstruction import (
    FILLED,
    MASKED,
    ORIGINAL,
    ReconstructedImage,
)
from napari_mcm.viewer.qt.helpers import connect, note
from napari_mcm.viewer.qt.thumbnail_strip import image_of
from napari_mcm.viewer.training.run_images import Picture


class ReconstructionView(QWidget):
    """Show three pictures side by side, and the errors below."""

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
        self.show_image(None)

    def show_image(self, image: ReconstructedImage | None) -> None:
        """Show a reconstruction, or none."""
        self.setVisible(image is not None)
        if image is None:
            return
        for name, pixels in image.pictures.items():
            self.pictures[name].show_image(_large(image_of(pixels)))
        self.text.setText(image.describe())


class LivePreviewPanel(QWidget):
    """Show the reconstruction that refreshes while the training runs.

    Parameters
    ----------
    preview : TrainingPreview
        Makes the reconstruction.
    """

    def __init__(self, preview: TrainingPreview) -> None:
        super().__init__()
        self._preview = preview
        self.pictures = ReconstructionView()
        self.about = note()
        column = QVBoxLayout(self)
        column.setContentsMargins(4, 0, 0, 0)
        column.addWidget(self.pictures)
        column.addWidget(self.about)
        connect(preview.changed, self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show the newest reconstruction."""
        image = self._preview.image
        self.pictures.show_image(image)
        self.about.setText(
            "A reconstruction appears with the first checkpoint (Reading and saving: "
            "checkpoint seconds), and refreshes with each."
            if image is None
            else "From the last checkpoint of the training shown above."
        )


def _large(image: QImage) -> QImage:
    """Enlarge a small image so that its patches can be seen."""
    least = 160
    return image if image.width() >= least else image.scaled(least, least)
