"""Reconstruct an image again and again while a masked autoencoder trains."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_mcm.core.encoders.compute import ComputeConfig
from napari_mcm.viewer.app.background import BackgroundWorker
from napari_mcm.viewer.mae.reconstruction import (
    ReconstructedImage,
    ReconstructionModelCache,
    ReconstructionOptions,
    Source,
    first_image,
    has_weights,
)

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
    image : ReconstructedImage or None
        The newest reconstruction.
    """

    changed = Signal()

    def __init__(self, controller: PretrainController) -> None:
        self._controller = controller
        self.background = BackgroundWorker("training preview")
        # On the CPU: the training needs the GPU.
        self._models = ReconstructionModelCache(
            ComputeConfig(device="cpu", precision="float32")
        )
        self._image: tuple[Path, Source] | None = None
        self.image: ReconstructedImage | None = None
        self._reconstructed: ReconstructedImage | None = None
        self._of: Path | None = None
        self._checked_at = 0.0
        controller.series_changed.connect(self._stepped)
        controller.run_changed.connect(self._ended)

    def _stepped(self) -> None:
        if time.monotonic() - self._checked_at > EVERY_S:
            self.refresh()

    def _ended(self) -> None:
        if self._of != self._controller.folder:
            self._of, self.image = self._controller.folder, None
            self.changed.emit()
        self.refresh()

    def refresh(self) -> None:
        """Reconstruct again, in the background, where there are new weights."""
        folder, self._checked_at = self._controller.folder, time.monotonic()
        if folder is not None:
            self.background.submit(
                "reconstruct", lambda: self._work(folder), self._take, lambda _: None
            )

    def _work(self, folder: Path) -> ReconstructedImage | None:
        """Reconstruct, in the thread; None where nothing is saved."""
        if not has_weights(folder):
            return None
        if not self._models.is_known(folder):
            self._reconstructed = None
            self._reconstructed = self._models.reconstruct(
                folder, lambda c: self._read(folder, c), ReconstructionOptions()
            )
        # Return an earlier one, too: newer work may have replaced its delivery.
        return self._reconstructed

    def _read(self, folder: Path, config: PretrainConfig) -> Source:
        if self._image is None or self._image[0] != folder:
            self._image = folder, first_image(config)
        return self._image[1]

    def _take(self, image: ReconstructedImage | None) -> None:
        if image is not None and image is not self.image:
            self.image = image
            self.changed.emit()
