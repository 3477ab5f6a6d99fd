"""Reconstruct a picture, or the slide where it is clicked."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_mcm.viewer.app.background import BackgroundWorker
from napari_mcm.viewer.app.jobs import JobState
from napari_mcm.viewer.app.settings import preferences
from napari_mcm.viewer.layers.metadata import slide_of
from napari_mcm.viewer.layers.mouse import ClickListener
from napari_mcm.viewer.mae.reconstruction import (
    Read,
    ReconstructedImage,
    ReconstructionModelCache,
    ReconstructionOptions,
    read_picture_file,
    read_place,
)

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.viewer.app.session import Session


class ReconstructController:
    """Reconstruct masked images with a run, and draw the results.

    Parameters
    ----------
    session : Session
        Session of the viewer.

    Attributes
    ----------
    changed : Signal
        There is another reconstruction, or the work has started or failed.
    image : ReconstructedImage or None
        The newest reconstruction.
    busy : bool
        Whether a reconstruction is being computed.
    place : tuple of float or None
        The last click (x, y) on the slide, in level-0 pixels.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        self.session = session
        self.background, self._compute = (
            BackgroundWorker("reconstruct"),
            preferences().compute,
        )
        self._models = ReconstructionModelCache(self._compute)
        self.image: ReconstructedImage | None = None
        self.busy = False
        self.options = ReconstructionOptions(0.75)
        self.folder: Path | None = None
        self.draws = True
        self._read: Read | None = None
        self._slide: Layer | None = None
        self.place: tuple[float, float] | None = None
        self._clicks = ClickListener(
            session.viewer,
            session.slide_at,
            lambda x, y, manner: self.reconstruct_place(x, y),
            lambda x, y: None,
            choose=session.choose_slide,
        )

    def listen(self, on: bool) -> None:
        """Start or stop listening to clicks on the slide."""
        if on:
            self._clicks.attach()
        else:
            self._clicks.detach()

    def use_run(self, folder: Path | None) -> None:
        """Choose the run that reconstructs."""
        if folder != self.folder:
            self.folder = folder
            self.changed.emit()

    def ask(self, **changes: Any) -> None:
        """Change options, and reconstruct the current image again."""
        options = replace(self.options, **changes)
        if options != self.options:
            self.options = options
            if self.image is not None or self.busy:
                self.again()

    def draw(self, on: bool) -> None:
        """Choose whether pictures are also shown as layers."""
        self.draws = on
        if on and self.image is not None:
            self._draw(self.image)

    def reconstruct_picture(self, path: Path) -> None:
        """Reconstruct a picture."""
        self._slide, self._read = None, partial(read_picture_file, path)
        self.place = None
        self.again()

    def reconstruct_place(self, x: float, y: float) -> None:
        """Reconstruct the patch around a place (level-0 pixels) of the open slide."""
        layer = self.session.slide
        metadata, slide = self.session.metadata, slide_of(layer)
        if metadata is None or slide is None:
            self.session.report_error("No slide is open")
            return
        if metadata.mpp is None:
            self.session.report_error("The slide's resolution is unknown: enter it")
            return
        self._slide, self.place = layer, (x, y)
        self._read = read_place(slide, x, y)
        self.again()

    def again(self) -> None:
        """Reconstruct the current image again."""
        folder, read, options = self.folder, self._read, self.options
        if folder is None or read is None:
            self.session.report_error("No run of a pre-training is chosen")
            return
        self.busy = True
        self.changed.emit()
        models = self._preferred_models()
        self.background.submit(
            "reconstruct",
            lambda: models.reconstruct(folder, read, options),
            self._take,
            self._failed,
        )

    def _preferred_models(self) -> ReconstructionModelCache:
        compute = preferences().compute
        if compute != self._compute:
            self._compute, self._models = compute, ReconstructionModelCache(compute)
        return self._models

    def _take(self, image: ReconstructedImage) -> None:
        self.image, self.busy = image, False
        if self.draws:
            self._draw(image)
        status = self.session.jobs.status
        if status.state is JobState.DONE:
            # Otherwise the status line would still show the end of the training.
            status.message = f"Reconstructed: {image.source.name}"
        self.changed.emit()

    def _failed(self, problem: str) -> None:
        self.busy = False
        self.session.report_error(problem)
        self.changed.emit()

    def _draw(self, image: ReconstructedImage) -> None:
        on_slide = image.source.corner is not None
        if on_slide and self._slide not in self.session.layers.slides():
            return
        slide = self._slide if on_slide else None
        # On a slide they lie over each other: the reconstruction is what is seen.
        seen = (not on_slide, not on_slide, True)
        self.session.layers.show_images(slide, image.overlays(), seen)
