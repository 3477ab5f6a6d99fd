"""Plan of a slide: where its compartments lie, before anything is drawn.

Tissue, tumour, ducts, lobules, vessels and fat are placed one after the other, each in
the room that the earlier ones leave, as signed depths in µm on a coarse grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_mcm.core.synthetic.chart import Blob, Chart, Mask, draw_blob
from napari_mcm.core.synthetic.textures import Field

INKS = {
    "blue": (2.1, 1.35, 0.42),
    "green": (1.75, 0.62, 1.25),
    "black": (1.9, 1.85, 1.7),
}


@dataclass(frozen=True)
class Pen:
    """A stroke of a marker pen.

    Attributes
    ----------
    amount : ndarray of float32, shape (rows, columns)
        Amount of ink on the chart's grid.
    colour : tuple of float
        Absorbance of red, green and blue for one unit of ink.
    """

    amount: Field
    colour: tuple[float, float, float]


def draw_pen(chart: Chart, tissue: Field) -> Pen:
    """Draw a stroke along part of the tissue's outline.

    Parameters
    ----------
    chart : Chart
        The grid, and the randomness.
    tissue : ndarray of float32, shape (rows, columns)
        Signed depth in µm inside the tissue.

    Returns
    -------
    Pen
        The stroke.
    """
    rng = chart.rng
    ink = INKS[str(rng.choice(sorted(INKS)))]
    angle = rng.uniform(0, 2 * np.pi) + np.linspace(0, rng.uniform(0.9, 2.0), 4000)
    radius = _reach(chart, tissue, angle) * rng.uniform(1.0, 1.06)
    centre = chart.extent / 2
    width = max(0.017 * chart.extent, 14.0) * rng.uniform(0.8, 1.3)
    path = np.zeros(chart.shape, bool)
    column, row = (
        np.rint((centre + radius * part) / chart.pitch)
        .astype(int)
        .clip(0, len(path) - 1)
        for part in (np.cos(angle), np.sin(angle))
    )
    path[row, column] = True
    away = ndimage.distance_transform_edt(~path) * chart.pitch
    edge = width + 2.5 * chart.noise(8) - away
    cover = np.clip(edge / 6 + 0.5, 0, 1)
    # Ink pools at the rim of the stroke and dries in streaks.
    pooled = 1 + 0.3 * np.exp(-np.square(edge / (0.22 * width)))
    streaks = 0.82 + 0.14 * chart.noise(0.25 * width) + 0.07 * chart.noise(5)
    return Pen((cover * pooled * streaks).clip(0, 2).astype(np.float32), ink)


def _reach(chart: Chart, tissue: Field, angle: Field) -> Field:
    """Return the smoothed distance from the centre to the tissue's border, in µm."""
    some = angle[:: max(len(angle) // 150, 1)]
    far = np.linspace(0, 0.49 * chart.extent, 200)[:, None]
    centre = chart.extent / 2
    x, y = centre + far * np.cos(some), centre + far * np.sin(some)
    inside = chart.at(tissue, x, y) > 0
    border = np.where(inside, far, 0).max(axis=0)
    return np.asarray(np.poly1d(np.polyfit(some, border, 4))(angle))


DUCT_RADIUS = 185.0
"""Mean radius in µm of a duct: a patch of 112 µm fits in, a window of 448 µm does not."""

SEPTUM = 1.7
"""Half the width in µm of the septa between nests."""

GAP = 110.0
"""Smallest distance in µm between ducts."""


@dataclass(frozen=True)
class Layout:
    """The plan of one slide, as signed depths in µm on the chart's grid.

    All fields are ndarrays of float32, shape (rows, columns).

    Attributes
    ----------
    chart : Chart
        The grid.
    tissue, tumour, ducts, glands, lumens, lobules, fat, vessels : ndarray of float32
        Depth inside each compartment, negative outside. `tumour` and `ducts` are
        filled with the same cells.
    nests : ndarray of float32
        Distance from the thin septa that divide cell sheets into nests.
    lymph : ndarray of float32
        Density of lymphocytes relative to the densest packing, 0 to 1.
    acini, vessel_blobs : tuple of Blob
        Small round structures whose lining is placed cell by cell.
    pen : Pen or None
        A marker stroke on the cover slip.
    """

    chart: Chart
    tissue: Field
    tumour: Field
    ducts: Field
    nests: Field
    glands: Field
    lumens: Field
    lobules: Field
    fat: Field
    vessels: Field
    lymph: Field
    acini: tuple[Blob, ...]
    vessel_blobs: tuple[Blob, ...]
    pen: Pen | None

    @property
    def sheets(self) -> Field:
        """Depth inside the cell sheets, of tumour and ducts alike, in µm.

        Returns
        -------
        ndarray of float32, shape (rows, columns)
        """
        return np.maximum(self.tumour, self.ducts)

    @property
    def solid(self) -> Field:
        """Depth inside the nests that the sheets consist of, in µm.

        Returns
        -------
        ndarray of float32, shape (rows, columns)
        """
        return np.minimum(self.sheets, np.abs(self.nests) - SEPTUM)


def plan_slide(chart: Chart, tumour_share: float, marked: bool) -> Layout:
    """Plan one slide.

    Parameters
    ----------
    chart : Chart
        The grid, and the randomness.
    tumour_share : float
        Fraction of the tissue that the invasive tumour takes; 0 for none.
    marked : bool
        Whether the slide has a pen mark.

    Returns
    -------
    Layout
        The plan.
    """
    tissue = _tissue(chart)
    area = float((tissue > 0).sum()) * (chart.pitch / 1000) ** 2
    tumour = _tumour(chart, tissue, tumour_share)
    free = np.minimum(tissue, -tumour - 60)
    ducts = _ducts(chart, free, area)
    lumens = _sheet_lumens(chart, np.maximum(tumour, ducts))
    free = np.minimum(free, -ducts - 20)
    glands, lobules, acini = _lobules(chart, free, lumens, area)
    free = np.minimum(free, -lobules - 15)
    vessels, vessel_blobs = _vessels(chart, free, lumens, area)
    free = np.minimum(free, -vessels - 15)
    fat = _fat(chart, free, tissue)
    return Layout(
        chart,
        tissue,
        tumour,
        ducts,
        _nests(chart),
        glands,
        lumens,
        lobules,
        fat,
        vessels,
        _lymph(chart, np.minimum(free, -fat), tumour, area),
        tuple(acini),
        tuple(vessel_blobs),
        draw_pen(chart, tissue) if marked else None,
    )


def _tissue(chart: Chart) -> Field:
    """Draw an irregular piece of tissue on 50 to 70 % of the slide."""
    rng, extent = chart.rng, chart.extent
    cx, cy = extent * rng.uniform(0.47, 0.53, 2)
    wide = rng.uniform(0.9, 1.12)
    height = 1 - np.hypot((chart.x - cx) * wide, (chart.y - cy) / wide) / (extent / 2)
    for length, weight in ((0.11, 0.15), (0.04, 0.045), (0.015, 0.016)):
        height += weight * chart.noise(extent * length)
    edge = np.minimum(chart.x, chart.y)
    edge = np.minimum(edge, extent - np.maximum(chart.x, chart.y)) / extent
    height -= 0.5 * np.exp(-edge / (0.03 * rng.uniform(0.8, 1.2)))
    mask = chart.share(height, np.ones(chart.shape, bool), rng.uniform(0.52, 0.64))
    mask = ndimage.binary_fill_holes(mask)
    labels, count = ndimage.label(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    keep = sizes > 0.03 * sizes.max()
    return chart.depth(keep[labels]) + 2 * chart.noise(14) + 1.2 * chart.noise(6)


def _tumour(chart: Chart, tissue: Field, share: float) -> Field:
    """Draw invasive tumour: broad irregular sheets and outlying nests."""
    if share <= 0:
        return chart.empty()
    inner = tissue > min(25.0, float(tissue.max()) / 3)
    x, y = chart.pick(inner & (tissue > 0.6 * tissue.max()))
    reach = max(chart.extent * 0.3, 1.0)
    near = -np.hypot(chart.x - x, chart.y - y) / reach
    near += 0.26 * chart.noise(chart.extent * 0.07) + 0.09 * chart.noise(40)
    near += 0.25 * np.clip(tissue / 80, 0, 1)
    share *= float((tissue > 0).sum()) / max(float(inner.sum()), 1.0)
    region = chart.share(near, inner, share)
    labels, _ = ndimage.label(region)
    row, col = (round(v / chart.pitch) for v in (y, x))
    if labels[row, col]:
        region = labels == labels[row, col]
    # Septa: the lowest values of a field whose waves are as long as sheets are broad.
    septa = chart.noise(72) + 0.32 * chart.noise(16)
    sheets = chart.share(septa, region, 0.83)
    rim = inner & ~region & (chart.depth(region) > -70)
    nests = rim & (chart.noise(15) > 1.15)
    return chart.depth(_without_specks(chart, sheets | nests, 900.0))


def _nests(chart: Chart) -> Field:
    """Return the distance to septa of varying width, with the same statistics everywhere."""
    width = np.exp(1.1 * np.clip(chart.noise(60), -0.5, None) + 0.5)
    nests: Field = chart.noise(34) * 34 * width
    return nests


def _without_specks(chart: Chart, mask: Mask, least: float) -> Mask:
    """Remove pieces and fill holes smaller than `least` µm²."""
    for keep in (True, False):
        labels, _ = ndimage.label(mask == keep)
        small = np.bincount(labels.ravel()) * chart.pitch**2 < least
        small[0] = False
        mask = mask ^ small[labels]
    return mask


def _ducts(chart: Chart, free: Field, area: float) -> Field:
    """Draw round hyperplastic ducts, each isolated in stroma."""
    rng, ducts = chart.rng, chart.empty()
    room = _room(chart, free)
    radius = min(DUCT_RADIUS, 0.75 * float(room.max()))
    if radius < 40:
        return ducts
    wanted = max(1, round(area * 2.0))
    for x, y in chart.scatter(room > radius + 12, 2 * radius + GAP, wanted):
        blob = draw_blob(x, y, radius * rng.uniform(0.9, 1.03), 0.09, rng)
        chart.stamp(ducts, blob)
    return ducts + chart.noise(10)


def _sheet_lumens(chart: Chart, sheets: Field) -> Field:
    """Draw small lumens into cell sheets, equally often in ducts and tumour."""
    lumens = chart.empty()
    sheet_area = float((sheets > 0).sum()) * (chart.pitch / 1000) ** 2
    wanted = int(chart.rng.poisson(4.0 * sheet_area))
    for x, y in chart.scatter(sheets > 28, 90, wanted):
        radius = chart.rng.uniform(9, 20)
        chart.stamp(lumens, draw_blob(x, y, radius, 0.3, chart.rng))
    return lumens


def _room(chart: Chart, free: Field) -> Field:
    """Return the distance to the nearest occupied point, in µm, unclipped."""
    room: Field = ndimage.distance_transform_edt(free > 0) * chart.pitch
    return room


def _lobules(
    chart: Chart, free: Field, lumens: Field, area: float
) -> tuple[Field, Field, list[Blob]]:
    """Draw normal lobules: clusters of small acini in loose stroma."""
    rng, glands, lobules = chart.rng, chart.empty(), chart.empty()
    acini: list[Blob] = []
    room = _room(chart, free)
    radius = min(115.0, 0.7 * float(room.max()))
    if radius < 45:
        return glands, lobules, acini
    wanted = max(1, round(area * 2.2))
    for x, y in chart.scatter(room > radius * 0.95, 2.6 * radius, wanted):
        lobule = draw_blob(x, y, radius * rng.uniform(0.65, 1.15), 0.22, rng)
        inside = chart.empty()
        chart.stamp(inside, lobule)
        chart.stamp(lobules, lobule)
        for ax, ay in chart.scatter(inside > 19, 42, 50):
            acinus = draw_blob(ax, ay, rng.uniform(14.5, 23.5), 0.2, rng)
            hollow = draw_blob(ax, ay, acinus.radius * rng.uniform(0.08, 0.5), 0.3, rng)
            chart.stamp(glands, acinus)
            chart.stamp(lumens, hollow)
            acini.append(acinus)
    return glands, lobules, acini


def _vessels(
    chart: Chart, free: Field, lumens: Field, area: float
) -> tuple[Field, list[Blob]]:
    """Draw small vessels in the stroma."""
    rng, vessels = chart.rng, chart.empty()
    blobs: list[Blob] = []
    for x, y in chart.scatter(free > 25, 150, round(area * 5)):
        blob = draw_blob(x, y, rng.uniform(8, 22), 0.12, rng)
        blobs.append(blob)
        chart.stamp(vessels, blob)
        inner = Blob(x, y, blob.radius * 0.68, blob.squash * 1.1, blob.turn, blob.waves)
        chart.stamp(lumens, inner)
    return vessels, blobs


def _fat(chart: Chart, free: Field, tissue: Field) -> Field:
    """Draw fat towards one side of the tissue, in the room that is left."""
    rng = chart.rng
    turn = rng.uniform(0, 2 * np.pi)
    slope = chart.x * np.cos(turn) + chart.y * np.sin(turn)
    slope = slope * (2.2 / chart.extent) + chart.noise(max(chart.extent * 0.08, 50))
    where = free > 12
    share = rng.uniform(0.06, 0.15) * (tissue > 0).sum() / max(where.sum(), 1)
    mask = chart.share(slope, where, float(min(share, 0.35)))
    return chart.depth(_without_specks(chart, mask, 9000.0))


def _lymph(chart: Chart, free: Field, tumour: Field, area: float) -> Field:
    """Draw lymphocytes: clusters, and patches along the tumour's front."""
    rng, clusters = chart.rng, chart.empty()
    wanted = int(rng.poisson(0.5 * area))
    for x, y in chart.scatter(free > 30, 250, wanted):
        chart.stamp(clusters, draw_blob(x, y, rng.uniform(35, 85), 0.2, rng))
    front = np.exp(-np.square(np.clip(-tumour, 0, None) / 30)) * (chart.noise(55) - 0.3)
    dense = np.clip(clusters / 25 + 0.6, 0, 1) + np.clip(front, 0, 0.7)
    sparse = np.clip(0.05 * chart.noise(40), 0, 0.1)
    lymph: Field = (np.maximum(dense, sparse) * (free > 2)).clip(0, 1)
    return lymph
