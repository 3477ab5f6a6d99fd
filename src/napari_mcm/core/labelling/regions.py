"""Classes of patches from outlined regions: GeoJSON of QuPath and other tools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.labelling.label_set import LabelSet, labels_of_rows, next_class
from napari_mcm.core.tissue.geojson import (
    class_of,
    features_in,
    load_geojson,
    read_regions,
)


def classes_of_regions(
    path: Path, grid: PatchGrid, least_covered: float = 0.0
) -> list[str]:
    """Return the class of the region that each patch lies in.

    Parameters
    ----------
    path : Path
        GeoJSON of regions in level-0 pixels.
    grid : PatchGrid
        Patches of this slide.
    least_covered : float, optional
        Smallest fraction of a patch that a class must cover, 0 to 1. With 0 the class
        at the patch's centre is used; of nested regions the smallest.

    Returns
    -------
    list of str
        One class per patch; empty where there is none.

    Raises
    ------
    ConfigError
        If no region has a class.
    GridError
        If the file is missing or damaged.
    """
    import shapely

    regions = [(name, area) for name, area in read_regions(path) if name]
    if not regions:
        raise ConfigError(
            "has regions, but none with a class", path, "Give them classes in QuPath"
        )
    labels = [""] * len(grid)
    if least_covered > 0:
        boxes = shapely.box(*grid.xy.T, *(grid.xy + grid.patch_size_level0).T)
        names = sorted({name for name, _ in regions})
        parts = np.array(
            [_covered([a for n, a in regions if n == name], boxes) for name in names]
        )
        for patch in np.flatnonzero(parts.max(axis=0, initial=0) >= least_covered):
            labels[patch] = names[int(parts[:, patch].argmax())]
        return labels
    x, y = grid.centres.T
    # The smallest comes last: it overrides the regions around it.
    for name, area in sorted(regions, key=lambda region: -region[1].area):
        shapely.prepare(area)
        for patch in np.flatnonzero(shapely.contains_xy(area, x, y)):
            labels[patch] = name
    return labels


def class_colors(path: Path) -> dict[str, str]:
    """Return the colours that QuPath gives to classes in a file.

    Parameters
    ----------
    path : Path
        GeoJSON of regions.

    Returns
    -------
    dict of str to str
        ``#rrggbb`` by class, of those that have one.

    Raises
    ------
    GridError
        If the file is missing or damaged.
    """
    colors: dict[str, str] = {}
    for feature in features_in(load_geojson(path)):
        properties = feature.get("properties")
        described = (
            properties.get("classification") if isinstance(properties, dict) else None
        )
        color = described.get("color") if isinstance(described, dict) else None
        if (
            isinstance(color, list)
            and all(isinstance(part, int) and 0 <= part < 256 for part in color)
            and len(color) == 3
        ):
            colors.setdefault(class_of(feature), "#" + bytes(color).hex())
    return colors


def import_regions(
    labels: LabelSet,
    path: Path,
    grid: PatchGrid,
    author: str = "",
    least_covered: float = 0.0,
) -> tuple[LabelSet, int]:
    """Label the patches in outlined regions.

    Parameters
    ----------
    labels : LabelSet
        Labels so far; classes that it lacks are added.
    path : Path
        GeoJSON of regions in level-0 pixels, with classes.
    grid : PatchGrid
        Patches of this slide.
    author : str, optional
        Who outlined them.
    least_covered : float, optional
        As in :func:`classes_of_regions`.

    Returns
    -------
    labels : LabelSet
        With the new labels.
    count : int
        Number of patches that were labelled; 0 where the regions hold none.

    Raises
    ------
    ConfigError
        If no region has a class.
    GridError
        If the file is missing or damaged.
    """
    named = np.asarray(classes_of_regions(path, grid, least_covered), object)
    colors = class_colors(path)
    for name in sorted(set(named) - {""}):
        if name not in labels.names:
            made = next_class(labels.classes, name)
            color = colors.get(name, made.color)
            labels = labels.with_class(replace(made, color=color))
        rows = np.flatnonzero(named == name)
        labels = labels.with_labels(labels_of_rows(grid, rows, name, author, "import"))
    return labels, int((named != "").sum())


def _covered(
    areas: Sequence[object], boxes: NDArray[np.object_]
) -> NDArray[np.float64]:
    """Return the fraction of each box that some areas cover together, 0 to 1."""
    import shapely

    # Overlapping regions of one class must not count twice.
    whole = shapely.union_all(areas)
    shapely.prepare(whole)
    parts = np.zeros(len(boxes))
    # Intersections are slow, and most patches lie far from any region.
    near = shapely.intersects(whole, boxes)
    parts[near] = shapely.area(shapely.intersection(whole, boxes[near]))
    return np.asarray(parts / shapely.area(boxes))
