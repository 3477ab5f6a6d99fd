"""The error of a registration, by matching squares of tissue that the fit never saw.

A quarter of the squares of 512 µm of the first section is left out of the flow's fit, in
up to four turns. Afterwards each is looked for in the second section, at a finer
resolution and within 160 µm of where it is mapped, by normalised cross-correlation. The
distance to the best match is the error. A match is reliable where its peak is high and
no second peak comes close. Where sections do not correspond, matches lie anywhere: only
one in nine is within 60 µm by accident.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_mcm.core.registration.flow import Flow
from napari_mcm.core.registration.result import Residual, map_points
from napari_mcm.core.registration.rough import Affine
from napari_mcm.core.registration.section import Image, Section, SectionImage, sample
from napari_mcm.core.slides import Slide
from napari_mcm.core.tissue.search import mean, optical_density

BLOCK_UM = 512.0

_REACH_UM = 160.0
"""How far from its mapped place a square is looked for."""

_FULL = 0.7
"""Tissue fraction of a square: with much glass, it is the border that matches."""

_MPP = 4.0

_BLUR_UM = 16.0
"""A section is thinner than a nucleus is wide: single nuclei do not recur in the next."""

_PEAK, _LEAD, _NEAR_UM = 0.4, 0.05, 60.0
"""Least correlation of a match, its lead over others, and from where on those count."""


def choose_blocks(
    image: SectionImage, count: int, seed: int
) -> list[NDArray[np.float64]]:
    """Choose random squares of tissue to leave out, in turns.

    Parameters
    ----------
    image : SectionImage
        The first section.
    count : int
        Number of squares in all; fewer where there are not so many.
    seed : int
        Random seed.

    Returns
    -------
    list of ndarray of float64, shape (n, 2)
        For each turn the upper left corners (x, y) in microns. Squares do not overlap,
        and a turn leaves out a quarter of them at most.
    """
    height, width = image.tissue.shape
    columns = int(width * image.mpp[0] / BLOCK_UM)
    rows = int(height * image.mpp[1] / BLOCK_UM)
    corners = np.indices((rows, columns)).reshape(2, -1).T[:, ::-1].astype(float)
    corners *= BLOCK_UM
    side = [max(round(BLOCK_UM / mpp), 1) for mpp in image.mpp[::-1]]
    share = ndimage.uniform_filter(image.tissue, side)
    full: NDArray[np.float64] = corners[
        sample(share, image.mpp, corners + BLOCK_UM / 2) > _FULL
    ]
    order = np.random.default_rng((seed, 47)).permutation(len(full))
    turn = -(-len(full) // 4)
    chosen = [order[i : i + turn] for i in range(0, min(count, len(full)), turn or 1)]
    return [full[np.sort(rows)] for rows in chosen]


def outside_blocks(
    image: SectionImage, corners: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Return the pixels that lie in none of the squares.

    Parameters
    ----------
    image : SectionImage
        The first section.
    corners : ndarray of float64, shape (n, 2)
        Upper left corners of the squares in microns.

    Returns
    -------
    ndarray of bool, shape (height, width)
        False in squares.
    """
    use = np.ones(image.tissue.shape, bool)
    for x, y in corners:
        left, right = np.rint(np.asarray((x, x + BLOCK_UM)) / image.mpp[0]).astype(int)
        top, bottom = np.rint(np.asarray((y, y + BLOCK_UM)) / image.mpp[1]).astype(int)
        use[top:bottom, left:right] = False
    return use


@dataclass(frozen=True)
class Match:
    """Where a square was found.

    Attributes
    ----------
    distance_um : float
        Distance in microns from its mapped place.
    reliable : bool
        Whether its peak is high and single.
    """

    distance_um: float
    reliable: bool


