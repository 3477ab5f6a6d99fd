"""Points, patches, regions and masks of one section, carried over to the next.

Each is mapped by a :class:`~napari_mcm.core.registration.mapping.SectionMap`. What has no
place on the tissue of the other slide gets a state that says so, so that whoever carries
it can list it: nothing is dropped here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.registration.mapping import SectionMap
from napari_mcm.core.tissue import TissueMask
from napari_mcm.core.tissue.geojson import burn

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

State = Literal["placed", "off tissue", "off slide", "no place"]
"""How carrying ended. "no place": the registration maps no single place there."""

STATES: tuple[State, ...] = get_args(State)

LEAST_TISSUE = 0.25
"""Tissue fraction from which a carried patch or region lies on tissue."""

_LEAST_INSIDE = 0.5
"""Fraction of a carried patch or region that must lie on the slide."""

_SEGMENT_UM = 25.0
"""Longest straight line of a carried outline: longer ones are bent with the tissue."""


@dataclass(frozen=True, eq=False)
class CarriedPoints:
    """Points on the other slide.

    Attributes
    ----------
    xy : ndarray of float64, shape (N, 2)
        x and y in level-0 pixels of the other slide; NaN where there is no place.
    states : tuple of str
        One of :data:`STATES` for each point.
    """

    xy: NDArray[np.float64]
    states: tuple[State, ...]


@dataclass(frozen=True, eq=False)
class CarriedPatches:
    """Patches on the other slide, of the same size in microns.

    Attributes
    ----------
    xy, size : ndarray of float64, shape (N, 2)
        Upper left corner, and width and height, in level-0 pixels of the other slide.
    states : tuple of str
        One of :data:`STATES` for each patch.
    """

    xy: NDArray[np.float64]
    size: NDArray[np.float64]
    states: tuple[State, ...]


@dataclass(frozen=True, eq=False)
class CarriedRegion:
    """A geometry on the other slide.

    Attributes
    ----------
    geometry : shapely geometry
        In level-0 pixels of the other slide; empty where there is no place.
    state : str
        One of :data:`STATES`.
    on_tissue : float
        Fraction of it that lies on tissue, 0 to 1; 1 without a tissue mask.
    """

    geometry: BaseGeometry
    state: State
    on_tissue: float


def carry_points(
    mapping: SectionMap, xy: NDArray[Any], tissue: TissueMask | None = None
) -> CarriedPoints:
    """Carry points over to the other slide.

    Parameters
    ----------
    mapping : SectionMap
        Map between the slides.
    xy : ndarray, shape (N, 2)
        x and y in level-0 pixels of the map's source.
    tissue : TissueMask, optional
        Tissue of the map's target; without it, all of the slide counts as tissue.

    Returns
    -------
    CarriedPoints
        One per point, in the same order.
    """
    mapped = mapping.points(np.asarray(xy, np.float64).reshape(-1, 2))
    there = np.asarray(np.isfinite(mapped).all(axis=1))
    inside = np.asarray(there & _inside(mapped, mapping))
    on_tissue = _is_tissue(np.where(inside[:, None], mapped, 0), tissue)
    return CarriedPoints(mapped, _states(there, inside, inside & on_tissue))


def carry_patches(
    mapping: SectionMap,
    xy: NDArray[Any],
    size: NDArray[Any],
    tissue: TissueMask | None = None,
) -> CarriedPatches:
    """Carry patches over to the other slide: their centre is mapped, not their shape.

    Parameters
    ----------
    mapping : SectionMap
        Map between the slides.
    xy : ndarray, shape (N, 2)
        Upper left corners (x, y) in level-0 pixels of the map's source.
    size : ndarray, shape (N, 2) or (2,)
        Width and height in level-0 pixels of the map's source.
    tissue : TissueMask, optional
        Tissue of the map's target; without it, all of the slide counts as tissue.

    Returns
    -------
    CarriedPatches
        One per patch, in the same order.
    """
    xy = np.asarray(xy, np.float64).reshape(-1, 2)
    own = np.broadcast_to(np.asarray(size, np.float64), xy.shape)
    ratio = np.asarray(mapping.source.mpp) / np.asarray(mapping.target.mpp)
    sizes = own * ratio
    mapped = mapping.points(xy + own / 2) - sizes / 2
    there = np.asarray(np.isfinite(mapped).all(axis=1))
    corners = np.where(there[:, None], mapped, 0.0)
    inside = there & _inside(corners + sizes / 2, mapping)
    coverage = np.ones(len(xy))
    if tissue is not None:
        for one in np.unique(sizes, axis=0):
            same = np.all(sizes == one, axis=1)
            coverage[same] = tissue.coverage(corners[same], (one[0], one[1]))
    states = _states(there, inside, inside & (coverage >= LEAST_TISSUE))
    return CarriedPatches(mapped, sizes, states)


def carry_region(
    mapping: SectionMap, geometry: BaseGeometry, tissue: TissueMask | None = None
) -> CarriedRegion:
    """Carry a polygon, line or point over to the other slide; outlines bend with the tissue.

    Parameters
    ----------
    mapping : SectionMap
        Map between the slides.
    geometry : shapely geometry
        In level-0 pixels of the map's source.
    tissue : TissueMask, optional
        Tissue of the map's target; without it, all of the slide counts as tissue.

    Returns
    -------
    CarriedRegion
        Valid geometry; parts may reach over the slide's border.
    """
    import shapely

    longest = _SEGMENT_UM / max(mapping.source.mpp)
    dense = shapely.segmentize(geometry, longest)
    corners = mapping.points(shapely.get_coordinates(dense))
    if not len(corners) or not np.isfinite(corners).all():
        return CarriedRegion(shapely.GeometryCollection(), "no place", 0.0)
    mapped = shapely.make_valid(shapely.transform(dense, lambda _: corners))
    inside, on_tissue = _shares(mapped, mapping, tissue)
    state: State = "placed"
    if inside < _LEAST_INSIDE:
        state = "off slide"
    elif on_tissue < LEAST_TISSUE:
        state = "off tissue"
    return CarriedRegion(mapped, state, on_tissue)


def carry_mask(mapping: SectionMap, mask: TissueMask) -> TissueMask:
    """Carry a mask over to the other slide.

    Parameters
    ----------
    mapping : SectionMap
        Map between the slides.
    mask : TissueMask
        A mask of the map's source.

    Returns
    -------
    TissueMask
        Of the map's target, at the same resolution in microns; False where nothing of
        the source lies. Its source is that of the mask.
    """
    source, target = mapping.source, mapping.target
    step = np.asarray(mask.downsample) * source.mpp / np.asarray(target.mpp)
    width, height = (
        max(round(side / one), 1) for side, one in zip(target.size, step, strict=True)
    )
    downsample = target.size[0] / width, target.size[1] / height
    y, x = np.indices((height, width))
    centres = (np.stack([x, y], axis=-1) + 0.5) * downsample
    back = mapping.inverse.points(centres)
    there = np.asarray(np.isfinite(back).all(axis=-1))
    at = np.floor(np.where(there[..., None], back, -1) / mask.downsample).astype(int)
    rows, columns = mask.mask.shape
    there &= np.all((at >= 0) & (at < (columns, rows)), axis=-1)
    carried = np.zeros((height, width), bool)
    carried[there] = mask.mask[at[there][:, 1], at[there][:, 0]]
    return TissueMask(carried, downsample, mask.source)


def describe_states(states: Sequence[State], what: str) -> str:
    """Describe how carrying ended in one line.

    Parameters
    ----------
    states : sequence of str
        States of what was carried.
    what : str
        What was carried, in the plural: ``"labels"``.

    Returns
    -------
    str
        ``12 of 14 labels placed; 1 off tissue, 1 off slide``.
    """
    counts = Counter(states)
    text = f"{counts['placed']:,} of {len(states):,} {what} placed"
    rest = [f"{counts[one]:,} {one}" for one in STATES[1:] if counts[one]]
    return f"{text}; {', '.join(rest)}" if rest else text


def _inside(xy: NDArray[np.float64], mapping: SectionMap) -> NDArray[np.bool_]:
    return np.asarray(np.all((xy >= 0) & (xy < mapping.target.size), axis=-1))


def _is_tissue(xy: NDArray[np.float64], tissue: TissueMask | None) -> NDArray[np.bool_]:
    if tissue is None:
        return np.ones(len(xy), bool)
    height, width = tissue.mask.shape
    x, y = np.floor(xy / tissue.downsample).astype(int).T
    rows, columns = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
    return np.asarray(tissue.mask[rows, columns], np.bool_)


def _states(
    there: NDArray[np.bool_], inside: NDArray[np.bool_], on_tissue: NDArray[np.bool_]
) -> tuple[State, ...]:
    number = np.select([~there, ~inside, ~on_tissue], [3, 2, 1], 0)
    return tuple(STATES[one] for one in number.tolist())


def _shares(
    geometry: BaseGeometry, mapping: SectionMap, tissue: TissueMask | None
) -> tuple[float, float]:
    """Return the fractions of a geometry that lie on the slide, and on tissue."""
    import shapely

    slide = shapely.box(0, 0, *mapping.target.size)
    if geometry.area > 0:
        inside = shapely.intersection(geometry, slide).area / geometry.area
        covered = None if tissue is None else _covered(geometry, tissue)
        if covered is not None or tissue is None:
            return float(inside), 1.0 if covered is None else covered
        points = shapely.get_coordinates(geometry.representative_point())
    else:
        points = shapely.get_coordinates(geometry)
        inside = _inside(points, mapping).mean()
    return float(inside), float(_is_tissue(points, tissue).mean())


def _covered(geometry: BaseGeometry, tissue: TissueMask) -> float | None:
    """Return the tissue fraction of polygons; None for those without a mask pixel."""
    import shapely

    step = np.asarray(tissue.downsample)
    height, width = tissue.mask.shape
    small = shapely.transform(geometry, lambda xy: xy / step)
    low = np.floor(np.asarray(small.bounds[:2])).clip(0, (width, height)).astype(int)
    high = np.ceil(np.asarray(small.bounds[2:])).clip(0, (width, height)).astype(int)
    size = high - low
    if np.any(size < 1):
        return 0.0
    moved = shapely.transform(small, lambda xy: xy - low)
    w, h = int(size[0]), int(size[1])
    pixels = burn(moved, (w, h), (w, h))
    if not pixels.any():
        return None
    window = tissue.mask[low[1] : high[1], low[0] : high[0]]
    return float(window[pixels].mean())
