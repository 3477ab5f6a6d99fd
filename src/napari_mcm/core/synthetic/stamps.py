"""Nuclei and cell bodies, drawn once and pasted thousands of times.

A bank holds a few hundred variants of one kind of nucleus as two small images: how much
haematoxylin it binds, and where it is. Oriented kinds (spindle, columnar) are drawn at
evenly spaced angles so that they can follow the tissue.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_mcm.core.synthetic.textures import Field


@dataclass(frozen=True)
class NucleusKind:
    """Appearance of nuclei of one kind; lengths in µm.

    Attributes
    ----------
    diameter, diameter_sd : float
        Mean and standard deviation of the diameter of a circle of the same area.
    aspect, aspect_sd : float
        Mean and standard deviation of length over width.
    wobble : float
        Deviation of the outline from an ellipse, as a fraction of the radius.
    density, density_sd : float
        Mean and standard deviation of the haematoxylin bound.
    clumps : float
        Contrast of the chromatin.
    rim : float
        Extra haematoxylin along the nuclear membrane.
    nucleoli : float
        Mean number of nucleoli.
    angles : int
        Number of orientations drawn; 1 means any.
    variants : int
        Number drawn at each orientation.
    """

    diameter: float
    diameter_sd: float
    aspect: float
    aspect_sd: float
    wobble: float
    density: float
    density_sd: float
    clumps: float
    rim: float
    nucleoli: float
    angles: int
    variants: int


KINDS = {
    "tumour": NucleusKind(
        diameter=9.4,
        diameter_sd=1.9,
        aspect=1.24,
        aspect_sd=0.18,
        wobble=0.05,
        density=0.70,
        density_sd=0.20,
        clumps=0.40,
        rim=0.38,
        nucleoli=1.3,
        angles=1,
        variants=320,
    ),
    "epithelial": NucleusKind(
        diameter=6.6,
        diameter_sd=0.6,
        aspect=1.45,
        aspect_sd=0.18,
        wobble=0.03,
        density=0.85,
        density_sd=0.10,
        clumps=0.24,
        rim=0.28,
        nucleoli=0.3,
        angles=24,
        variants=6,
    ),
    "spindle": NucleusKind(
        diameter=5.9,
        diameter_sd=1.0,
        aspect=3.7,
        aspect_sd=1.5,
        wobble=0.06,
        density=0.72,
        density_sd=0.22,
        clumps=0.28,
        rim=0.20,
        nucleoli=0.0,
        angles=32,
        variants=12,
    ),
    "lymphocyte": NucleusKind(
        diameter=5.9,
        diameter_sd=0.6,
        aspect=1.12,
        aspect_sd=0.10,
        wobble=0.04,
        density=0.98,
        density_sd=0.20,
        clumps=0.38,
        rim=0.25,
        nucleoli=0.0,
        angles=1,
        variants=96,
    ),
}


@dataclass(frozen=True)
class Bank:
    """Drawn nuclei of one kind.

    Attributes
    ----------
    stain : ndarray of float32, shape (variants, side, side)
        Haematoxylin bound.
    cover : ndarray of float32, shape (variants, side, side)
        Fraction of each pixel inside the nucleus.
    angles : int
        Number of orientations among the variants.
    """

    stain: Field
    cover: Field
    angles: int

    def pick(self, angle: Field, rng: np.random.Generator) -> NDArray[np.int16]:
        """Choose a random variant for each angle.

        Parameters
        ----------
        angle : ndarray, shape (n,)
            Orientations in radians, from x towards y.
        rng : Generator
            Source of the randomness.

        Returns
        -------
        ndarray of int16, shape (n,)
            Indices of variants.
        """
        each = len(self.stain) // self.angles
        turn = np.rint(angle / math.pi * self.angles).astype(np.int64) % self.angles
        chosen = turn * each + rng.integers(0, each, turn.shape)
        return np.asarray(chosen, np.int16)


def draw_nuclei(kind: NucleusKind, mpp: float, rng: np.random.Generator) -> Bank:
    """Draw the bank of one kind of nucleus.

    Parameters
    ----------
    kind : NucleusKind
        Its appearance.
    mpp : float
        Microns per pixel.
    rng : Generator
        Source of the randomness.

    Returns
    -------
    Bank
        ``kind.angles * kind.variants`` nuclei.
    """
    count = kind.angles * kind.variants
    turn = np.repeat(np.arange(kind.angles), kind.variants) * math.pi / kind.angles
    if kind.angles == 1:
        turn = rng.uniform(0, math.pi, count)
    radius = rng.normal(kind.diameter, kind.diameter_sd, count).clip(
        kind.diameter * 0.65, kind.diameter * 1.6
    ) / (2 * mpp)
    aspect = rng.normal(kind.aspect, kind.aspect_sd, count).clip(1.02, 7)
    reach = kind.diameter * 1.25 * math.sqrt(kind.aspect + 2 * kind.aspect_sd) / 2
    half = math.ceil(reach / mpp) + 3
    ratio, angle = _ellipses(half, radius, np.sqrt(aspect), turn, kind, rng)
    ratio /= _wobble(angle, kind.wobble, rng)
    # Distance inwards from the membrane, in pixels.
    depth = (1 - ratio) * (radius / np.sqrt(aspect)).astype(np.float32)[:, None, None]
    cover = _smoothstep(depth / 1.7 + 0.5)
    inside = _chromatin(depth, kind, mpp, rng)
    inside += _nucleoli(depth.shape, radius, kind, mpp, rng)
    density = rng.normal(kind.density, kind.density_sd, count).clip(0.35, 1.6)
    stain = cover * inside * density.astype(np.float32)[:, None, None]
    return Bank(stain.astype(np.float32), cover, kind.angles)


def draw_bodies(radius: float, mpp: float, rng: np.random.Generator) -> Field:
    """Draw cell bodies: cones, 1 at the nucleus and 0 at `radius`.

    Pasted with a maximum, neighbouring cones meet in valleys, which are cell borders.

    Parameters
    ----------
    radius : float
        Radius of a cell in µm.
    mpp : float
        Microns per pixel.
    rng : Generator
        Source of the randomness.

    Returns
    -------
    ndarray of float32, shape (48, side, side)
        0 to 1.
    """
    count, half = 48, math.ceil(radius * 1.2 / mpp)
    y, x = _coordinates(half)
    distance = np.hypot(y, x)[None] * np.float32(mpp / radius)
    angle = np.broadcast_to(np.arctan2(y, x)[None], (count, *y.shape))
    cone = 1 - distance / _wobble(angle, 0.09, rng)
    return np.asarray(cone.clip(0, 1), np.float32)


def draw_disc(radius: float, mpp: float, rng: np.random.Generator) -> Field:
    """Draw red blood cells: discs with a pale centre.

    Parameters
    ----------
    radius : float
        Radius of a cell in µm.
    mpp : float
        Microns per pixel.
    rng : Generator
        Source of the randomness.

    Returns
    -------
    ndarray of float32, shape (24, side, side)
        0 to 1.
    """
    half = math.ceil(radius * 1.4 / mpp)
    y, x = _coordinates(half)
    angle = np.broadcast_to(np.arctan2(y, x)[None], (24, *y.shape))
    ratio = np.hypot(y, x)[None] * np.float32(mpp / radius) / _wobble(angle, 0.06, rng)
    cover = _smoothstep((1 - ratio) * np.float32(radius / mpp / 1.5) + 0.5)
    return (cover * (0.75 + 0.25 * ratio)).astype(np.float32)


def _coordinates(half: int) -> tuple[Field, Field]:
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
    return y, x


def _ellipses(
    half: int,
    radius: NDArray[np.float64],
    stretch: NDArray[np.float64],
    turn: NDArray[np.float64],
    kind: NucleusKind,
    rng: np.random.Generator,
) -> tuple[Field, Field]:
    """Return radial coordinate (1 on the outline) and angle, (count, side, side) each."""
    y, x = _coordinates(half)
    cos, sin = (f(turn).astype(np.float32)[:, None, None] for f in (np.cos, np.sin))
    u, v = x * cos + y * sin, y * cos - x * sin
    # Long nuclei are bent, not straight.
    bend = rng.normal(0, 0.03 * max(kind.aspect - 1.2, 0), len(radius))
    long = (radius * stretch).astype(np.float32)[:, None, None]
    v = v + bend.astype(np.float32)[:, None, None] * u * u / long
    u = u / long
    v = v / (radius / stretch).astype(np.float32)[:, None, None]
    return np.hypot(u, v), np.arctan2(v, u)


def _wobble(angle: Field, share: float, rng: np.random.Generator) -> Field:
    """Return a factor of about 1 whose low harmonics make an outline irregular."""
    count = len(angle)
    outline = np.ones_like(angle)
    for order in (2, 3, 4, 5):
        size = rng.normal(0, share * 1.6 / order**0.5, count).astype(np.float32)
        phase = rng.uniform(0, 2 * math.pi, count).astype(np.float32)
        outline += size[:, None, None] * np.cos(order * angle + phase[:, None, None])
    return outline.clip(0.6, 1.5)


def _chromatin(
    depth: Field, kind: NucleusKind, mpp: float, rng: np.random.Generator
) -> Field:
    """Draw the chromatin: an uneven ground, clumps, and a darker rim at the membrane."""
    noise = rng.standard_normal(depth.shape, dtype=np.float32)
    fine = ndimage.gaussian_filter(noise, (0, 0.45 / mpp, 0.45 / mpp))
    broad = ndimage.gaussian_filter(noise[::-1], (0, 1.1 / mpp, 1.1 / mpp))
    clumps = 0.65 * fine / fine.std() + 0.6 * broad / broad.std()
    rim = np.exp(-np.square((depth * mpp - 0.45) / 0.5))
    # Some nuclei are open (pale centre, sharp rim), some are dark throughout.
    open_ = rng.uniform(0.2, 1, len(depth)).astype(np.float32)[:, None, None]
    ground = 1 + kind.clumps * clumps + kind.rim * open_ * (1.6 * rim - 0.55)
    return np.asarray(ground.clip(0.25, 2.0), np.float32)


def _nucleoli(
    shape: tuple[int, ...],
    radius: NDArray[np.float64],
    kind: NucleusKind,
    mpp: float,
    rng: np.random.Generator,
) -> Field:
    spots = np.zeros(shape, np.float32)
    y, x = _coordinates(shape[1] // 2)
    for index, count in enumerate(rng.poisson(kind.nucleoli, shape[0]).clip(0, 3)):
        for _ in range(count):
            cy, cx = rng.normal(0, 0.3 * radius[index], 2)
            size = rng.uniform(0.55, 0.95) / mpp
            square = (np.square(y - cy) + np.square(x - cx)) / size**2
            spots[index] += rng.uniform(0.35, 0.9) * np.exp(-square)
    return spots


def _smoothstep(t: Field) -> Field:
    t = t.clip(0, 1)
    smooth: Field = (t * t * (3 - 2 * t)).astype(np.float32)
    return smooth
