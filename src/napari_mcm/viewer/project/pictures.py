"""Thumbnails of a project's slides, read only for those that are seen."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from psygnal import Signal

from napari_mcm.core.errors import McmError
from napari_mcm.core.project import ProjectSlide, find_existing, thumbnail_of
from napari_mcm.core.runtime.files import atomic_path
from napari_mcm.viewer.app.background import BackgroundWorker
from napari_mcm.viewer.project.controller import ProjectController

if TYPE_CHECKING:
    from napari_mcm.core.slides.tiles import Pixels

SIDE_PX = 96
"""Longer side of a thumbnail in pixels."""
_MOST_KEPT, _MOST_WAITING, _MOST_BYTES = 400, 40, 2**20


@dataclass(frozen=True, eq=False)
class Picture:
    """A thumbnail that was looked for.

    Attributes
    ----------
    pixels : ndarray of uint8, shape (height, width, 3), or None
        RGB; None where the slide cannot be read.
    is_missing : bool
        Whether the slide's file was not found.
    """

    pixels: Pixels | None
    is_missing: bool


class SlidePictures:
    """Thumbnails of slides: from a folder beside the project, or read from the slides.

    Parameters
    ----------
    project : ProjectController
        The project.

    Attributes
    ----------
    arrived : Signal
        Emitted with the key of a slide whose thumbnail can be shown.
    """

    arrived = Signal(str)

    def __init__(self, project: ProjectController) -> None:
        self._project = project
        self._worker = BackgroundWorker("thumbnails")
        self._kept: OrderedDict[str, Picture] = OrderedDict()
        self._waiting: OrderedDict[str, ProjectSlide] = OrderedDict()
        self._running = ""

    def picture(self, slide: ProjectSlide) -> Picture | None:
        """Return the thumbnail of a slide; None until it was read in the background.

        Parameters
        ----------
        slide : ProjectSlide
            A slide of the project.
        """
        key = self._project.key_of(slide)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        # Of a list that is scrolled quickly, those that were seen last come first.
        self._waiting[key] = slide
        self._waiting.move_to_end(key)
        while len(self._waiting) > _MOST_WAITING:
            self._waiting.popitem(last=False)
        self._read_next()
        return None

    def forget(self, keys: set[str] | None = None) -> None:
        """Read thumbnails again when they are next seen: of some slides, or all."""
        for key in list(self._kept) if keys is None else keys:
            self._kept.pop(key, None)

    def _read_next(self) -> None:
        if self._running or not self._waiting:
            return
        key, slide = self._waiting.popitem()
        self._running = key
        project = self._project
        self._worker.submit(
            "thumbnail",
            partial(read_picture, slide, project.path, project.project.folders),
            partial(self._take, key),
            lambda _: self._take(key, Picture(None, False)),
        )

    def _take(self, key: str, picture: Picture) -> None:
        self._running = ""
        self._kept[key] = picture
        while len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)
        self._project.mark_missing(key, picture.is_missing)
        self.arrived.emit(key)
        self._read_next()


def read_picture(
    slide: ProjectSlide, project: Path | None, folders: tuple[str, ...]
) -> Picture:
    """Read the thumbnail of a slide, and keep it beside the project.

    Parameters
    ----------
    slide : ProjectSlide
        The slide.
    project : Path or None
        The project file; None to keep nothing.
    folders : tuple of str
        Where other slides of the project were found.
    """
    path = find_existing(slide, project or Path("unnamed"), folders)
    kept = None
    if project is not None and slide.fingerprint:
        kept = thumbnail_of(project, slide.fingerprint)
    pixels = _read(kept)
    if pixels is None and path is not None:
        pixels = _shrink(path, slide.mpp)
        if kept is not None and pixels is not None:
            _keep(kept, pixels)
    return Picture(pixels, path is None)


def _read(kept: Path | None) -> Pixels | None:
    from PIL import Image

    if kept is None:
        return None
    try:
        if kept.stat().st_size > _MOST_BYTES:
            return None
        with Image.open(kept, formats=("PNG",)) as image:
            if max(image.size) > 4 * SIDE_PX:
                return None
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError):
        return None


def _shrink(path: Path, mpp: float | None) -> Pixels | None:
    from napari_mcm.core.slides import open_slide

    try:
        with open_slide(path, mpp) as slide:
            stated = slide.stated_mpp
            if stated is not None:
                return slide.thumbnail(0, SIDE_PX)[0]
        # Its size does not matter here.
        with open_slide(path, 1.0) as slide:
            return slide.thumbnail(0, SIDE_PX)[0]
    except McmError:
        return None


def _keep(kept: Path, pixels: Pixels) -> None:
    from PIL import Image

    # Beside a project in a read-only folder there are no thumbnails.
    with suppress(McmError, OSError), atomic_path(kept) as part:
        Image.fromarray(pixels).save(part, format="PNG")
