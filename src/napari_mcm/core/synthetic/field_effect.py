"""A field effect: what a tumour changes in the normal-looking tissue around it.

Collagen near an invasive tumour is stretched and crimped. Here the eosin of all tissue
within some distance of the tumour ripples faintly,

    e(p) ← e(p) · (1 + strength · w(p) · √2 sin(2π (p · d) / λ + φ(p)))

with a direction d that all blocks of a cohort share, a wavelength λ, an irregular phase φ,
and a weight w that is 1 in the tumour and near it, and falls to 0 at the given distance. A
patch that shows no tumour then holds a faint sign of one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_mcm.core.synthetic.layout import Layout
from napari_mcm.core.synthetic.textures import Field

WAVELENGTH = 8.0
"""Length of the ripple in µm: two pixels or more at any resolution in use."""

RAMP = 0.25
"""Part of the distance over which the effect fades."""


@dataclass(frozen=True)
class FieldEffect:
    """The effect on one slide.

    Attributes
    ----------
    amount : ndarray of float32, shape (rows, columns)
        Root mean square of the ripple relative to the eosin, on the chart's grid.
    angle : float
        Direction of the wave in radians, from x towards y.
    mpp : float
        Microns per level-0 pixel.
    """

    amount: Field
    angle: float
    mpp: float

    def ripple(self, y: int, x: int, mid: Field) -> Field:
        """Draw the wave on a square, with unit variance.

        Parameters
        ----------
        y, x : int
            Upper left corner in level-0 pixels.
        mid : ndarray of float32, shape (side, side)
            Noise of unit variance, smooth over a few µm, that bends the crests.

        Returns
        -------
        ndarray of float32, shape (side, side)
            The wave.
        """
        rate = 2 * math.pi * self.mpp / WAVELENGTH
        down = rate * math.sin(self.angle) * (y + np.arange(mid.shape[0]))
        across = rate * math.cos(self.angle) * (x + np.arange(mid.shape[1]))
        # Whole turns are taken off before float32 rounds a large phase.
        phase = (down % (2 * math.pi)).astype(np.float32)[:, None]
        phase = phase + (across % (2 * math.pi)).astype(np.float32)
        wave: Field = np.sin(phase + np.float32(0.5) * mid) * np.float32(math.sqrt(2))
        return wave


def spread_from_tumour(
    layout: Layout, extent: float, strength: float, angle: float
) -> FieldEffect:
    """Spread the effect from the tumour of a slide.

    Parameters
    ----------
    layout : Layout
        The plan; without tumour there is no effect.
    extent : float
        Distance from the tumour in µm at which the effect ends.
    strength : float
        Root mean square of the ripple close to the tumour, relative to the eosin.
    angle : float
        Direction of the wave in radians.

    Returns
    -------
    FieldEffect
        The effect.
    """
    chart = layout.chart
    amount = np.zeros(chart.shape, np.float32)
    if (layout.tumour > 0).any():
        # Not the plan's depths, which are clipped at a shorter distance.
        away = ndimage.distance_transform_edt(layout.tumour <= 0) * chart.pitch
        weight = np.clip((extent - away) / (RAMP * extent), 0, 1)
        amount = (strength * weight).astype(np.float32)
    return FieldEffect(amount, angle, chart.pitch / chart.step)
