"""The patches that a classifier looks at most, as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from napari_mcm.core.features.patches import read_patches
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.slides import Slide

_TILE_INCHES = 1.35


def top_patches(values: NDArray[np.floating], count: int) -> list[int]:
    """Give the patches of the greatest values, best first; NaN never is."""
    order = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")
    known = int(np.isfinite(values).sum())
    return [int(i) for i in order[: min(count, known)]]


def draw_gallery(
    slide: Slide,
    grid: PatchGrid,
    patches: Sequence[int],
    captions: Sequence[str],
    title: str,
) -> Figure:
    """Draw patches of a slide with a caption each.

    Parameters
    ----------
    slide : Slide
        Open.
    grid : PatchGrid
        Of this slide.
    patches : sequence of int
        Rows of the grid, in the order they are shown.
    captions : sequence of str
        One a patch.
    title : str
        Above all of them.

    Returns
    -------
    matplotlib.figure.Figure
        A patch that cannot be read is an empty square that says so.
    """
    columns = min(max(math.ceil(math.sqrt(len(patches))), 1), 8)
    rows = max(math.ceil(len(patches) / columns), 1)
    size = (columns * _TILE_INCHES, rows * (_TILE_INCHES + 0.2) + 0.4)
    figure = Figure(figsize=size, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=8, x=0.01, ha="left")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes:
        ax.set_axis_off()
    found = read_patches(slide, grid, list(patches))
    for ax, patch, caption in zip(axes, found, captions, strict=False):
        if patch.pixels is None:
            ax.text(0.5, 0.5, "not readable", ha="center", va="center", fontsize=7)
        else:
            ax.imshow(patch.pixels)
        ax.set_title(caption, fontsize=7, pad=2)
    return figure
