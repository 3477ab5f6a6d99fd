"""Where the compartments of a slide lie: the plan, before anything is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_mcm.core.samples.chart import FAR, Blob, Chart, Field, Mask, draw_blob
from napari_mcm.core.samples.pen import Pen, draw_pen

DUCT_RADIUS = 185.0
"""Mean radius in µm of a hyperplastic duct: holds a 112 µm patch, not a 448 µm window."""
GAP = 75.0
"""Stroma in µm between one duct and the next."""


@dataclass(frozen=True)
class Layout:
    """The plan of one slide, as signed depths in µm on the chart's grid.

    Attributes
    ----------
    chart : Chart
        The grid.
    tissue, tumour, ducts, glands, lumens, lobules, fat, vessels : Field
        Depth inside each compartment, negative outside. `tumour` and `ducts` are filled
        with the same cells.
    lymph : Field
        Lymphocytes as a share of the densest packing, 0 to 1.
    acini, vessel_blobs : tuple of Blob
        Small round structures whose lining is placed cell by cell.
    pen : Pen or None
        A marker stroke on the cover slip.
    """

    chart: Chart
    tissue: Field
    tumour: Field
    ducts: Field
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
        """Depth inside the solid cell sheets, of tumour and ducts alike."""
        return np.maximum(self.tumour, self.ducts)


def plan_slide(chart: Chart, tumour_share: float) -> Layout:
    """Lay out one slide.

    Parameters
    ----------
    chart : Chart
        The grid, and the randomness.
    tumour_share : float
        Share of the tissue that the invasive tumour takes; 0 for none.

    Returns
    -------
    Layout
        The plan.
    """
    tissue = _tissue(chart)
    area = float((tissue > 0).sum()) * (chart.pitch / 1000) ** 2
    tumour = _tumour(chart, tissue, tumour_share)
    free = np.minimum(tissue, -tumour - 30)
    ducts, lumens = _ducts(chart, free, area)
    free = np.minimum(free, -ducts - 20)
    glands, lobules, acini = _lobules(chart, free, lumens, area)
    free = np.minimum(free, -lobules - 15)
    vessels, vessel_blobs = _vessels(chart, free, lumens, area)
    free = np.minimum(free, -vessels - 15)
    return Layout(
        chart,
        tissue,
        tumour,
        ducts,
        glands,
        lumens,
        lobules,
        _fat(chart, free, tissue),
        vessels,
        _lymph(chart, free, tumour, area),
        tuple(acini),
        tuple(vessel_blobs),
        draw_pen(chart, tissue),
    )


def _tissue(chart: Chart) -> Field:
    """An irregular piece of tissue on 50 to 70 % of the slide."""
    rng, extent = chart.rng, chart.extent
    cx, cy = extent * rng.uniform(0.46, 0.54, 2)
    wide = rng.uniform(0.85, 1.2)
    height = 1 - np.hypot((chart.x - cx) * wide, (chart.y - cy) / wide) / (extent / 2)
    for length, weight in ((0.14, 0.17), (0.05, 0.05), (0.018, 0.018)):
        height += weight * chart.noise(extent * length)
    edge = np.minimum(chart.x, chart.y)
    edge = np.minimum(edge, extent - np.maximum(chart.x, chart.y)) / extent
    height -= 14 * np.clip(0.055 - edge, 0, None)
    mask = chart.share(height, np.ones(chart.shape, bool), rng.uniform(0.53, 0.67))
    mask = ndimage.binary_fill_holes(mask)
    labels, count = ndimage.label(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    keep = sizes > 0.03 * sizes.max()
    return chart.depth(keep[labels]) + 1.5 * chart.noise(6)


def _tumour(chart: Chart, tissue: Field, share: float) -> Field:
    """Invasive tumour: broad irregular sheets with septa, and outlying nests."""
    if share <= 0:
        return chart.empty()
    inner = tissue > min(25.0, float(tissue.max()) / 3)
    x, y = chart.pick(inner & (tissue > 0.6 * tissue.max()))
    reach = max(chart.extent * 0.3, 1.0)
    near = -np.hypot(chart.x - x, chart.y - y) / reach
    near += 0.22 * chart.noise(chart.extent * 0.07) + 0.07 * chart.noise(40)
    share *= float((tissue > 0).sum()) / max(float(inner.sum()), 1.0)
    region = chart.share(near, inner, share)
    labels, _ = ndimage.label(region)
    row, col = (round(v / chart.pitch) for v in (y, x))
    if labels[row, col]:
        region = labels == labels[row, col]
    # Septa: the low quarter of a field with waves as long as the sheets are broad.
    septa = chart.noise(62) + 0.32 * chart.noise(16)
    sheets = chart.share(septa, region, 0.80)
    rim = inner & ~region & (chart.depth(region) > -70)
    nests = rim & (chart.noise(15) > 1.15)
    return chart.depth(_without_specks(chart, sheets | nests, 900.0))


def _without_specks(chart: Chart, mask: Mask, least: float) -> Mask:
    """Drop pieces and fill holes smaller than `least` µm²."""
    for keep in (True, False):
        labels, _ = ndimage.label(mask == keep)
        small = np.bincount(labels.ravel()) * chart.pitch**2 < least
        small[0] = False
        mask = mask ^ small[labels]
    return mask


def _ducts(chart: Chart, free: Field, area: float) -> tuple[Field, Field]:
    """Round hyperplastic ducts in stroma; some have a slit of a lumen."""
    rng, ducts, lumens = chart.rng, chart.empty(), chart.empty()
    room = chart.depth(free > 0) if free.max() < FAR else _room(chart, free)
    radius = min(DUCT_RADIUS, 0.62 * float(room.max()))
    if radius < 40:
        return ducts, lumens
    centres = room > radius + 12
    wanted = max(1, round(area * 2.6))
    for x, y in chart.scatter(centres, 2 * radius + GAP, wanted):
        blob = draw_blob(x, y, radius * rng.uniform(0.9, 1.03), 0.05, rng)
        chart.stamp(ducts, blob)
        if rng.random() < 0.4:
            # Off centre, so that whole patches of sheet remain.
            away = rng.uniform(0.35, 0.6) * radius
            turn = rng.uniform(0, 2 * np.pi)
            x, y = x + away * np.cos(turn), y + away * np.sin(turn)
            chart.stamp(lumens, draw_blob(x, y, rng.uniform(12, 24), 0.3, rng))
    return ducts + chart.noise(10), lumens


def _room(chart: Chart, free: Field) -> Field:
    """Unclipped distance to the nearest thing in the way, in µm."""
    return (ndimage.distance_transform_edt(free > 0) * chart.pitch).astype(np.float32)


def _lobules(
    chart: Chart, free: Field, lumens: Field, area: float
) -> tuple[Field, Field, list[Blob]]:
    """Normal lobules: clusters of small acini in loose stroma."""
    rng, glands, lobules = chart.rng, chart.empty(), chart.empty()
    acini: list[Blob] = []
    room = _room(chart, free)
    radius = min(125.0, 0.7 * float(room.max()))
    if radius < 45:
        return glands, lobules, acini
    wanted = max(1, round(area * 2.2))
    for x, y in chart.scatter(room > radius * 0.95, 2.6 * radius, wanted):
        lobule = draw_blob(x, y, radius * rng.uniform(0.75, 1.1), 0.12, rng)
        inside = chart.empty()
        chart.stamp(inside, lobule)
        chart.stamp(lobules, lobule)
        for ax, ay in chart.scatter(inside > 24, 69, 24):
            acinus = draw_blob(ax, ay, rng.uniform(21, 33), 0.13, rng)
            hollow = draw_blob(ax, ay, acinus.radius * rng.uniform(0.2, 0.5), 0.25, rng)
            chart.stamp(glands, acinus)
            chart.stamp(lumens, hollow)
            acini.append(acinus)
    return glands, lobules, acini


def _vessels(
    chart: Chart, free: Field, lumens: Field, area: float
) -> tuple[Field, list[Blob]]:
    """Small vessels in the stroma."""
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
    """Fat towards one side of the tissue, in what room is left."""
    rng = chart.rng
    turn = rng.uniform(0, 2 * np.pi)
    slope = chart.x * np.cos(turn) + chart.y * np.sin(turn)
    slope = slope * (2.2 / chart.extent) + chart.noise(max(chart.extent * 0.07, 40))
    where = free > 12
    share = rng.uniform(0.08, 0.2) * (tissue > 0).sum() / max(where.sum(), 1)
    mask = chart.share(slope, where, float(min(share, 0.5)))
    return chart.depth(_without_specks(chart, mask, 9000.0))


def _lymph(chart: Chart, free: Field, tumour: Field, area: float) -> Field:
    """Lymphocytes: follicle-like clusters, and patches along the tumour's front."""
    rng, clusters = chart.rng, chart.empty()
    wanted = int(rng.poisson(0.5 * area))
    for x, y in chart.scatter(free > 30, 250, wanted):
        chart.stamp(clusters, draw_blob(x, y, rng.uniform(35, 85), 0.2, rng))
    front = np.exp(-np.square(np.clip(-tumour, 0, None) / 30)) * (chart.noise(55) - 0.3)
    dense = np.clip(clusters / 25 + 0.6, 0, 1) + np.clip(front, 0, 0.7)
    sparse = np.clip(0.05 * chart.noise(40), 0, 0.1)
    return (np.maximum(dense, sparse) * (free > 2)).clip(0, 1).astype(np.float32)
