"""Marker strokes on the cover slip, as pathologists leave them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_mcm.core.samples.chart import Chart
from napari_mcm.core.samples.noise import Field

INKS = {
    "blue": (2.1, 1.35, 0.42),
    "green": (1.75, 0.62, 1.25),
    "black": (1.9, 1.85, 1.7),
}


@dataclass(frozen=True)
class Pen:
    """A stroke: the amount of ink on the chart's grid, and the ink's densities."""

    amount: Field
    colour: tuple[float, float, float]


def draw_pen(chart: Chart, tissue: Field) -> Pen:
    """Draw a stroke along part of the tissue's outline."""
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
    """Measure from the centre to the tissue's border at each angle, smoothed."""
    some = angle[:: max(len(angle) // 150, 1)]
    far = np.linspace(0, 0.49 * chart.extent, 200)[:, None]
    centre = chart.extent / 2
    x, y = centre + far * np.cos(some), centre + far * np.sin(some)
    inside = chart.at(tissue, x, y) > 0
    border = np.where(inside, far, 0).max(axis=0)
    return np.asarray(np.poly1d(np.polyfit(some, border, 4))(angle))
