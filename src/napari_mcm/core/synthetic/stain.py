"""From amounts of dye to colour: the Beer-Lambert law for haematoxylin and eosin.

A pixel's channel c is

    I_c = shade * light_c * exp(-(h * H_c + e * E_c + ink * K_c)) + grain,

with amounts h, e and ink of each dye, and absorbances H, E and K per unit of dye.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.synthetic.textures import Field

HAEMATOXYLIN = (0.62, 0.72, 0.31)
EOSIN = (0.13, 0.86, 0.49)


@dataclass(frozen=True)
class Stain:
    """How one slide was stained and scanned.

    Attributes
    ----------
    haematoxylin, eosin : tuple of float
        Absorbance (natural logarithm) of red, green and blue for one unit of dye.
    light : tuple of float
        Colour of bare glass, 0 to 255.
    """

    haematoxylin: tuple[float, float, float]
    eosin: tuple[float, float, float]
    light: tuple[float, float, float]


def draw_stain(rng: np.random.Generator) -> Stain:
    """Choose a random stain: hue and strength vary from slide to slide.

    Parameters
    ----------
    rng : Generator
        Source of the randomness.

    Returns
    -------
    Stain
        The slide's stain.
    """

    def vary(vector: tuple[float, ...], strength: float) -> tuple[float, float, float]:
        colour = np.array(vector) + rng.normal(0, 0.024, 3)
        colour *= strength * rng.normal(1, 0.09) / np.linalg.norm(colour)
        return (float(colour[0]), float(colour[1]), float(colour[2]))

    light = rng.normal((243, 242, 244), 1.2)
    return Stain(
        vary(HAEMATOXYLIN, 1.75),
        vary(EOSIN, 1.0),
        (float(light[0]), float(light[1]), float(light[2])),
    )


def develop(
    stain: Stain,
    haematoxylin: Field,
    eosin: Field,
    ink: tuple[Field, tuple[float, float, float]] | None,
    shade: Field,
    grain: Field,
) -> NDArray[np.uint8]:
    """Convert amounts of dye to pixels.

    Parameters
    ----------
    stain : Stain
        The slide's stain.
    haematoxylin, eosin : ndarray of float32, shape (height, width)
        Amounts of dye.
    ink : tuple of ndarray and tuple of float, or None
        Amount of marker ink, shape (height, width), and the absorbance of one unit
        of it.
    shade : ndarray of float32, shape (height, width)
        Fraction of the light that the optics transmit.
    grain : ndarray of float32, shape (height + 3, width)
        Sensor noise in grey levels; each channel reads it one row lower.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        RGB pixels.
    """
    height = haematoxylin.shape[0]
    pixels = np.empty((*haematoxylin.shape, 3), np.uint8)
    for channel in range(3):
        density = haematoxylin * np.float32(-stain.haematoxylin[channel])
        density -= eosin * np.float32(stain.eosin[channel])
        if ink is not None:
            density -= ink[0] * np.float32(ink[1][channel])
        np.exp(density, out=density)
        density *= shade * np.float32(stain.light[channel])
        density += grain[channel : channel + height]
        pixels[..., channel] = np.clip(density, 0, 255)
    return pixels
