"""Attention as a heatmap: scaling, effective number of patches, overlaps, gallery.

Weights a_n that sum to 1 over a slide's patches are shown as they are, from least to
greatest, or by rank, as CLAM does. Their spread is the exponential of their entropy::

    N_eff = exp( - Σ_n a_n log a_n )
"""

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

_SCALING_TEXT = {
    "rank": "rank among patches, 0 to 1",
    "minmax": "least to greatest as 0 to 1",
    "raw": "weights that sum to 1",
}


def attention_map(
    features: FeatureSet, weights: Floats, scaling: Scaling, name: str
) -> Heatmap:
    """Return a heatmap of the weights of the patches that have features.

    Parameters
    ----------
    features : FeatureSet
        Features of the slide, P patches.
    weights : ndarray of float64, shape (N,)
        Weights of the N patches that have features, in their order.
    scaling : {"rank", "minmax", "raw"}
        Rank divided by N, as CLAM's percentiles; from least to greatest as 0 to 1; or the
        weights themselves. The title names it.
    name : str
        What is shown: ``"attention to tumour"``.

    Returns
    -------
    Heatmap
        Overlapping patches are averaged where they overlap, before scaling.
    """
    # Averaging comes first: the mean of ranks is not the rank of means.
    values = average_overlaps(features, weights)
    scaled = scale(values, scaling)
    shown = np.full(len(features), np.nan, np.float32)
    shown[usable(features)] = scaled
    top = float(values.max(initial=0)) if scaling == "raw" else 1.0
    title = f"{name} ({_SCALING_TEXT[scaling]})"
    limits, context = (0.0, top or 1.0), features.neighbourhood
    return Heatmap(shown, features.grid, limits, title, COLORMAP, neighbourhood=context)


def usable(features: FeatureSet) -> NDArray[np.bool_]:
    """Return which patches a classifier uses: those with finite features.

    Parameters
    ----------
    features : FeatureSet
        Features of a slide, P patches.

    Returns
    -------
    ndarray of bool, shape (P,)
        True for the patches used.
    """
    finite = np.isfinite(features.features).all(axis=1)
    return np.asarray(features.ok & finite)


def scale(values: Floats, scaling: Scaling) -> Floats:
    """Scale weights for display.

    Parameters
    ----------
    values : ndarray of float64, shape (N,)
        Weights.
    scaling : {"rank", "minmax", "raw"}
        As in :func:`attention_map`.

    Returns
    -------
    ndarray of float64, shape (N,)
        Where all weights are equal, ranks are their mean and ``"minmax"`` gives 0.
    """
    if scaling == "raw" or not len(values):
        return values
    # Ranks show the order where few patches hold nearly all the weight, as in CLAM.
    if scaling == "rank":
        from scipy.stats import rankdata

        return np.asarray(rankdata(values) / len(values), np.float64)
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def effective_number(weights: Floats) -> float:
    """Return the number of patches that as many equal weights would be spread over.

    The exponential of the entropy: N for uniform attention, 1 for a single patch.

    Parameters
    ----------
    weights : ndarray of float64, shape (N,)
        Non-negative weights.

    Returns
    -------
    float
        Between 1 and N.
    """
    # 0 · log 0 is 0: patches without weight drop out of the sum.
    part = weights[weights > 0] / weights.sum()
    return float(np.exp(-(part * np.log(part)).sum()))


def average_overlaps(features: FeatureSet, weights: Floats) -> Floats:
    """Average weights over patches that cover the same tissue.

    A patch from another tool may be larger than the step to the next patch. Its cell of
    the lattice then shows the mean of all patches that reach into it, weighted by the
    area that they cover there.

    Parameters
    ----------
    features : FeatureSet
        Features of the slide, of which N patches are usable.
    weights : ndarray of float64, shape (N,)
        Weights of those patches.

    Returns
    -------
    ndarray of float64, shape (N,)
        The weights unchanged where patches do not overlap.
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
    # The area that a patch covers is the product of its reach along y and x.
    kernel = np.outer(*kernels)
    # Dividing by the same convolution of counts makes it a mean at borders and gaps.
    smooth = [convolve(field, kernel, mode="constant") for field in (sums, counts)]
    return np.asarray(smooth[0][rows, columns] / smooth[1][rows, columns])


def _reach(features: FeatureSet, axis: int) -> Floats:
    """Return the fraction of each cell that a patch covers along x (axis 0) or y (1)."""
    step = features.grid.patch_size_level0[axis]
    imported: dict[str, Any] = features.provenance.get("imported", {})
    size = imported.get("patch_size_level0", (step, step))[axis]
    # In cells of the lattice; a smaller patch still fills its own cell.
    half = max(float(size) / step, 1.0) / 2
    far = max(int(np.ceil(half - 0.5 - 1e-6)), 0)
    cells = np.arange(-far, far + 1)
    covered = np.minimum(cells + 0.5, half) - np.maximum(cells - 0.5, -half)
    return np.asarray(covered.clip(0, 1), np.float64)


_TILE_INCHES = 1.35


def top_patches(values: NDArray[np.floating], count: int) -> list[int]:
    """Return the patches of the greatest values, best first.

    Parameters
    ----------
    values : ndarray of floating, shape (P,)
        Values; a patch whose value is NaN is never returned.
    count : int
        Number of patches at most.

    Returns
    -------
    list of int
        Rows of the grid.
    """
    # Stable: of equal values the first patch wins on every platform.
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
    """Draw patches of a slide with one caption each.

    Parameters
    ----------
    slide : Slide
        The slide, open.
    grid : PatchGrid
        Grid of this slide.
    patches : sequence of int
        Rows of the grid, in the order in which they are drawn.
    captions : sequence of str
        One caption per patch.
    title : str
        Title of the figure.

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
