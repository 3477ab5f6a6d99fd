"""Where the tissue is: a mask from a thumbnail."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from skimage import filters, measure, morphology

from napari_mcm.core.slides import Slide


class TissueConfig(BaseModel):
    """How tissue is told from background."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tissue_mpp: float = Field(
        8.0, gt=0, description="Resolution of the tissue mask, in µm per pixel."
    )
    min_object_um: float = Field(
        100.0, ge=0, description="Smaller pieces are dropped: side of a square, in µm."
    )
    max_hole_um: float = Field(
        150.0, ge=0, description="Smaller holes are filled: side of a square, in µm."
    )


@dataclass(frozen=True, eq=False)
class TissueMask:
    """Where a slide holds tissue.

    Attributes
    ----------
    mask : ndarray of bool, shape (height, width)
        True on tissue; covers the whole slide.
    downsample : tuple of float
        Level-0 pixels per mask pixel, along x and y.
    """

    mask: NDArray[np.bool_]
    downsample: tuple[float, float]

    @property
    def fraction(self) -> float:
        """The part of the slide that is tissue, 0 to 1."""
        return float(self.mask.mean())

    def coverage(
        self, xy: NDArray[np.int64], size: tuple[float, float]
    ) -> NDArray[np.float64]:
        """Tell how much of each patch is tissue.

        Parameters
        ----------
        xy : ndarray of int, shape (N, 2)
            Upper left corners, in level-0 pixels.
        size : tuple of float
            Width and height of a patch, in level-0 pixels.

        Returns
        -------
        ndarray of float, shape (N,)
            0 to 1, exact to a mask pixel's edge.
        """
        height, width = self.mask.shape
        sums = np.zeros((height + 1, width + 1))
        sums[1:, 1:] = self.mask.cumsum(0, dtype=np.float64).cumsum(1)
        left, top = xy[:, 0] / self.downsample[0], xy[:, 1] / self.downsample[1]
        right = left + size[0] / self.downsample[0]
        bottom = top + size[1] / self.downsample[1]
        area = (right - left) * (bottom - top)
        inside = (
            _integral(sums, bottom, right)
            - _integral(sums, top, right)
            - _integral(sums, bottom, left)
            + _integral(sums, top, left)
        )
        return np.clip(inside / area, 0, 1)


def find_tissue(slide: Slide, config: TissueConfig | None = None) -> TissueMask:
    """Find the tissue on a slide.

    A pixel is tissue when its stain is denser than Otsu's threshold on the optical
    density, and coloured as tissue is: grey dirt, and the pure hues of pens (blue,
    green, black), are left out.

    Parameters
    ----------
    slide : Slide
        With a known resolution.
    config : TissueConfig, optional
        Resolution of the mask and sizes of what is dropped and filled.

    Returns
    -------
    TissueMask
        All False where there is no tissue.
    """
    config = config or TissueConfig()
    rgb, mpp = slide.thumbnail(config.tissue_mpp)
    density = _optical_density(rgb)
    mask = _stained(density) & ~_pen(density)
    mask = morphology.closing(mask, morphology.disk(2))
    mask = morphology.opening(mask, morphology.disk(1))
    mask = _drop_small(mask, (config.min_object_um / mpp) ** 2)
    mask = ~_drop_small(~mask, (config.max_hole_um / mpp) ** 2)
    height, width = mask.shape
    return TissueMask(mask, (slide.size[0] / width, slide.size[1] / height))


def _optical_density(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Turn light into absorbance: 0 is the slide's own glass, per channel."""
    light = np.maximum(rgb.astype(np.float32), 1)
    # A crop may show no glass at all; its brightest tissue must not pass for it.
    glass = np.maximum(np.percentile(light.reshape(-1, 3), 95, axis=0), _DULL_GLASS)
    density = -np.log10(np.minimum(light / glass.astype(np.float32), 1))
    return np.asarray(density, np.float32)


def _stained(density: NDArray[np.float32]) -> NDArray[np.bool_]:
    # The spread between channels is the stain: it ignores how bright the glass is and
    # grey dirt on it. Blurred, so that pale stroma holds together.
    stain = filters.gaussian(density.max(axis=2) - density.min(axis=2), 1.0)
    if float(np.ptp(stain)) < _FAINTEST:
        return np.zeros(stain.shape, bool) | (float(stain.mean()) > _SURELY_STAINED)
    # Otsu on a slide that is all background would cut its noise in two.
    threshold = np.clip(filters.threshold_otsu(stain), _FAINTEST, _SURELY_STAINED)
    return np.asarray(stain > threshold)


def _pen(density: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Find marker ink by how it absorbs, in strokes rather than specks.

    Haematoxylin absorbs red and green alike, eosin and DAB absorb green and blue more
    than red. Blue ink absorbs red far more than green, green ink spares green, and
    black ink absorbs all three alike and much.
    """
    red, green, blue = np.moveaxis(density, 2, 0)
    ink = (red > 0.4) & (red > 1.4 * green)
    ink |= (red > 0.2) & (green < 0.75 * np.minimum(red, blue))
    ink |= (density.min(axis=2) > 0.8) & (np.ptp(density, axis=2) < 0.25 * red)
    strokes = morphology.opening(ink, morphology.disk(2))
    return np.asarray(morphology.dilation(strokes, morphology.disk(4)))


_DULL_GLASS = 215.0
_FAINTEST = 0.03
_SURELY_STAINED = 0.10


def _drop_small(mask: NDArray[np.bool_], pixels: float) -> NDArray[np.bool_]:
    labels = measure.label(mask, connectivity=1)
    sizes = np.bincount(labels.ravel())
    keep = sizes >= pixels
    keep[0] = False
    return np.asarray(keep[labels])


def _integral(
    sums: NDArray[np.float64], y: NDArray[np.float64], x: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Read a summed-area table between its entries, bilinearly (which is exact)."""
    y = np.clip(y, 0, sums.shape[0] - 1)
    x = np.clip(x, 0, sums.shape[1] - 1)
    top = np.minimum(y.astype(np.intp), sums.shape[0] - 2)
    left = np.minimum(x.astype(np.intp), sums.shape[1] - 2)
    v, u = y - top, x - left
    above = sums[top, left] * (1 - u) + sums[top, left + 1] * u
    below = sums[top + 1, left] * (1 - u) + sums[top + 1, left + 1] * u
    return np.asarray(above * (1 - v) + below * v)
