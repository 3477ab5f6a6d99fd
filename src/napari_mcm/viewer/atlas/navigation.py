"""Goes to a patch of any slide of an atlas, and opens the slide where needed."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer

from napari_mcm.viewer.layers.thumbnails import go_to
from napari_mcm.viewer.project.controller import project_of
from napari_mcm.viewer.project.memory import memory_of

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.core.atlas import AtlasSlide
    from napari_mcm.viewer.app.session import Session
    from napari_mcm.viewer.atlas.pictures import PatchPictures


class PatchNavigation:
    """Moves the view to patches.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    pictures : PatchPictures
        Knows where the files of slides are.
    """

    def __init__(self, session: Session, pictures: PatchPictures) -> None:
        self._session, self._pictures = session, pictures
        self._awaited: tuple[AtlasSlide, int] | None = None
        memory_of(session).found.connect(self._slide_found)

    def go_to(self, slide: AtlasSlide, row: int) -> None:
        """Show a patch; a slide that is not open is opened first.

        Parameters
        ----------
        slide : AtlasSlide
            The slide.
        row : int
            Row of its grid.
        """
        session = self._session
        layer = memory_of(session).layer_of(slide.fingerprint)
        if layer is not None:
            self._awaited = None
            self._show(layer, slide, row)
            return
        self._awaited = slide, row
        project = project_of(session)
        at = project.project.index_of(slide.fingerprint)
        if at is not None:
            project.open_slide(at)
            return
        session.disk.submit(
            "slide of the atlas",
            partial(self._pictures.find, slide),
            self._located,
            self._failed,
        )

    def _located(self, path: Path) -> None:
        if self._awaited is not None:
            self._session.open(str(path), self._forget)

    def _slide_found(self, layer: Layer, mark: str) -> None:
        if self._awaited is None or self._awaited[0].fingerprint != mark:
            return
        (slide, row), self._awaited = self._awaited, None
        # Deferred: the view that the slide was left with is restored first.
        QTimer.singleShot(0, partial(self._show, layer, slide, row))

    def _show(self, layer: Layer, slide: AtlasSlide, row: int) -> None:
        session = self._session
        if layer in session.layers:
            session.choose_slide(layer)
            go_to(session.layers, layer, slide.grid, row)

    def _forget(self) -> None:
        self._awaited = None

    def _failed(self, problem: str) -> None:
        self._forget()
        self._session.report_error(problem)
