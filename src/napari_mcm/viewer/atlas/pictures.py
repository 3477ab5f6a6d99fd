"""Pictures of patches of any slide of an atlas, open or not, read in the background."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from napari_mcm.core.errors import McmError
from napari_mcm.core.search import SlideMatch, find_slide
from napari_mcm.viewer.app.background import BackgroundWorker
from napari_mcm.viewer.layers.metadata import SlideMetadata, slide_of
from napari_mcm.viewer.layers.thumbnails import read_thumbnails
from napari_mcm.viewer.project.controller import project_of
from napari_mcm.viewer.project.memory import memory_of

if TYPE_CHECKING:
    from napari_mcm.core.atlas import AtlasSlide
    from napari_mcm.core.slides import Slide
    from napari_mcm.core.slides.tiles import Pixels
    from napari_mcm.viewer.app.session import Session

SIDE_PX = 144
"""Side of a picture in pixels: sharp also where the screen has two per point."""
_MOST_KEPT = 1024
"""Number of pictures that are kept."""
_AGAIN_S = 10.0
"""Seconds after which a missing slide is looked for again."""
_MOST_OPEN = 4
"""Number of slides that are kept open for pictures."""

Key = tuple[str, int]
"""Fingerprint of a slide, and row of its grid."""
Places = tuple[list[Path], list[Path]]
"""Where a slide was, and folders where it may be."""


class PatchPictures:
    """Reads pictures of patches, the newest wish first.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._worker = BackgroundWorker("atlas pictures")
        self._kept: OrderedDict[Key, Pixels | None] = OrderedDict()
        self._open: OrderedDict[str, Slide] = OrderedDict()
        self._paths: dict[str, Path] = {}
        self._missing: dict[str, tuple[float, McmError]] = {}

    def known(self, slide: AtlasSlide, row: int) -> tuple[bool, Pixels | None]:
        """Return whether a patch was read, and its picture; None if that failed."""
        key = (slide.fingerprint, row)
        return key in self._kept, self._kept.get(key)

    def read(
        self,
        wish: str,
        wanted: Sequence[tuple[AtlasSlide, int]],
        then: Callable[[], None],
        failed: Callable[[str], None],
    ) -> None:
        """Read pictures that are not known yet; a later call of one wish replaces this.

        Parameters
        ----------
        wish : str
            What the pictures are for.
        wanted : sequence of (AtlasSlide, int)
            Slides and rows.
        then : callable
            Called when they are known.
        failed : callable
            Called with a one-line message if a slide cannot be read.
        """
        unknown = [one for one in wanted if not self.known(*one)[0]]
        if not unknown:
            self._worker.drop(wish)
            then()
            return
        layers = self._open_layers()
        places = {slide.fingerprint: self._places(slide) for slide, _ in unknown}

        def arrived(found: dict[Key, Pixels | None]) -> None:
            self._kept.update(found)
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
            then()

        self._worker.follow(
            wish, partial(self._read, unknown, layers, places), arrived, failed
        )

    def close(self) -> None:
        """Close the slides that were opened for pictures."""
        # When the application ends, no thread starts any more.
        with suppress(RuntimeError):
            self._worker.submit("close", self._close, _ignore, _ignore)

    def find(self, slide: AtlasSlide) -> Path:
        """Return the file of a slide; takes a while, call it in a thread.

        Raises
        ------
        FeatureError
            If it is not found.
        """
        return self._find(slide, self._places(slide))

    def _open_layers(self) -> dict[str, Slide]:
        memory, found = memory_of(self._session), {}
        for layer in self._session.layers.slides():
            opened = slide_of(layer)
            if opened is not None and (mark := memory.fingerprint_of(layer)):
                found[mark] = opened
        return found

    def _places(self, slide: AtlasSlide) -> Places:
        """Return where a slide may be: its file or folder, and folders to search."""
        project = project_of(self._session).project
        at = project.index_of(slide.fingerprint)
        named = [] if at is None else [Path(project.slides[at].absolute)]
        facts = [
            SlideMetadata.of_layer(layer) for layer in self._session.layers.slides()
        ]
        folders = [Path(one.path).parent for one in facts if one is not None]
        others = [Path(one.absolute).parent for one in project.slides if one.absolute]
        return named, list(dict.fromkeys((*folders, *others)))

    def _find(self, slide: AtlasSlide, places: Places) -> Path:
        from napari_mcm.core.slides import open_slide

        named, folders = places
        for place in named:
            with suppress(McmError), open_slide(place) as opened:
                if opened.fingerprint == slide.fingerprint:
                    return place
        match = SlideMatch(slide.name, slide.fingerprint, slide.features, 0.0, 0.0, 0)
        return find_slide(match, folders)

    def _read(
        self,
        wanted: Sequence[tuple[AtlasSlide, int]],
        layers: dict[str, Slide],
        places: dict[str, Places],
    ) -> dict[Key, Pixels | None]:
        found: dict[Key, Pixels | None] = {}
        for mark in dict.fromkeys(slide.fingerprint for slide, _ in wanted):
            rows = [row for slide, row in wanted if slide.fingerprint == mark]
            one = next(slide for slide, _ in wanted if slide.fingerprint == mark)
            opened = layers.get(mark) or self._opened(one, places[mark])
            read = read_thumbnails(opened, one.grid, rows, [0.0] * len(rows), SIDE_PX)
            found |= {(mark, top.row): top.pixels for top in read}
        return found

    def _opened(self, slide: AtlasSlide, places: Places) -> Slide:
        from napari_mcm.core.slides import open_slide

        mark = slide.fingerprint
        if mark not in self._open:
            if mark not in self._paths:
                self._paths[mark] = self._look(slide, places)
            opened = open_slide(self._paths[mark])
            if opened.stated_mpp is None:
                opened.close()
                # What the user entered when the features were made.
                opened = open_slide(self._paths[mark], slide.grid.slide["mpp"][0])
            self._open[mark] = opened
            while len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(mark)
        return self._open[mark]

    def _look(self, slide: AtlasSlide, places: Places) -> Path:
        """Find the file of a slide; one that is missing is not looked for each time."""
        since, error = self._missing.get(slide.fingerprint, (-_AGAIN_S, None))
        if error is not None and time.monotonic() - since < _AGAIN_S:
            raise error
        try:
            return self._find(slide, places)
        except McmError as missing:
            self._missing[slide.fingerprint] = time.monotonic(), missing
            raise

    def _close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()


def _ignore(_: object) -> None:
    """Take no notice."""
