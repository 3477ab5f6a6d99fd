"""Show a reconstruction that refreshes while a masked autoencoder trains."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal
from qtpy.QtCore import Qt
from qtpy.QtGui import QImage
from qtpy.QtWidgets import QGridLayout, QLabel, QVBoxLayout, QWidget

from napari_mcm.core.encoders.compute import ComputeConfig
from napari_mcm.viewer.app.background import Background
from napari_mcm.viewer.mae.reconstruction import (
    FILLED,
    MASKED,
    ORIGINAL,
    ReconstructedImage,
    ReconstructionModelCache,
    ReconstructionOptions,
    Source,
    first_image,
    has_weights,
)
from napari_mcm.viewer.qt.helpers import connect, note
from napari_mcm.viewer.qt.thumbnail_strip import image_of
from napari_mcm.viewer.training.run_images import Picture

if TYPE_CHECKING:
    from napari_mcm.core.mae.config import PretrainConfig
    from napari_mcm.viewer.mae.controller import PretrainController


EVERY_S = 3.0
"""Seconds between two checks for a new checkpoint."""


class TrainingPreview:
    """Reconstruct an image with the newest checkpoint, in a thread.

    The training does not wait for it: only files are read.

    Parameters
    ----------
    controller : PretrainController
        Has the folder of the training.

    Attributes
    ----------
    changed : Signal
        There is another reconstruction, or none.
    look : ReconstructedImage or None
        The newest reconstruction.
    """

    changed = Signal()

    def __init__(self, controller: PretrainController) -> None:
        self._controller = controller
        self.background = Background("training preview")
        # On the CPU: the training needs the GPU.
        self._looker = ReconstructionModelCache(
            ComputeConfig(device="cpu", precision="float32")
        )
        self._image: tuple[Path, Source] | None = None
        self.look: ReconstructedImage | None = None
        self._made: ReconstructedImage | None = None
        self._of: Path | None = None
        self._looked = 0.0
        controller.series_changed.connect(self._stepped)
        controller.run_changed.connect(self._ended)

    def _stepped(self) -> None:
        if time.monotonic() - self._looked > EVERY_S:
            self.refresh()

    def _ended(self) -> None:
        if self._of != self._controller.folder:
            self._of, self.look = self._controller.folder, None
            self.changed.emit()
        self.refresh()

    def refresh(self) -> None:
        """Reconstruct again, in the background, where there are new weights."""
        folder, self._looked = self._controller.folder, time.monotonic()
        if folder is not None:
            self.background.submit(
                "look", lambda: self._work(folder), self._take, lambda _: None
            )

    def _work(self, folder: Path) -> ReconstructedImage | None:
        """Reconstruct, in the thread; None where nothing is saved."""
        if not has_weights(folder):
            return None
        if not self._looker.is_known(folder):
            self._made = None
            self._made = self._looker.look(
                folder, lambda c: self._read(folder, c), ReconstructionOptions()
            )
        # Return an earlier one, too: newer work may have replaced its delivery.
        return self._made

    def _read(self, folder: Path, config: PretrainConfig) -> Source:
        if self._image is None or self._image[0] != folder:
            self._image = folder, first_image(config)
        return self._image[1]

    def _take(self, look: ReconstructedImage | None) -> None:
        if look is not None and look is not self.look:
            self.look = look
            self.changed.emit()


class LookPictures(QWidget):
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
        self.show_look(None)

    def show_look(self, look: ReconstructedImage | None) -> None:
        """Show a reconstruction, or none."""
        self.setVisible(look is not None)
        if look is None:
            return
        for name, pixels in look.pictures.items():
            self.pictures[name].show_image(_large(image_of(pixels)))
        self.text.setText(look.describe())


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
        self.pictures = LookPictures()
        self.about = note()
        column = QVBoxLayout(self)
        column.setContentsMargins(4, 0, 0, 0)
        column.addWidget(self.pictures)
        column.addWidget(self.about)
        connect(preview.changed, self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show the newest reconstruction."""
        look = self._preview.look
        self.pictures.show_look(look)
        self.about.setText(
            "A reconstruction appears with the first checkpoint (Reading and saving: "
            "checkpoint seconds), and refreshes with each."
            if look is None
            else "From the last checkpoint of the training shown above."
        )


def _large(image: QImage) -> QImage:
    """Enlarge a small image so that its patches can be seen."""
    least = 160
    return image if image.width() >= least else image.scaled(least, least)
