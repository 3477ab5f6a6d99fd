"""Reconstructions of a picture, or of the slide where it is clicked."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_mcm.viewer.app.background import Background
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
    """Asks a trained run to fill in an image, and draws what comes of it.

    Parameters
    ----------
    session : Session
        Of the viewer.

    Attributes
    ----------
    changed : Signal
        Another image is filled in, or the work has begun or failed.
    look : Look or None
        The newest one.
    busy : bool
        Whether one is worked out.
    place : tuple of float or None
        Where the slide was clicked last (x, y), in level-0 pixels.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        self.session = session
        self.background, self._compute = Background(), preferences().compute
        self._looker = ReconstructionModelCache(self._compute)
        self.look: ReconstructedImage | None = None
        self.busy = False
        self.asked = ReconstructionOptions(0.75)
        self.folder: Path | None = None
        self.draws = True
        self._read: Read | None = None
        self._slide: Layer | None = None
        self.place: tuple[float, float] | None = None
        self._clicks = ClickListener(
            session.viewer,
            lambda: session.slide,
            lambda x, y, manner: self.look_at_place(x, y),
            lambda x, y: None,
        )

    def listen(self, on: bool) -> None:
        """Begin or end to look where the slide is clicked."""
        if on:
            self._clicks.attach()
        else:
            self._clicks.detach()

    def use_run(self, folder: Path | None) -> None:
        """Choose the pre-training that is asked."""
        if folder != self.folder:
            self.folder = folder
            self.changed.emit()

    def ask(self, **changes: object) -> None:
        """Choose otherwise how images are looked at; the present one is done again."""
        asked = replace(self.asked, **changes)  # type: ignore[arg-type]
        if asked != self.asked:
            self.asked = asked
            if self.look is not None or self.busy:
                self.again()

    def draw(self, on: bool) -> None:
        """Choose whether pictures are shown as layers, too."""
        self.draws = on
        if on and self.look is not None:
            self._draw(self.look)

    def look_at_picture(self, path: Path) -> None:
        """Fill in a picture."""
        self._slide, self._read = None, partial(read_picture_file, path)
        self.place = None
        self.again()

    def look_at_place(self, x: float, y: float) -> None:
        """Fill in the patch around a place of the present slide (level-0 pixels)."""
        layer = self.session.slide
        metadata, slide = self.session.metadata, slide_of(layer)
        if metadata is None or slide is None:
            self.session.report_error("No slide is open")
            return
        if metadata.mpp is None:
            self.session.report_error("The slide's resolution is not known: give it")
            return
        self._slide, self.place = layer, (x, y)
        self._read = read_place(slide, x, y)
        self.again()

    def again(self) -> None:
        """Do the present image again."""
        folder, read, asked = self.folder, self._read, self.asked
        if folder is None or read is None:
            self.session.report_error("No run of a pre-training is chosen")
            return
        self.busy = True
        self.changed.emit()
        looker = self._look_as_preferred()
        self.background.submit(
            "look",
            lambda: looker.look(folder, read, asked),
            self._take,
            self._failed,
        )

    def _look_as_preferred(self) -> ReconstructionModelCache:
        compute = preferences().compute
        if compute != self._compute:
            self._compute, self._looker = compute, ReconstructionModelCache(compute)
        return self._looker

    def _take(self, look: ReconstructedImage) -> None:
        self.look, self.busy = look, False
        if self.draws:
            self._draw(look)
        status = self.session.jobs.status
        if status.state is JobState.DONE:
            # Below it would still stand how the training before it ended.
            status.message = f"Filled in: {look.source.name}"
        self.changed.emit()

    def _failed(self, problem: str) -> None:
        self.busy = False
        self.session.report_error(problem)
        self.changed.emit()

    def _draw(self, look: ReconstructedImage) -> None:
        on_slide = look.source.corner is not None
        if on_slide and self._slide not in self.session.layers.slides():
            return
        slide = self._slide if on_slide else None
        # On a slide they lie over each other: the reconstruction is what is seen.
        seen = (not on_slide, not on_slide, True)
        self.session.layers.show_pictures(slide, look.overlays(), seen)
