"""What a search finds: patches of all slides in one ranking, and a table by slide."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_mcm.core.grid import PatchGrid


@dataclass(frozen=True)
class PatchMatch:
    """A patch that is similar to the query.

    Attributes
    ----------
    slide, fingerprint : str
        Name and fingerprint of its slide.
    features : Path
        Feature file of the slide.
    row : int
        Row of the feature file.
    value : float
        Cosine similarity, -1 to 1.
    x, y : int
        Upper left corner in level-0 pixels.
    width, height : float
        Size in level-0 pixels.
    patch_size : int
        Side in pixels of `mpp`.
    mpp : float
        Microns per pixel at which it is read.
    """

    slide: str
    fingerprint: str
    features: Path
    row: int
    value: float
    x: int
    y: int
    width: float
    height: float
    patch_size: int
    mpp: float

    @property
    def centre(self) -> tuple[float, float]:
        """Its centre (x, y) in level-0 pixels.

        Returns
        -------
        tuple of float
        """
        return self.x + self.width / 2, self.y + self.height / 2

    def grid(self) -> PatchGrid:
        """Return a grid that holds this patch alone, to read its pixels with.

        Returns
        -------
        PatchGrid
            Of one patch.
        """
        corner = np.array([[self.x, self.y]], np.int64)
        slide = {"name": self.slide, "fingerprint": self.fingerprint}
        return PatchGrid(
            corner,
            np.zeros((1, 2), np.int32),
            self.patch_size,
            self.mpp,
            (self.width, self.height),
            (float(self.x), float(self.y)),
            (1, 1),
            slide,
        )


@dataclass(frozen=True)
class SlideMatch:
    """How similar the tissue of one slide is to the query.

    Attributes
    ----------
    name, fingerprint : str
        The slide.
    features : Path
        Its feature file.
    mean : float
        Mean cosine of its most similar patches, at most ``CrossSlideConfig.top``. Slides
        are ranked by it.
    area_mm2 : float
        Area in mm² of the patches whose cosine is at least ``CrossSlideConfig.above``.
    patches : int
        Number of patches in the feature file.
    best : float
        Cosine of its most similar patch that is no example of the query.
    is_lower_bound : bool
        Whether the area may be larger: an index finds no more than the most similar
        patches.
    """

    name: str
    fingerprint: str
    features: Path
    mean: float
    area_mm2: float
    patches: int
    best: float = float("nan")
    is_lower_bound: bool = False


@dataclass(frozen=True)
class CrossSlideResult:
    """What a search has found.

    Attributes
    ----------
    matches : tuple of SlideMatch
        One per slide, the most similar first.
    skipped : tuple of str
        One line for each file that could not be searched.
    patches : tuple of PatchMatch
        The most similar patches of all slides, the most similar first.
    searched : int
        Number of patches in all files that were searched.
    indexed : int
        Number of these that were searched with an index.
    """

    matches: tuple[SlideMatch, ...]
    skipped: tuple[str, ...]
    patches: tuple[PatchMatch, ...] = ()
    searched: int = 0
    indexed: int = 0


def best_patches(
    patches: Iterable[PatchMatch], count: int, per_slide: int | None = None
) -> tuple[PatchMatch, ...]:
    """Return the most similar of the patches that files gave, in one ranking.

    Parameters
    ----------
    patches : iterable of PatchMatch
        Of all slides, each slide's most similar first.
    count : int
        Number of patches, at most.
    per_slide : int, optional
        Number of patches of one slide, at most; a slide may have several files.

    Returns
    -------
    tuple of PatchMatch
        The most similar first; equal ones in the order of the input.
    """
    ranked = sorted(patches, key=lambda patch: -patch.value)
    if per_slide is None:
        return tuple(ranked[:count])
    taken: dict[str, int] = {}
    kept = []
    for patch in ranked:
        known = patch.fingerprint or str(patch.features)
        if taken.get(known, 0) < per_slide:
            taken[known] = taken.get(known, 0) + 1
            kept.append(patch)
    return tuple(kept[:count])
