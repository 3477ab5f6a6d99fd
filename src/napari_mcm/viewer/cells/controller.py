"""Classifies the cells that are marked on an open image."""

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
from napari_mcm.core.slides.slide import slide_name
from napari_mcm.viewer.app.out_of_memory import CELLS, explain_out_of_memory
from napari_mcm.viewer.app.persistence import writable_base
from napari_mcm.viewer.app.settings import preferences
from napari_mcm.viewer.cells.annotations import boxes_of, crop_of, paint, size_of
from napari_mcm.viewer.layers.metadata import SlideMetadata
from napari_mcm.viewer.training.imports import import_modules

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.core.cells.annotations import Crop
    from napari_mcm.core.cells.datasets import Box
    from napari_mcm.core.encoders.compute import ComputeConfig
    from napari_mcm.viewer.app.session import Session


_MODULES = ("torch", "timm", "napari_mcm.core.cells.annotated_slides")


class CellsController:
    """Classifies boxes and points in the background, and colours them.

    Parameters
    ----------
    session : Session
        Of the viewer.

    Attributes
    ----------
    changed : Signal
        Other cells are classified.
    found : Classified or None
        The newest ones.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        self.session = session
        self.found: Classified | None = None

    def classify(
        self, run: Path, image: Layer, layer: Layer, side: int, margin: float
    ) -> None:
        """Classify what a layer marks on an image.

        Parameters
        ----------
        run : Path
            Of a trained classifier.
        image : Layer
            A slide or a picture.
        layer : Shapes or Points
            What marks cells.
        side : int
            Of boxes around points, in the image's pixels.
        margin : float
            Rim around shapes, in parts of their side.
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
            status.message = f"{layer.name} was changed meanwhile: classify it again"
            return
        paint(layer, found)
        self.found = found
        status.message = f"{len(found.names) - found.failed:,} cells classified"
        self.changed.emit()


def classify_boxes(
    run: Path, crop: Crop, boxes: Sequence[Box], compute: ComputeConfig
) -> Job[Classified]:
    """Classify boxes of an image; see the job of the same name in the core."""
    marked = yield from import_modules(_MODULES)
    with explain_out_of_memory(CELLS):
        found: Classified = yield from marked.classify_boxes(run, crop, boxes, compute)
    return found


_COMPARED = 20
"""Boxes of a picture in which the file is compared with what the layer shows."""


def cells_command(
    session: Session, run: Path, image: Layer, layer: Layer, how: tuple[int, float]
) -> Command:
    """Name the verb that classifies the very boxes that the widget would.

    The boxes are written to a file first, which the command takes.

    Parameters
    ----------
    session : Session
        Of the viewer.
    run : Path
        Of a trained classifier.
    image : Layer
        A slide or a picture.
    layer : Shapes or Points
        What marks cells.
    how : tuple of int and float
        Side of boxes around points, and rim around shapes.

    Raises
    ------
    ValueError
        With one line, where there is nothing marked, or the image is no file.
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
        # The boxes have their rim already.
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
            "that a command can name its file"
        )
    return Path(path).absolute()


def _behind(session: Session, marks: Path, keep: Callable[[], None]) -> None:
    session.disk.submit(f"marks {marks}", keep, lambda _: None, session.report_error)


def _compare(image: Layer, file: Path, boxes: Sequence[Box]) -> None:
    """See that a picture's file holds what its layer shows: some are turned as read."""
    shown = crop_of(image)
    with open_slide(file) as slide:
        same, read = slide.size == size_of(image), crop_of_slide(slide)
        for box in boxes[:_COMPARED] if same else ():
            # What cannot be read here cannot be there.
            with suppress(TileError):
                same = same and np.array_equal(shown(box), read(box))
    if not same:
        raise ConfigError(
            f"is not what the layer {image.name} shows: the copied command would "
            "classify other pixels",
            file,
            "Save the layer as a PNG, open that and mark its cells",
        )
