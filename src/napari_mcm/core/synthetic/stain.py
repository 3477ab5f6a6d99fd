"""From dye on glass to colour: Beer-Lambert's law for haematoxylin and eosin."""

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
        Optical density (natural logarithm) of red, green and blue for one unit of dye.
    light : tuple of float
        Colour of the bare glass, 0 to 255.
    """

    haematoxylin: tuple[float, float, float]
    eosin: tuple[float, float, float]
    light: tuple[float, float, float]


def draw_stain(rng: np.random.Generator) -> Stain:
    """Draw a slide's stain: hue and strength vary from batch to batch."""

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
    """Turn dye into pixels.

    Parameters
    ----------
    stain : Stain
        The slide's stain.
    haematoxylin, eosin : Field
        Amounts of dye, (height, width).
    ink : (Field, tuple of float) or None
        Amount of marker ink, and the optical density of one unit of it.
    shade : Field
        Share of the light that the optics let through.
    grain : Field
        Sensor noise in grey levels, at least three rows taller than the picture.

    Returns
    -------
    ndarray
        (height, width, 3) uint8.
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
