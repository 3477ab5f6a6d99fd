"""Classifies the cells that are marked on an open image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_mcm.core.jobs import Job
from napari_mcm.core.mae.classifier.classified import Classified
from napari_mcm.viewer.cells_boxes import boxes_of, crop_of
from napari_mcm.viewer.cells_paint import paint
from napari_mcm.viewer.memory import CELLS, answered
from napari_mcm.viewer.mil_tasks import start
from napari_mcm.viewer.settings import preferences

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.core.encoders.compute import ComputeConfig
    from napari_mcm.core.mae.classifier.cells import Box
    from napari_mcm.core.mae.classifier.marks import Crop
    from napari_mcm.viewer.session import Session

_MODULES = ("torch", "timm", "napari_mcm.core.mae.classifier.marked")


class CellsDesk:
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
            self.session.complain(str(error))
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
    marked = yield from start(_MODULES)
    with answered(CELLS):
        found: Classified = yield from marked.classify_boxes(run, crop, boxes, compute)
    return found
