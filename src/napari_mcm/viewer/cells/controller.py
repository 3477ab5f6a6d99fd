"""Classify the cells that are marked on an open image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from psygnal import Signal

from napari_mcm.core.cells.annotations import crop_of as crop_of_slide
from napari_mcm.core.cells.annotations import write_boxes
from napari_mcm.core.cells.classified import Classified
from napari_mcm.core.cells.config import MarkedCellsConfig
from napari_mcm.core.errors import ConfigError, TileError
from napari_mcm.core.runtime.command import Command
from napari_mcm.core.runtime.jobs import Job
from napari_mcm.core.slides import ReadConfig, open_slide
from napari_mcm.core.slides.paths import slide_name
from napari_mcm.viewer.app.imports import import_modules
from napari_mcm.viewer.app.out_of_memory import CELLS, explain_out_of_memory
from napari_mcm.viewer.app.persistence import writable_base
from napari_mcm.viewer.app.settings import preferences
from napari_mcm.viewer.cells.annotations import boxes_of, crop_of, paint, size_of
from napari_mcm.viewer.layers.metadata import SlideMetadata

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.core.cells.annotations import Crop
    from napari_mcm.core.cells.datasets import Box
    from napari_mcm.core.encoders.compute import ComputeConfig
    from napari_mcm.viewer.app.session import Session


_MODULES = ("torch", "timm", "napari_mcm.core.cells.annotated_slides")


class CellsController:
    """Classify boxes and points in the background, and color them.

    Parameters
    ----------
    session : Session
        Session of the viewer.

    Attributes
    ----------
    changed : Signal
        Other cells are classified.
    found : Classified or None
        The newest classes.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        self.session = session
        self.found: Classified | None = None

    def classify(
        self, run: Path, image: Layer, layer: Layer, side: int, margin: float
    ) -> None:
        """Classify the cells that a layer marks on an image.

        Parameters
        ----------
        run : Path
            Run of a trained classifier.
        image : Layer
            A slide or a picture.
        layer : Shapes or Points
            Marks the cells.
        side : int
            Side of boxes around points, in pixels of the image.
        margin : float
            Margin around shapes, as a fraction of their side.
        """
        try:
            boxes = boxes_of(layer, image, side, margin)
            crop = crop_of(image)
        except ValueError as error:
            self.session.report_error(str(error))
            return
        compute = preferences().compute
        self.session.jobs.start(
            f"Classifying {layer.name}",
            lambda: classify_boxes(run, crop, boxes, compute),
            lambda found: self._take(layer, found),
        )

    def _take(self, layer: Layer, found: Classified) -> None:
        status = self.session.jobs.status
        if len(layer.data) != len(found.probabilities):
            status.message = (
                f"{layer.name} was changed in the meantime: classify it again"
            )
            return
        paint(layer, found)
        self.found = found
        status.message = f"{len(found.names) - found.failed:,} cells classified"
        self.changed.emit()


def classify_boxes(
    run: Path, crop: Crop, boxes: Sequence[Box], compute: ComputeConfig
) -> Job[Classified]:
    """Classify boxes of an image; see the engine's job of the same name."""
    marked = yield from import_modules(_MODULES)
    with explain_out_of_memory(CELLS):
        found: Classified = yield from marked.classify_boxes(run, crop, boxes, compute)
    return found


_COMPARED = 20
"""Boxes of a picture in which its file is compared with the layer."""


def cells_command(
    session: Session, run: Path, image: Layer, layer: Layer, how: tuple[int, float]
) -> Command:
    """Return the command that classifies the same boxes as the widget.

    The boxes are first written to a file, which the command reads.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    run : Path
        Run of a trained classifier.
    image : Layer
        A slide or a picture.
    layer : Shapes or Points
        Marks the cells.
    how : tuple of int and float
        Side of boxes around points, and margin around shapes.

    Raises
    ------
    ValueError
        With one line, if nothing is marked, or the image is not a file.
    """
    boxes = boxes_of(layer, image, *how)
    crop_of(image)
    file, metadata = _file_of(image), SlideMetadata.of_layer(image)
    mark = hashlib.blake2b(repr(boxes).encode(), digest_size=3).hexdigest()
    base = preferences().output_folder or writable_base(file)
    name = f"{slide_name(file)}-{mark}"
    marks = base / f"{name}.marks.geojson"

    def keep() -> None:
        if metadata is None:
            _compare(image, file, boxes)
        write_boxes(marks, boxes)

    _behind(session, marks, keep)
    config = MarkedCellsConfig(
        slide=file,
        run=run,
        marks=marks,
        out=base / f"{name}.{run.name}.geojson",
        # The boxes have their margin already.
        box_margin=0.0,
        compute=preferences().compute,
        read=ReadConfig(mpp_override=metadata.mpp_override if metadata else None),
    )
    return Command("classify cells", config, "slide")


def _file_of(image: Layer) -> Path:
    metadata = SlideMetadata.of_layer(image)
    path = metadata.path if metadata is not None else image.source.path
    if not path:
        raise ValueError(
            f"{image.name} is in memory only: save it as a picture and open that, so "
            "that a command can read its file"
        )
    return Path(path).absolute()


def _behind(session: Session, marks: Path, keep: Callable[[], None]) -> None:
    session.disk.submit(f"marks {marks}", keep, lambda _: None, session.report_error)


def _compare(image: Layer, file: Path, boxes: Sequence[Box]) -> None:
    """Check that a picture's file holds what its layer shows: some are rotated."""
    shown = crop_of(image)
    with open_slide(file) as slide:
        same, read = slide.size == size_of(image), crop_of_slide(slide)
        for box in boxes[:_COMPARED] if same else ():
            # A box that is unreadable here is unreadable there, too.
            with suppress(TileError):
                same = same and np.array_equal(shown(box), read(box))
    if not same:
        raise ConfigError(
            f"differs from the layer {image.name}: the copied command would classify "
            "other pixels",
            file,
            "Save the layer as a PNG, open that and mark its cells",
        )