def summarise(matches: Sequence[Match]) -> Residual:
    """Summarise the matches of all squares.

    Parameters
    ----------
    matches : sequence of Match
        One per square.

    Returns
    -------
    Residual
        Error in microns, and how many squares say so.
    """
    if not matches:
        return Residual(float("nan"), float("nan"), 0, 0.0, 0.0)
    near = float(np.mean([match.distance_um <= _NEAR_UM for match in matches]))
    errors = [match.distance_um for match in matches if match.reliable]
    median, high = np.percentile(errors, (50, 90)) if errors else (np.nan, np.nan)
    share = len(errors) / len(matches)
    return Residual(float(median), float(high), len(matches), share, near)


class BlockMatcher:
    """Looks for squares of one section in the next.

    Parameters
    ----------
    slides : tuple of Slide
        Both sections.
    sections : tuple of Section
        The same, for the colour of their glass.
    affine : ndarray of float64, shape (2, 3)
        The registration's affine part.
    flow : ndarray of float32, shape (height, width, 2)
        Its flow, fitted without the squares.
    flow_mpp : tuple of float
        Microns per pixel of `flow`.
    """

    def __init__(
        self,
        slides: tuple[Slide, Slide],
        sections: tuple[Section, Section],
        affine: Affine,
        flow: Flow,
        flow_mpp: tuple[float, float],
    ) -> None:
        self._slides, self._sections = slides, sections
        self._affine, self._flow, self._flow_mpp = affine, flow, flow_mpp
        self._mpp = max(_MPP, *(max(slide.mpp) for slide in slides))

    def measure(
        self, corners: NDArray[np.float64]
    ) -> Generator[None, None, list[Match]]:
        """Look for several squares.

        Parameters
        ----------
        corners : ndarray of float64, shape (n, 2)
            Upper left corners of the squares in microns.

        Yields
        ------
        None
            After each square.

        Returns
        -------
        list of Match
            In the same order.
        """
        found = []
        for corner in corners:
            found.append(self.match(corner))
            yield
        return found

    def match(self, corner: NDArray[np.float64]) -> Match:
        """Return how far the best match of one square lies from its mapped place.

        Parameters
        ----------
        corner : ndarray of float64, shape (2,)
            Upper left corner in microns.

        Returns
        -------
        Match
            Distance, and whether it is reliable.
        """
        from skimage.feature import match_template

        side = round(BLOCK_UM / self._mpp)
        reach = round(_REACH_UM / self._mpp)
        block = self._density(0, corner, (side, side))
        around = self._mapped(corner - reach * self._mpp, side + 2 * reach)
        # (2 reach + 1, 2 reach + 1): correlation of the square at every shift.
        score = match_template(around, block)
        row, column = np.unravel_index(int(score.argmax()), score.shape)
        y, x = np.indices(score.shape)
        far = np.hypot(y - row, x - column) > _NEAR_UM / self._mpp
        peak = float(score[row, column])
        lead = peak - float(score[far].max(initial=-1))
        distance = float(np.hypot(column - reach, row - reach)) * self._mpp
        return Match(distance, peak >= _PEAK and lead >= _LEAD)

    def _density(
        self, which: int, corner: NDArray[np.float64], size: tuple[int, int]
    ) -> Image:
        slide = self._slides[which]
        x, y = corner / np.asarray(slide.mpp)
        pixels = slide.read((float(x), float(y)), size, self._mpp)
        density = mean(optical_density(pixels, self._sections[which].glass))
        return np.asarray(ndimage.gaussian_filter(density, _BLUR_UM / self._mpp))

    def _mapped(self, corner: NDArray[np.float64], side: int) -> Image:
        """Read a square of the second section in the first one's frame."""
        index = np.indices((side, side))[::-1]
        places = corner + (np.moveaxis(index, 0, -1) + 0.5) * self._mpp
        mapped = map_points(self._affine, self._flow, self._flow_mpp, places)
        low = mapped.min(axis=(0, 1)) - 2 * self._mpp
        extent = mapped.max(axis=(0, 1)) + 2 * self._mpp - low
        width, height = (int(n) for n in np.ceil(extent / self._mpp))
        pixels = self._density(1, low, (width, height))
        return sample(pixels, (self._mpp, self._mpp), mapped - low)
