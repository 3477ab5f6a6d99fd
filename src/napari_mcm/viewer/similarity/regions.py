"""Regions that the user draws on the slide as examples of a query."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mcm.viewer.layers.metadata import on_slide
from napari_mcm.viewer.layers.timers import single_shot

if TYPE_CHECKING:
    from napari.layers import Layer, Shapes

    from napari_mcm.core.heatmaps.examples import Polygon
    from napari_mcm.viewer.similarity.context import SimilarityContext

NAME = "query region"
"""Name of the layer of regions."""
EDGE_PX = 3
"""Width of outlines on the screen, in pixels."""
ZOOM_MS = 120
"""Delay from a zoom to outlines of the right width, in milliseconds."""
CHECK_MS = 80
"""Delay from a change of the layer to the query, in milliseconds."""
_AROUND = np.linspace(0, 2 * np.pi, 48, endpoint=False)
_AREAS = ("rectangle", "ellipse", "polygon")


class RegionController:
    """Queries by the regions in a shapes layer.

    Parameters
    ----------
    context : SimilarityContext
        Query, maps and shortcuts of the viewer.
    """

    def __init__(self, context: SimilarityContext) -> None:
        session = context.session
        self._context = context
        self._session, self._layers = session, session.layers
        self._layer: Shapes | None = None
        self._slide: Layer | None = None
        self._timer = single_shot(CHECK_MS, self._check_drawn)
        self._last: tuple[Polygon, ...] = ()
        self._outlined: tuple[Polygon, ...] = ()
        self._zoomed = single_shot(ZOOM_MS, self._fit)
        session.viewer.scene.camera.events.zoom.connect(self._on_zoom)
        context.query_changed.connect(self._query_changed)
        context.keys.on("region", self.begin)

    @property
    def layer(self) -> Shapes | None:
        """The layer of regions; None if it does not exist."""
        return self._layers.alive(self._layer)

    def begin(self) -> None:
        """Start drawing a region, or use the shapes selected in another layer."""
        slide = self._session.slide
        if slide is None or not self._context.queries.has_features():
            self._session.report_error("Compute or load features first")
            return
        active = self._layers.active
        if _is_shapes(active) and active is not self.layer and len(active.data):
            chosen = sorted(active.selected_data) or range(len(active.data))
            polygons = tuple(
                _polygon(active, i, slide) for i in chosen if _is_area(active, i)
            )
            self._run_query(polygons)
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
            self._layers.delete(layer)
        with _no_colours():
            layer = Shapes(
                ndim=2,
                name=NAME,
                edge_color="black",
                face_color="transparent",
                edge_width=self._edge_width(slide),
                **on_slide(slide, "region"),
            )
            self._layers.add(layer)
        layer.events.data.connect(self._touched)
        self._layer, self._slide = layer, slide
        self._last = self._outlined = ()
        return layer

    def _edge_width(self, slide: Layer) -> float:
        """Return the width of outlines in level-0 pixels at the present zoom."""
        zoom = float(self._layers.viewer.scene.camera.zoom)
        return EDGE_PX / zoom / float(slide.scale[-1])

    def _on_zoom(self, _event: Any) -> None:
        if self.layer is not None:
            self._zoomed.start()

    def _fit(self) -> None:
        """Keep the width of outlines on the screen, once the zoom rests."""
        layer, slide = self.layer, self._slide
        if layer is not None and slide is not None:
            width = self._edge_width(slide)
            if len(layer.data):
                layer.edge_width = [width] * len(layer.data)
            layer.current_edge_width = width
            layer.refresh(extent=False, thumbnail=False)

    def _touched(self, _event: Any) -> None:
        self._timer.start()

    def _check_drawn(self) -> None:
        """Query by the drawn regions, once the user has finished drawing."""
        layer, slide = self.layer, self._slide
        if layer is None or slide is None or slide is not self._session.slide:
            return
        if getattr(layer, "_is_creating", False) or getattr(layer, "_is_moving", False):
            self._timer.start()
            return
        polygons = self._drawn(layer, slide)
        if polygons != self._last:
            # The next click is a query again, not a new shape.
            layer.mode = "pan_zoom"
            self._layers.activate(slide)
            self._last = self._outlined = polygons
            self._run_query(polygons)

    @staticmethod
    def _drawn(layer: Shapes, slide: Layer) -> tuple[Polygon, ...]:
        """Return the outlines in the layer, (x, y) in level-0 pixels."""
        numbers = range(len(layer.data))
        return tuple(_polygon(layer, i, slide) for i in numbers if _is_area(layer, i))

    def _run_query(self, polygons: tuple[Polygon, ...]) -> None:
        if polygons or self._context.queries.examples.regions:
            self._context.queries.use_regions(polygons)

    def _query_changed(self) -> None:
        """Outline the regions of the query, and no others, also after undo and redo."""
        query, slide = self._context.query, self._session.slide
        here = query is not None and query.here
        regions = self._context.queries.examples.regions if here else ()
        if slide is None or (self._slide is not slide and not regions):
            return
        if self._slide is slide and regions in (self._last, self._outlined):
            return
        layer = self._ready(slide) if regions else self.layer
        if layer is None:
            self._last = self._outlined = ()
            return
        layer.selected_data = set()
        with _no_colours():
            layer.data = []
            # napari's origin is the centre of the first pixel, the slide's is its corner.
            outlines = [np.asarray(corners)[:, ::-1] - 0.5 for corners in regions]
            if outlines:
                layer.add(outlines, shape_type="polygon")
        # As the layer returns them: numbers may differ in their last digit.
        self._outlined, self._last = regions, self._drawn(layer, slide)


@contextmanager
def _no_colours() -> Iterator[None]:
    """Suppress napari's warning that an empty layer has no shapes to colour."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def _is_shapes(layer: Any) -> bool:
    return type(layer).__name__ == "Shapes"


def _is_area(layer: Any, number: int) -> bool:
    return str(layer.shape_type[number]) in _AREAS and len(layer.data[number]) > 2


def _polygon(layer: Any, number: int, slide: Layer) -> Polygon:
    """Return the outline of a shape, (x, y) in level-0 pixels."""
    corners = np.asarray(layer.data[number], float)[:, -2:]
    if str(layer.shape_type[number]) == "ellipse":
        middle = corners.mean(axis=0)
        one, other = (corners[1] - corners[0]) / 2, (corners[3] - corners[0]) / 2
        turns = np.cos(_AROUND)[:, None] * one + np.sin(_AROUND)[:, None] * other
        corners = middle + turns
    # napari's origin is the centre of the first pixel, the slide's is its corner.
    points = [slide.world_to_data(layer.data_to_world(corner)) for corner in corners]
    return tuple((float(p[-1]) + 0.5, float(p[-2]) + 0.5) for p in points)
