"""Placement of every nucleus on a slide.

The solid sheets of the tumour and of the ducts are filled by one function with one kind
of nucleus, so that no cell reveals which of the two it belongs to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from napari_mcm.core.synthetic.chart import Blob, Chart
from napari_mcm.core.synthetic.layout import Layout
from napari_mcm.core.synthetic.stamps import (
    KINDS,
    Bank,
    draw_bodies,
    draw_disc,
    draw_nuclei,
)
from napari_mcm.core.synthetic.textures import Field, Texture
from napari_mcm.core.synthetic.variation import CHROMATIN, Variation, thinned

Points = NDArray[np.floating[Any]]
"""Positions (x, y) in µm, shape (n, 2); or angles in radians, shape (n,)."""

SHEET_SPACING = 12.6
"""Mean distance in µm between neighbouring nuclei of a solid sheet."""


@dataclass(frozen=True)
class Palette:
    """Stamps and textures that all slides of a cohort share.

    Attributes
    ----------
    nuclei : mapping of str to Bank
        Drawn nuclei of each kind.
    bodies : ndarray of float32, shape (variants, side, side)
        Cell bodies.
    red_cells : ndarray of float32, shape (variants, side, side)
        Red blood cells.
    white, fine, mid, bundles : Texture
        Noise, smooth over 0, 0.5, 2.5 and 0.8 µm.
    """

    nuclei: Mapping[str, Bank]
    bodies: Field
    red_cells: Field
    white: Texture
    fine: Texture
    mid: Texture
    bundles: Texture


def mix_palette(mpp: float, rng: np.random.Generator) -> Palette:
    """Draw the stamps and textures of a cohort.

    Parameters
    ----------
    mpp : float
        Microns per level-0 pixel.
    rng : Generator
        Source of the randomness.

    Returns
    -------
    Palette
        Shared by all slides.
    """
    nuclei = {name: draw_nuclei(kind, mpp, rng) for name, kind in KINDS.items()}
    return Palette(
        nuclei,
        draw_bodies(9.5, mpp, rng),
        draw_disc(3.3, mpp, rng),
        Texture(0.0, rng),
        Texture(0.5 / mpp, rng),
        Texture(2.5 / mpp, rng),
        Texture(0.8 / mpp, rng),
    )


@dataclass(frozen=True)
class Cells:
    """Stamps to paste onto a slide.

    Attributes
    ----------
    x, y : ndarray of int32, shape (n,)
        Centres in level-0 pixels.
    stamp : ndarray of int16, shape (n,)
        Index of the stamp in its bank.
    gain : ndarray of float32, shape (n,)
        Strength of the stain, about 1.
    """

    x: NDArray[np.int32]
    y: NDArray[np.int32]
    stamp: NDArray[np.int16]
    gain: NDArray[np.float32]

    def within(self, left: int, top: int, right: int, bottom: int) -> Cells:
        """Select the stamps whose centre lies in a box.

        Parameters
        ----------
        left, top, right, bottom : int
            The box in level-0 pixels; right and bottom are excluded.

        Returns
        -------
        Cells
            Those stamps.
        """
        inside = (self.x >= left) & (self.x < right)
        inside &= (self.y >= top) & (self.y < bottom)
        return Cells(
            self.x[inside], self.y[inside], self.stamp[inside], self.gain[inside]
        )


def place_cells(
    layout: Layout,
    palette: Palette,
    fibres: tuple[Field, Field],
    adipocytes: Points,
    variation: Variation | None = None,
) -> dict[str, Cells]:
    """Place the nuclei of a slide.

    Parameters
    ----------
    layout : Layout
        The plan.
    palette : Palette
        The stamps to choose from.
    fibres : tuple of ndarray of float32, shape (rows, columns)
        Direction of collagen, see :func:`lay_fibres`.
    adipocytes : ndarray, shape (n, 2)
        Centres of fat cells in µm (x, y).
    variation : Variation, optional
        How cells vary from place to place; by default not at all.

    Returns
    -------
    dict of str to Cells
        By kind of nucleus, with ``"bodies"`` and ``"red_cells"``.
    """
    placed = _Placer(layout, palette, variation)
    sheets, bodies = _sheet_points(layout)
    placed.add("tumour", sheets)
    lining = [_ring(layout.chart.rng, acinus) for acinus in layout.acini]
    for points, angle in lining:
        placed.add("epithelial", points, angle)
        bodies = np.concatenate([bodies, points])
    for blob in (*layout.acini, *layout.vessel_blobs):
        placed.add("spindle", *_sleeve(layout.chart.rng, blob))
    placed.add("spindle", *_stroma_points(layout, fibres, variation))
    placed.add("spindle", *_fat_points(layout, adipocytes))
    placed.add("lymphocyte", _lymph_points(layout))
    placed.add_plain("bodies", bodies, len(palette.bodies))
    placed.add_plain("red_cells", _red_cells(layout), len(palette.red_cells))
    return placed.cells()


def pack(chart: Chart, depth: Field, spacing: float, least: float = 0.0) -> Points:
    """Fill a region with irregular points of a given spacing.

    A jittered hexagonal lattice gives the density; repulsion between neighbours then
    removes both the lattice and collisions.

    Parameters
    ----------
    chart : Chart
        The grid, and the randomness.
    depth : ndarray of float32, shape (rows, columns)
        Signed depth in µm inside the region.
    spacing : float
        Mean distance between neighbours in µm.
    least : float, optional
        Depth in µm from which points are allowed.

    Returns
    -------
    ndarray, shape (n, 2)
        Points (x, y) in µm.
    """
    where = np.argwhere(depth > least)
    if not len(where):
        return np.empty((0, 2))
    low = where.min(axis=0) * chart.pitch
    high = where.max(axis=0) * chart.pitch
    rise = spacing * math.sqrt(3) / 2
    rows, cols = np.mgrid[
        0 : math.ceil((high[0] - low[0]) / rise) + 1,
        0 : math.ceil((high[1] - low[1]) / spacing) + 1,
    ]
    x = low[1] + (cols + 0.5 * (rows % 2)) * spacing
    y = low[0] + rows * rise
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    points = points[chart.at(depth, *points.T) > least - spacing]
    points += chart.rng.normal(0, 0.33 * spacing, points.shape)
    points = _settle(chart, depth, points, least, 0.3 * spacing)
    points = _push_apart(points, 0.86 * spacing)
    return points[chart.at(depth, *points.T) > least]


def _settle(
    chart: Chart, depth: Field, points: Points, least: float, reach: float
) -> Points:
    """Move points just outside a region inwards, so that they line its border."""
    here = chart.at(depth, *points.T)
    outside = np.flatnonzero((here > least - reach) & (here < least + 0.5))
    steep = np.gradient(depth)
    inwards = np.stack([chart.at(steep[axis], *points[outside].T) for axis in (1, 0)])
    inwards /= np.maximum(np.hypot(*inwards), 1e-3)
    points[outside] += (inwards * (least + 1.5 - here[outside])).T
    return points


def _push_apart(points: Points, apart: float) -> Points:
    for _ in range(3):
        if len(points) < 2:
            break
        pairs = cKDTree(points).query_pairs(apart, output_type="ndarray")
        between = points[pairs[:, 1]] - points[pairs[:, 0]]
        length = np.maximum(np.hypot(*between.T), 1e-6)[:, None]
        shift = between / length * (apart - length) * 0.4
        moves = np.zeros_like(points)
        np.add.at(moves, pairs[:, 0], -shift)
        np.add.at(moves, pairs[:, 1], shift)
        points = points + moves
    return points


def _sheet_points(layout: Layout) -> tuple[Points, Points]:
    """Place nuclei and cell bodies of the solid sheets, tumour and ducts alike."""
    chart = layout.chart
    solid = np.minimum(layout.solid, -layout.lumens - 2)
    bodies = pack(chart, solid, SHEET_SPACING, 3.0)
    # A section misses some nuclei of the cells it cuts.
    seen = chart.rng.random(len(bodies)) > 0.07
    seen &= chart.at(solid, *bodies.T) > 2.0
    nuclei = bodies[seen] + chart.rng.normal(0, 0.9, (int(seen.sum()), 2))
    return nuclei, bodies


def _ring(rng: np.random.Generator, acinus: Blob) -> tuple[Points, Points]:
    """Line an acinus with one layer of nuclei that point at the lumen."""
    count = max(6, round(2 * math.pi * (acinus.radius - 4.5) / 6.0))
    angle = np.linspace(0, 2 * math.pi, count, endpoint=False)
    angle += rng.normal(0, 0.7 / count, count)
    x, y, outward = acinus.outline(angle, 5.0)
    points = np.stack([x, y], axis=1) + rng.normal(0, 1.3, (count, 2))
    return points, outward + rng.normal(0, 0.3, count)


def _sleeve(rng: np.random.Generator, blob: Blob) -> tuple[Points, Points]:
    """Place flat nuclei around an acinus or in a vessel's wall."""
    count = max(3, round(2 * math.pi * blob.radius / 21))
    angle = rng.uniform(0, 2 * math.pi, count)
    x, y, outward = blob.outline(angle, 0.5)
    return np.stack([x, y], axis=1), outward + math.pi / 2 + rng.normal(0, 0.12, count)


