"""Region annotations of a generated slide, as QuPath's GeoJSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage import measure

from napari_mcm.core.runtime.geojson import make_feature, make_polygon
from napari_mcm.core.synthetic.chart import Mask
from napari_mcm.core.synthetic.layout import Layout

COLOURS = {
    "Tumour": (200, 0, 0),
    "Ductal hyperplasia": (230, 140, 0),
    "Benign glands": (150, 60, 190),
    "Stroma": (60, 170, 90),
    "Fat": (235, 215, 60),
    "Lymphocytes": (40, 90, 200),
    "Pen mark": (90, 90, 90),
}
"""Region classes and their colours in QuPath."""

PAD = 3
Ring = list[list[float]]


def outline_regions(layout: Layout, key: str) -> list[dict[str, Any]]:
    """Outline the regions of a slide.

    Parameters
    ----------
    layout : Layout
        The plan.
    key : str
        Unique name of the slide; the features' ids are derived from it.

    Returns
    -------
    list of dict
        GeoJSON features: polygons in level-0 pixels.
    """
    return [
        _feature(f"{key}/{name}/{index}", name, rings)
        for name, mask in _regions(layout).items()
        for index, rings in enumerate(_polygons(mask, layout))
    ]


def _regions(layout: Layout) -> dict[str, Mask]:
    tissue = layout.tissue > 0
    # An annotation of a tumour includes its thin septa.
    wide = layout.chart.depth(layout.tumour > -14) > 14
    masks = {
        "Tumour": wide & tissue,
        "Ductal hyperplasia": layout.ducts > 0,
        "Benign glands": layout.lobules > 0,
        "Fat": layout.fat > 0,
        "Lymphocytes": layout.lymph > 0.5,
    }
    taken = np.logical_or.reduce(list(masks.values()))
    masks["Stroma"] = ndimage.binary_opening(tissue & ~taken, iterations=2)
    if layout.pen is not None:
        masks["Pen mark"] = layout.pen.amount > 0.3
    return {name: masks[name] for name in COLOURS if name in masks}


def _polygons(mask: Mask, layout: Layout) -> Iterator[list[Ring]]:
    """Yield the outer ring and the holes of every piece above a minimum area."""
    chart = layout.chart
    least = 1200.0 / chart.pitch**2
    labels, _ = ndimage.label(mask)
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        piece = np.pad(labels[box] == label, PAD).astype(np.float32)
        if piece.sum() < least:
            continue
        # Smoothed first, or outlines would follow the pixels' edges.
        piece = ndimage.gaussian_filter(piece, 1.0)
        corner = np.array([box[0].start - PAD, box[1].start - PAD])
        contours = measure.find_contours(piece, 0.5)
        rings = [_ring(line + corner, layout) for line in contours if len(line) > 10]
        rings = [ring for ring in rings if len(ring) >= 4]
        rings.sort(key=_area, reverse=True)
        if rings:
            yield [rings[0], *(ring for ring in rings[1:] if _area(ring) > 400)]


def _ring(contour: NDArray[np.float64], layout: Layout) -> Ring:
    """Make a closed ring of (x, y) in level-0 pixels, within the slide."""
    chart = layout.chart
    size = chart.extent * chart.step / chart.pitch
    few = contour[:: 3 if len(contour) > 36 else 1]
    points = (few[:, ::-1] * chart.step).clip(0, size).round(1)
    ring: Ring = points.tolist()
    if ring[0] != ring[-1]:
        ring.append(ring[0])
    return ring


def _area(ring: Ring) -> float:
    x, y = np.array(ring).T
    return abs(float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1]))) / 2


def _feature(key: str, name: str, rings: list[Ring]) -> dict[str, Any]:
    properties = {
        "objectType": "annotation",
        "classification": {"name": name, "color": list(COLOURS[name])},
        "isLocked": True,
    }
    return make_feature(make_polygon(rings), properties, key)
