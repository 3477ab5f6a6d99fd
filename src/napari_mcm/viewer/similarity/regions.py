"""Regions that are drawn on a slide, as outlines in its own pixels."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QTimer

from napari_mcm.viewer.layers.metadata import on_slide

if TYPE_CHECKING:
    from napari.layers import Layer, Shapes

    from napari_mcm.core.heatmaps.query import Polygon
    from napari_mcm.viewer.similarity.context import SimilarityContext

NAME = "query region"
EDGE_PX = 3
LOOK_MS = 80
_AROUND = np.linspace(0, 2 * np.pi, 48, endpoint=False)
_AREAS = ("rectangle", "ellipse", "polygon")


class RegionController:
    """Makes what is drawn in a layer of shapes the query.

    Parameters
    ----------
    context : SimilarityContext
        The query and what belongs to it.
    """

    def __init__(self, context: SimilarityContext) -> None:
        session = context.session
        self._context = context
        self._session, self._layers = session, session.layers
        self._layer: Shapes | None = None
        self._slide: Layer | None = None
        self._soon = QTimer()
        self._soon.setSingleShot(True)
        self._soon.setInterval(LOOK_MS)
        self._soon.timeout.connect(self._look)
        self._last: tuple[Polygon, ...] = ()
        context.query_changed.connect(self._query_changed)
        context.keys.on("region", self.begin)

    @property
    def layer(self) -> Shapes | None:
        """Where regions are drawn; None where there is none, or no longer."""
        return self._layers.alive(self._layer)

    def begin(self) -> None:
        """Let the user draw, or take what is selected in another layer of shapes."""
        slide = self._session.slide
        if slide is None or not self._context.queries.has_features():
            self._session.report_error("Compute or load features first")
            return
        active = self._layers.active
        if _is_shapes(active) and active is not self.layer and len(active.data):
            chosen = sorted(active.selected_data) or range(len(active.data))
            rings = tuple(
                _ring(active, i, slide) for i in chosen if _is_area(active, i)
            )
            self._run_query(rings)
            return
        layer = self._ready(slide)
        self._layers.activate(layer)
        layer.mode = "add_polygon_lasso"

    def _ready(self, slide: Layer) -> Shapes:
        from napari.layers import Shapes

        layer = self.layer
        if layer is not None and self._slide is slide:
            layer.visible = True
            return layer
        if layer is not None:
            self._layers.drop(layer)
        zoom = self._layers.viewer.scene.camera.zoom
        with _no_colours():
            layer = Shapes(
                ndim=2,
                name=NAME,
                edge_color="black",
                face_color="transparent",
                edge_width=EDGE_PX / zoom / float(slide.scale[-1]),
                **on_slide(slide, "region"),
            )
            self._layers.add(layer)
        layer.events.data.connect(self._touched)
        self._layer, self._slide, self._last = layer, slide, ()
        return layer

    def _touched(self, _event: Any) -> None:
        self._soon.start()

    def _look(self) -> None:
        """Ask for what was drawn, once it is finished."""
        layer, slide = self.layer, self._slide
        if layer is None or slide is None or slide is not self._session.slide:
            return
        if getattr(layer, "_is_creating", False) or getattr(layer, "_is_moving", False):
            self._soon.start()
            return
        rings = tuple(
            _ring(layer, i, slide) for i in range(len(layer.data)) if _is_area(layer, i)
        )
        if rings != self._last:
            # A click is to be a query again.
            layer.mode = "pan_zoom"
            self._layers.activate(slide)
            self._last = rings
            self._run_query(rings)

    def _run_query(self, rings: tuple[Polygon, ...]) -> None:
        if rings or self._context.queries.examples.regions:
            self._context.queries.use_regions(rings)

    def _query_changed(self) -> None:
        """Take regions away that are no longer asked for."""
        layer, asked = self.layer, self._context.queries.examples.regions
        if layer is not None and len(layer.data) and self._last and not asked:
            self._last = ()
            layer.selected_data = set()
            with _no_colours():
                layer.data = []


@contextmanager
def _no_colours() -> Iterator[None]:
    """Keep quiet about there being no shapes whose colours could be set."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def _is_shapes(layer: Any) -> bool:
    return type(layer).__name__ == "Shapes"


def _is_area(layer: Any, number: int) -> bool:
    return str(layer.shape_type[number]) in _AREAS and len(layer.data[number]) > 2


def _ring(layer: Any, number: int, slide: Layer) -> Polygon:
    """Return an outline in level-0 pixels (x, y)."""
    corners = np.asarray(layer.data[number], float)[:, -2:]
    if str(layer.shape_type[number]) == "ellipse":
        middle = corners.mean(axis=0)
        one, other = (corners[1] - corners[0]) / 2, (corners[3] - corners[0]) / 2
        turns = np.cos(_AROUND)[:, None] * one + np.sin(_AROUND)[:, None] * other
        corners = middle + turns
    # napari counts from the centre of the first pixel, slides from its corner.
    places = [slide.world_to_data(layer.data_to_world(corner)) for corner in corners]
    return tuple((float(p[-1]) + 0.5, float(p[-2]) + 0.5) for p in places)
