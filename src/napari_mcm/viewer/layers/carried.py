"""Layers of regions that were carried over from another slide."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.viewer.layers.metadata import on_slide

if TYPE_CHECKING:
    from napari.layers import Layer, Shapes
    from shapely.geometry.base import BaseGeometry

    from napari_mcm.viewer.layers.stack import LayerStack

CARRIED = "carried"
"""Kind of these layers."""
EDGE_COLOUR = "#33e6ff"
_EDGE_PX, _POINT_PX = 2, 10
"""Width of outlines and diameter of points on the screen, in pixels."""
_AROUND = np.linspace(0, 2 * np.pi, 48, endpoint=False)


@dataclass(frozen=True, eq=False)
class Region:
    """A polygon, line or point on a slide.

    Attributes
    ----------
    geometry : shapely geometry
        In level-0 pixels of the slide.
    properties : mapping
        Its row in the layer's table of features.
    """

    geometry: BaseGeometry
    properties: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What it is called in lists."""
        named = (str(self.properties.get(key) or "") for key in ("name", "class"))
        return next(filter(None, named), self.geometry.geom_type.lower())


def regions_of(layer: Layer, slide: Layer) -> list[Region]:
    """Return the shapes or points of a layer, as they lie on a slide.

    Parameters
    ----------
    layer : Layer
        A layer of shapes or points.
    slide : Layer
        Layer of the slide.
    """
    import shapely

    rows = layer.features.to_dict("records") if len(layer.features.columns) else []
    rows = rows or [{} for _ in layer.data]
    if not hasattr(layer, "shape_type"):
        places = _on_pixels(layer, np.asarray(layer.data), slide)
        return [
            Region(shapely.Point(place), row)
            for place, row in zip(places, rows, strict=True)
        ]
    found = []
    for corners, kind, row in zip(layer.data, layer.shape_type, rows, strict=True):
        outline = np.asarray(corners, float)[:, -2:]
        if str(kind) == "ellipse":
            outline = _ellipse(outline)
        places = _on_pixels(layer, outline, slide)
        line = str(kind) in ("line", "path")
        if line or len(places) < 3:
            geometry = shapely.LineString(places)
        else:
            geometry = shapely.make_valid(shapely.Polygon(places))
        found.append(Region(geometry, row))
    return found


def add_regions(
    layers: LayerStack, slide: Layer, name: str, regions: Sequence[Region]
) -> Shapes | None:
    """Add regions as a layer of shapes on a slide, and points as a layer of their own.

    Parameters
    ----------
    layers : LayerStack
        Layers of the viewer.
    slide : Layer
        Layer of the slide.
    name : str
        Name of the layers. Earlier ones of this name on the slide are replaced.
    regions : sequence of Region
        The regions.

    Returns
    -------
    Shapes or None
        The layer of shapes; None if all are points.
    """
    from napari.layers import Points, Shapes

    for old in layers.view.layers_of(slide):
        if old.metadata.get("napari-mcm", {}).get("key") == name:
            layers.delete(old)
    pixel = 1 / float(layers.viewer.scene.camera.zoom) / float(slide.scale[-1])
    placed = on_slide(slide, CARRIED, key=name)
    outlines = [(*one, r) for r in regions for one in _outlines(r.geometry)]
    points = [(one, r) for r in regions for one in _points(r.geometry)]
    if points:
        layers.add(
            Points(
                np.asarray([place for place, _ in points]),
                name=name,
                size=_POINT_PX * pixel,
                face_color=EDGE_COLOUR,
                features=_table(r for _, r in points),
                **placed,
            )
        )
    if not outlines:
        return None
    shapes = Shapes(
        [corners for corners, _, _ in outlines],
        shape_type=[kind for _, kind, _ in outlines],
        name=name,
        edge_color=EDGE_COLOUR,
        face_color="transparent",
        edge_width=_EDGE_PX * pixel,
        features=_table(r for _, _, r in outlines),
        **placed,
    )
    return layers.add(shapes)


def _on_pixels(
    layer: Layer, corners: NDArray[Any], slide: Layer
) -> list[tuple[float, float]]:
    # napari's origin is the centre of the first pixel, the slide's is its corner.
    found = [slide.world_to_data(layer.data_to_world(one)) for one in corners]
    return [(float(p[-1]) + 0.5, float(p[-2]) + 0.5) for p in found]


def _ellipse(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return points on the ellipse in a box of four corners."""
    middle = corners.mean(axis=0)
    one, other = (corners[1] - corners[0]) / 2, (corners[3] - corners[0]) / 2
    turns = np.cos(_AROUND)[:, None] * one + np.sin(_AROUND)[:, None] * other
    return np.asarray(middle + turns)


def _outlines(geometry: BaseGeometry) -> Iterator[tuple[NDArray[np.float64], str]]:
    """Yield corners (y, x) and napari's type of each polygon and line of a geometry."""
    import shapely

    for part in _parts(geometry):
        if part.geom_type == "Polygon" and not part.is_empty:
            rings = [
                np.asarray(ring.coords) for ring in (part.exterior, *part.interiors)
            ]
            # napari has no holes: the outline goes in to each, around it, and back.
            start = rings[0][:1]
            path = [rings[0], *(np.vstack([ring, start]) for ring in rings[1:])]
            corners = np.vstack(path)[:-1]
            yield corners[:, ::-1] - 0.5, "polygon"
        elif part.geom_type in ("LineString", "LinearRing") and not part.is_empty:
            yield shapely.get_coordinates(part)[:, ::-1] - 0.5, "path"


def _points(geometry: BaseGeometry) -> Iterator[NDArray[np.float64]]:
    import shapely

    for part in _parts(geometry):
        if part.geom_type == "Point" and not part.is_empty:
            yield shapely.get_coordinates(part)[0, ::-1] - 0.5


def _parts(geometry: BaseGeometry) -> list[BaseGeometry]:
    import shapely

    # Twice: a collection may hold geometries of several parts.
    return list(shapely.get_parts(shapely.get_parts(geometry)))


def _table(regions: Iterable[Region]) -> dict[str, list[Any]]:
    """Return the properties of regions as columns."""
    rows = [dict(region.properties) for region in regions]
    names = dict.fromkeys(key for row in rows for key in row)
    return {key: [row.get(key) for row in rows] for key in names}