def _stroma_points(
    layout: Layout, fibres: tuple[Field, Field], variation: Variation | None
) -> tuple[Points, Points]:
    """Place fibroblasts along the collagen, more of them close to epithelium."""
    chart = layout.chart
    taken = np.maximum(layout.solid, np.maximum(layout.glands, layout.fat))
    taken = np.maximum(taken, layout.vessels)
    points = pack(chart, np.minimum(layout.tissue, -taken - 2.5), 23.0)
    near = np.exp(-np.clip(-chart.at(taken, *points.T), 0, None) / 45)
    kept = 0.5 + 0.5 * near
    if variation is not None:
        kept *= chart.at(thinned(variation), *points.T)
    points = points[chart.rng.random(len(points)) < kept]
    angle = np.arctan2(chart.at(fibres[1], *points.T), chart.at(fibres[0], *points.T))
    return points, angle / 2 + chart.rng.normal(0, 0.16, len(points))


def _fat_points(layout: Layout, adipocytes: Points) -> tuple[Points, Points]:
    """Place flattened nuclei in the membranes between fat cells."""
    if len(adipocytes) < 2:
        return np.empty((0, 2)), np.empty(0)
    chart = layout.chart
    _, nearest = cKDTree(adipocytes).query(adipocytes, k=2)
    across = adipocytes[nearest[:, 1]] - adipocytes
    points = adipocytes + across / 2
    keep = (chart.rng.random(len(points)) < 0.6) & (chart.at(layout.fat, *points.T) > 4)
    angle = np.arctan2(across[:, 1], across[:, 0]) + math.pi / 2
    return points[keep], angle[keep]


