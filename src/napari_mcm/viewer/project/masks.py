"""The tissue masks that the user drew, as a project names them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_mcm.core.project import ProjectSlide, find_existing
from napari_mcm.viewer.app.persistence import drawn_mask_path
from napari_mcm.viewer.layers.metadata import slide_of
from napari_mcm.viewer.project.memory import memory_of

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.core.slides import Slide
    from napari_mcm.viewer.app.session import Session


class ProjectMasks:
    """Notes which slides have a drawn mask, and loads one that did not move along.

    Masks are files beside their slides, which find themselves. In a read-only folder they
    are elsewhere: there the project says where.

    Parameters
    ----------
    session : Session
        Session of the viewer.

    Attributes
    ----------
    changed : Signal
        Emitted with the fingerprint of the current slide and the file of its drawn mask,
        or None if it has none.
    """

    changed = Signal(str, object)

    def __init__(self, session: Session) -> None:
        self._session, self._memory = session, memory_of(session)
        session.tissue.changed.connect(self._tissue_changed)

    def restore(self, layer: Layer, entry: ProjectSlide, project: Path | None) -> None:
        """Load the mask of a slide, if the project has one that is not shown.

        Parameters
        ----------
        layer : Layer
            Layer of the slide.
        entry : ProjectSlide
            The slide in the project.
        project : Path or None
            The project file.
        """
        slide = slide_of(layer)
        if entry.tissue is not None and slide is not None and project is not None:
            self._session.disk.submit(
                f"mask of {entry.fingerprint}",
                partial(_find, slide, entry, project),
                partial(self._found, layer),
                self._session.report_error,
            )

    def _found(self, layer: Layer, path: Path | None) -> None:
        tissue = self._session.tissue
        if path is not None and tissue.mask_of(layer) is None:
            tissue.load(layer, path)

    def _tissue_changed(self) -> None:
        layer = self._session.slide
        editable, slide = self._session.tissue.mask_of(layer), slide_of(layer)
        mark = self._memory.fingerprint_of(layer)
        # A slide without a mask yet may be about to get the stored one.
        if slide is not None and editable is not None and mark:
            path = drawn_mask_path(slide) if editable.drawn else None
            self.changed.emit(mark, path)


def _find(slide: Slide, entry: ProjectSlide, project: Path) -> Path | None:
    """Return the stored mask, unless there is one where it is looked for anyway."""
    if drawn_mask_path(slide).exists() or entry.tissue is None:
        return None
    return find_existing(entry.tissue, project)
