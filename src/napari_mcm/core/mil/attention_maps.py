"""Attention as a heatmap: its scaling, its spread, overlapping patches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.features.patches import read_patches
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.heatmaps import Heatmap
from napari_mcm.core.slides import Slide

Scaling = Literal["rank", "minmax", "raw"]

Floats = NDArray[np.float64]


COLORMAP = "viridis"

_SAYS = {
    "rank": "rank among patches, 0 to 1",
    "minmax": "least to greatest as 0 to 1",
    "raw": "weights that sum to 1",
}


def attention_map(
    features: FeatureSet, weights: Floats, scaling: Scaling, name: str
) -> Heatmap:
    """Show weights of the patches that have features as a heatmap.

    Parameters
    ----------
    features : FeatureSet
        Of the slide, P patches.
    weights : ndarray of float64, shape (N,)
        Of the N patches that have features, in their order.
    scaling : {"rank", "minmax", "raw"}
        Rank divided by N, as CLAM's percentiles; from least to greatest as 0 to 1; or the
        weights themselves. It is named in the title.
    name : str
        What is shown: ``"attention to tumour"``.

    Returns
    -------
    Heatmap
        Patches that overlap are averaged where they do, before they are scaled.
    """
    values = average_overlaps(features, weights)
    scaled = scale(values, scaling)
    shown = np.full(len(features), np.nan, np.float32)
    shown[usable(features)] = scaled
    top = float(values.max(initial=0)) if scaling == "raw" else 1.0
    title = f"{name} ({_SAYS[scaling]})"
    return Heatmap(shown, features.grid, (0.0, top or 1.0), title, COLORMAP)


def usable(features: FeatureSet) -> NDArray[np.bool_]:
    """Tell which patches (P,) a classifier sees: those with finite features."""
    finite = np.isfinite(features.features).all(axis=1)
    return np.asarray(features.ok & finite)


def scale(values: Floats, scaling: Scaling) -> Floats:
    """Scale weights (N,); where all are the same, ranks are their mean and the rest 0."""
    if scaling == "raw" or not len(values):
        return values
    if scaling == "rank":
        from scipy.stats import rankdata

        return np.asarray(rankdata(values) / len(values), np.float64)
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def effective_number(weights: Floats) -> float:
    """Give the number of patches that as many equal weights would be spread over.

    The exponential of the entropy: N for uniform attention, 1 for a single patch.
    """
    part = weights[weights > 0] / weights.sum()
    return float(np.exp(-(part * np.log(part)).sum()))


def average_overlaps(features: FeatureSet, weights: Floats) -> Floats:
    """Average weights (N,) over patches that cover the same tissue.

    A patch of another tool may be larger than the step to the next. Its cell of the
    lattice then shows the mean of all patches that reach into it, each by the area that
    it covers there.
    """
    kernels = [_reach(features, axis) for axis in (1, 0)]
    if all(len(kernel) == 1 for kernel in kernels):
        return weights
    from scipy.ndimage import convolve

    chosen = usable(features)
    rows, columns = features.grid.lattice[chosen].T
    sums, counts = np.zeros((2, *features.grid.shape))
    np.add.at(sums, (rows, columns), weights)
    np.add.at(counts, (rows, columns), 1.0)
    kernel = np.outer(*kernels)
    smooth = [convolve(field, kernel, mode="constant") for field in (sums, counts)]
    return np.asarray(smooth[0][rows, columns] / smooth[1][rows, columns])


def _reach(features: FeatureSet, axis: int) -> Floats:
    """Give the part of each cell around a patch that it covers along x (0) or y (1)."""
    step = features.grid.patch_size_level0[axis]
    came: dict[str, Any] = features.provenance.get("imported", {})
    size = came.get("patch_size_level0", (step, step))[axis]
    half = max(float(size) / step, 1.0) / 2
    far = max(int(np.ceil(half - 0.5 - 1e-6)), 0)
    cells = np.arange(-far, far + 1)
    covered = np.minimum(cells + 0.5, half) - np.maximum(cells - 0.5, -half)
    return np.asarray(covered.clip(0, 1), np.float64)


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