def _lymph_points(layout: Layout) -> Points:
    chart = layout.chart
    points = pack(chart, np.where(layout.lymph > 0, 1, -99).astype(np.float32), 6.9)
    return points[chart.rng.random(len(points)) < chart.at(layout.lymph, *points.T)]


def _red_cells(layout: Layout) -> Points:
    """Place red blood cells in two vessels of three."""
    chart = layout.chart
    inside = chart.empty()
    for blob in layout.vessel_blobs:
        if chart.rng.random() < 0.67:
            chart.stamp(inside, blob)
    points = pack(chart, np.minimum(inside - 5, layout.lumens), 5.8)
    return points[chart.rng.random(len(points)) < 0.8]


class _Placer:
    """Collects points in µm and converts them to stamps on pixels."""

    def __init__(
        self, layout: Layout, palette: Palette, variation: Variation | None
    ) -> None:
        self._chart, self._tissue, self._palette = layout.chart, layout.tissue, palette
        self._variation = variation
        self._parts: dict[str, list[Cells]] = {}

    def add(self, kind: str, points: Points, angle: Points | None = None) -> None:
        """Add nuclei at angles in radians, at any angle by default."""
        rng = self._chart.rng
        if angle is None:
            angle = rng.uniform(0, math.pi, len(points))
        self._append(kind, points, self._palette.nuclei[kind].pick(angle, rng))

    def add_plain(self, kind: str, points: Points, variants: int) -> None:
        """Add stamps that have no direction."""
        chosen = self._chart.rng.integers(0, variants, len(points))
        self._append(kind, points, chosen.astype(np.int16))

    def cells(self) -> dict[str, Cells]:
        """Return all stamps that were added, by kind."""
        return {
            kind: Cells(
                np.concatenate([part.x for part in parts]),
                np.concatenate([part.y for part in parts]),
                np.concatenate([part.stamp for part in parts]),
                np.concatenate([part.gain for part in parts]),
            )
            for kind, parts in self._parts.items()
        }

    def _append(self, kind: str, points: Points, stamp: NDArray[np.int16]) -> None:
        keep = self._chart.at(self._tissue, *points.T) > 2
        pixels = np.rint(points[keep] * (self._chart.step / self._chart.pitch))
        gain = self._chart.rng.normal(1, 0.1, len(pixels)).clip(0.7, 1.3)
        if self._variation is not None:
            there = self._chart.at(self._variation.chromatin, *points[keep].T)
            gain = gain * (1 + CHROMATIN * there)
        x, y = pixels.astype(np.int32).T
        self._parts.setdefault(kind, []).append(
            Cells(x, y, stamp[keep], gain.astype(np.float32))
        )
