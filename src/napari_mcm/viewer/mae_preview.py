"""A reconstruction that refreshes while a masked autoencoder is trained."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_mcm.core.encoders.compute import ComputeConfig
from napari_mcm.viewer.background import Background
from napari_mcm.viewer.mae_looks import (
    Asked,
    Look,
    Looker,
    Source,
    first_image,
    has_weights,
)

if TYPE_CHECKING:
    from napari_mcm.core.mae.config import PretrainConfig
    from napari_mcm.viewer.mae_desk import PretrainDesk

EVERY_S = 3.0
"""Seconds after which it is looked whether there is a new checkpoint."""


class TrainingPreview:
    """Looks at the newest checkpoint of the present pre-training, in its own thread.

    The training is not asked, and not waited for: what it has saved is read.

    Parameters
    ----------
    desk : PretrainDesk
        Whose training.

    Attributes
    ----------
    changed : Signal
        There is another reconstruction, or none.
    look : Look or None
        The newest one.
    """

    changed = Signal()

    def __init__(self, desk: PretrainDesk) -> None:
        self._desk = desk
        self.background = Background()
        # On the processor: a graphics card belongs to the training.
        self._looker = Looker(ComputeConfig(device="cpu", precision="float32"))
        self._image: tuple[Path, Source] | None = None
        self.look: Look | None = None
        self._made: Look | None = None
        self._of: Path | None = None
        self._looked = 0.0
        desk.series_changed.connect(self._stepped)
        desk.run_changed.connect(self._ended)

    def _stepped(self) -> None:
        if time.monotonic() - self._looked > EVERY_S:
            self.refresh()

    def _ended(self) -> None:
        if self._of != self._desk.folder:
            self._of, self.look = self._desk.folder, None
            self.changed.emit()
        self.refresh()

    def refresh(self) -> None:
        """Look again, in the background."""
        folder, self._looked = self._desk.folder, time.monotonic()
        if folder is not None:
            self.background.submit(
                "look", lambda: self._work(folder), self._take, lambda _: None
            )

    def _work(self, folder: Path) -> Look | None:
        """Look in the thread; None where nothing is saved."""
        if not has_weights(folder):
            return None
        if not self._looker.is_known(folder):
            self._made = None
            self._made = self._looker.look(
                folder, lambda c: self._read(folder, c), Asked()
            )
        # Also what was made before: it may not have been taken, as this was asked for.
        return self._made

    def _read(self, folder: Path, config: PretrainConfig) -> Source:
        if self._image is None or self._image[0] != folder:
            self._image = folder, first_image(config)
        return self._image[1]

    def _take(self, look: Look | None) -> None:
        if look is not None and look is not self.look:
            self.look = look
            self.changed.emit()
