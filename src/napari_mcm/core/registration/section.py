"""A section as images for registration: tissue and the texture of its stain, by resolution.

The texture is the mean optical density D of a pixel, less its local mean and over its
local standard deviation,

    T = (D - μ) / (σ + σ₀),

both in a Gaussian window that counts tissue only. Pale and dark stains, and a section
that is thicker than its neighbour, then look alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_mcm.core.errors import RegistrationError
from napari_mcm.core.slides import Slide
from napari_mcm.core.tissue import TissueConfig, TissueMask, find_tissue
from napari_mcm.core.tissue.search import glass_colour, mean, optical_density

Image = NDArray[np.float32]

_WINDOW = 16.0
"""Standard deviation of the local window in pixels: each resolution has its own detail."""

_FLAT = 0.02
"""Optical density below which differences are noise of the camera."""


@dataclass(frozen=True, eq=False)
class SectionImage:
    """A section at one resolution.

    Attributes
    ----------
    texture : ndarray of float32, shape (height, width)
        Normalised optical density; 0 outside of the tissue.
    tissue : ndarray of float32, shape (height, width)
        Tissue fraction of each pixel, 0 to 1.
    mpp : tuple of float
        Microns per pixel along x and y.
    """

    texture: Image
    tissue: Image
    mpp: tuple[float, float]

    def places_um(self) -> NDArray[np.float64]:
        """Return the centre of each pixel.

        Returns
        -------
        ndarray of float64, shape (height, width, 2)
            x and y in microns from the section's upper left corner.
        """
        height, width = self.texture.shape
        x = (np.arange(width) + 0.5) * self.mpp[0]
        y = (np.arange(height) + 0.5) * self.mpp[1]
        return np.stack(np.meshgrid(x, y), axis=-1)


@dataclass(frozen=True, eq=False)
class Section:
    """A section's stain and tissue, read once, and reduced on demand.

    Attributes
    ----------
    density : ndarray of float32, shape (height, width)
        Mean optical density over the channels, 0 on glass.
    tissue : ndarray of float32, shape (height, width)
        1 on tissue, 0 elsewhere.
    mpp : tuple of float
        Microns per pixel along x and y.
    glass : ndarray of float32, shape (3,)
        Colour of the empty glass in grey levels.
    """

    density: Image
    tissue: Image
    mpp: tuple[float, float]
    glass: NDArray[np.float32]

    def at(self, mpp: float) -> SectionImage:
        """Return the section at a coarser resolution.

        Parameters
        ----------
        mpp : float
            Microns per pixel; the section's own resolution where that is coarser.

        Returns
        -------
        SectionImage
            Texture and tissue.
        """
        tissue, density = self.tissue, self.density * self.tissue
        height, width = density.shape
        factor = max(mpp / self.mpp[0], 1.0), max(mpp / self.mpp[1], 1.0)
        if max(factor) > 1.01:
            size = max(round(height / factor[1]), 1), max(round(width / factor[0]), 1)
            tissue, density = _shrink(tissue, size), _shrink(density, size)
        own = (
            self.mpp[0] * width / density.shape[1],
            self.mpp[1] * height / density.shape[0],
        )
        return SectionImage(_texture(density, tissue), tissue, own)


def read_section(
    slide: Slide, mpp: float, tissue: TissueConfig, known: TissueMask | None = None
) -> Section:
    """Read a whole section for registration.

    Parameters
    ----------
    slide : Slide
        With a known resolution.
    mpp : float
        Microns per pixel; huge slides are read coarser.
    tissue : TissueConfig
        How tissue is found, or where drawn masks lie.
    known : TissueMask, optional
        The tissue, where it is known already.

    Returns
    -------
    Section
        Optical density and tissue.

    Raises
    ------
    RegistrationError
        If there is no tissue.
    SlideError
        If the resolution is unknown.
    """
    mask = (known or find_tissue(slide, tissue)).mask
    if not mask.any():
        raise RegistrationError("no tissue found", slide.path, "Draw a mask: --masks")
    rgb, _ = slide.thumbnail(mpp)
    glass = glass_colour(rgb)
    height, width = rgb.shape[:2]
    # The mask and the thumbnail cover the same slide, at resolutions of their own.
    rows = np.minimum(np.arange(height) * len(mask) // height, len(mask) - 1)
    columns = np.arange(width) * mask.shape[1] // width
    own = slide.size[0] * slide.mpp[0] / width, slide.size[1] * slide.mpp[1] / height
    return Section(
        mean(optical_density(rgb, glass)),
        mask[np.ix_(rows, columns)].astype(np.float32),
        own,
        glass,
    )


def sample(
    image: Image, mpp: tuple[float, float], places_um: NDArray[np.float64]
) -> Image:
    """Read an image between its pixels.

    Parameters
    ----------
    image : ndarray of float32, shape (height, width)
        The image.
    mpp : tuple of float
        Microns per pixel along x and y.
    places_um : ndarray of float64, shape (..., 2)
        x and y in microns.

    Returns
    -------
    ndarray of float32, shape (...)
        Bilinear; 0 outside.
    """
    # A pixel's centre is half a pixel from its corner.
    at = [places_um[..., 1] / mpp[1] - 0.5, places_um[..., 0] / mpp[0] - 0.5]
    return np.asarray(ndimage.map_coordinates(image, at, order=1), np.float32)


def correlate(first: Image, second: Image, weight: Image) -> float:
    """Return the weighted correlation of two textures.

    Parameters
    ----------
    first, second, weight : ndarray of float32, shape (height, width)
        The textures, and what each pixel counts.

    Returns
    -------
    float
        -1 to 1; 0 where nothing counts.
    """
    total = float(weight.sum())
    if total <= 0:
        return 0.0
    a = first - float((weight * first).sum()) / total
    b = second - float((weight * second).sum()) / total
    spread = float((weight * a * a).sum()) * float((weight * b * b).sum())
    return float((weight * a * b).sum()) / float(np.sqrt(spread)) if spread > 0 else 0.0


def _shrink(image: Image, size: tuple[int, int]) -> Image:
    """Average an image over the area of each pixel of a smaller one."""
    from PIL import Image as Picture

    picture = Picture.fromarray(np.ascontiguousarray(image, np.float32))
    small = picture.resize((size[1], size[0]), Picture.Resampling.BOX)
    return np.asarray(small, np.float32)


def _texture(density: Image, tissue: Image) -> Image:
    """Normalise density, which is 0 outside of the tissue, by its surroundings."""
    # Gaussian sums over tissue only: what lies on glass must not pull the mean down.
    share = np.maximum(ndimage.gaussian_filter(tissue, _WINDOW), 1e-3)
    centre = ndimage.gaussian_filter(density, _WINDOW) / share
    square = ndimage.gaussian_filter(density * density, _WINDOW) / share
    spread = np.sqrt(np.maximum(square - centre * centre, 0))
    texture = (density - centre * tissue) / (spread + _FLAT)
    # Specks of dirt and ink would outweigh a thousand pixels of tissue.
    return np.asarray(np.clip(texture, -3, 3) * (tissue > 0.5), np.float32)
