"""What windows are made of: a slide with its tissue, and a place on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.slides import Slide
from napari_mcm.core.tissue import TissueMask


@dataclass(frozen=True, eq=False)
class Source:
    """A slide to learn from, and where its tissue is."""

    slide: Slide
    tissue: TissueMask


@dataclass(frozen=True, eq=False)
class WindowRef:
    """One window of an epoch: where its patches lie, and the key of its randomness."""

    source: Source
    grid: PatchGrid
    index: NDArray[np.int64]
    key: tuple[int, ...]
