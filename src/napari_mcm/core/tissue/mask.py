"""The class `TissueMask`: where a slide holds tissue."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from napari_mcm.core.errors import GridError

FOUND = "found"
"""The source of a mask that was computed, not drawn."""


_SAME_ASPECT = 0.02


@dataclass(frozen=True, eq=False)
class TissueMask:
    """Where a slide holds tissue.

    Attributes
    ----------
    mask : ndarray of bool, shape (height, width)
        True on tissue; covers the whole slide.
    downsample : tuple of float
        Level-0 pixels per mask pixel, along x and y.
    source : str
        ``"found"``, or the name of the file or layer in which it was drawn.
    """

    mask: NDArray[np.bool_]
    downsample: tuple[float, float]
    source: str = FOUND

    @classmethod
    def from_array(
        cls, mask: NDArray[Any], slide_size: tuple[int, int], source: str = "drawn"
    ) -> TissueMask:
        """Turn a picture of the whole slide, for example a napari Labels layer, into a mask.

        Parameters
        ----------
        mask : ndarray, shape (height, width)
            Tissue where it is not 0, at any resolution.
        slide_size : tuple of int
            Width and height of the slide in level-0 pixels.
        source : str, optional
            Name of the file or layer that it comes from.

        Returns
        -------
        TissueMask
            The mask covers the whole slide.

        Raises
        ------
        GridError
            If it is not two-dimensional, or its aspect ratio is not the slide's.
        """
        if mask.ndim != 2 or not mask.size:
            raise GridError(
                f"a mask of shape {mask.shape} is not a picture",
                hint="It must have two axes, rows and columns",
            )
        height, width = mask.shape
        downsample = slide_size[0] / width, slide_size[1] / height
        if not _same_shape((width, height), slide_size):
            raise GridError(
                f"a mask of {width} x {height} px does not have the aspect ratio of a "
                f"slide of {slide_size[0]} x {slide_size[1]} px",
                hint="It must cover the whole slide, and nothing else",
            )
        return cls(np.asarray(mask != 0), downsample, source)

    @property
    def fraction(self) -> float:
        """The fraction of the slide that is tissue, 0 to 1.

        Returns
        -------
        float
        """
        return float(self.mask.mean())

    def coverage(
        self, xy: NDArray[np.int64], size: tuple[float, float]
    ) -> NDArray[np.float64]:
        """Compute the tissue fraction of each patch.

        The sum over a patch is read from a summed-area table, with patch borders that
        may lie inside mask pixels.

        Parameters
        ----------
        xy : ndarray of int64, shape (n_patches, 2)
            Upper left corners (x, y) in level-0 pixels.
        size : tuple of float
            Width and height of a patch in level-0 pixels.

        Returns
        -------
        ndarray of float64, shape (n_patches,)
            0 to 1; mask pixels that are partly covered count partly.
        """
        sums = self._sums
        left, top = xy[:, 0] / self.downsample[0], xy[:, 1] / self.downsample[1]
        right = left + size[0] / self.downsample[0]
        bottom = top + size[1] / self.downsample[1]
        area = (right - left) * (bottom - top)
        # Inclusion-exclusion on the summed-area table.
        inside = (
            _integral(sums, bottom, right)
            - _integral(sums, top, right)
            - _integral(sums, bottom, left)
            + _integral(sums, top, left)
        )
        return np.clip(inside / area, 0, 1)

    @cached_property
    def _sums(self) -> NDArray[np.float64]:
        """Summed-area table: tissue pixels above and to the left of each corner."""
        height, width = self.mask.shape
        sums = np.zeros((height + 1, width + 1))  # a row and a column of zeros first
        sums[1:, 1:] = self.mask.cumsum(0, dtype=np.float64).cumsum(1)
        return sums


def _same_shape(mask: tuple[int, int], slide: tuple[int, int]) -> bool:
    """Return whether a mask has a slide's aspect ratio, within 2 % or one mask pixel."""
    (width, height), aspect = mask, slide[0] / slide[1]
    off = max(_SAME_ASPECT * width, 1), max(_SAME_ASPECT * height, 1)
    return abs(width - height * aspect) <= off[0] or (
        abs(height - width / aspect) <= off[1]
    )


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


class TissueConfig(BaseModel):
    """How tissue is separated from background."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tissue_mpp: float = Field(
        8.0, gt=0, description="Resolution of the tissue mask, in µm per pixel."
    )
    min_object_um: float = Field(
        100.0, ge=0, description="Smaller pieces are removed: side of a square, in µm."
    )
    max_hole_um: float = Field(
        150.0, ge=0, description="Smaller holes are filled: side of a square, in µm."
    )
    masks: Path | None = Field(
        None,
        description="Folder of masks drawn by hand, NAME.geojson or NAME.png for each "
        "slide NAME, or one such file; slides without one are searched for tissue.",
    )
