"""Figures of heatmaps, grids and losses, for files and for the report of a run.

They are matplotlib figures made without pyplot, so that any thread can draw them without
a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps, patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.heatmaps.heatmap import Heatmap
from napari_mcm.core.heatmaps.panels import (
    DPI,
    FONT,
    INK,
    QUIET,
    View,
    add_scale_bar,
    add_title,
    make_panels,
    show_slide,
)
from napari_mcm.core.runtime.files import atomic_path
from napari_mcm.core.slides import Slide
from napari_mcm.core.tissue import TissueMask

# The tissue shows through, and the colours of the map still match its colour bar.
OPACITY = 0.62

# Okabe and Ito's palette, which is distinguishable with any colour vision.
BLUE, VERMILION = "#0072B2", "#D55E00"


def draw_heatmap(heatmap: Heatmap, slide: Slide | None = None) -> Figure:
    """Draw one heatmap; with a slide, the tissue beside it and underneath.

    Parameters
    ----------
    heatmap : Heatmap
        Its title labels the colour bar, and its limits are the ends of the bar.
    slide : Slide, optional
        The slide that it was made from.

    Returns
    -------
    matplotlib.figure.Figure
        For :func:`save_figure`.
    """
    return draw_heatmaps([heatmap], slide)


def draw_heatmaps(
    heatmaps: Sequence[Heatmap],
    slide: Slide | None = None,
    titles: Sequence[str] | None = None,
) -> Figure:
    """Draw heatmaps of one slide side by side, each with its own colour bar.

    Parameters
    ----------
    heatmaps : sequence of Heatmap
        On the same grid.
    slide : Slide, optional
        Shown in colour in a first panel, and in grey under each heatmap.
    titles : sequence of str, optional
        Heading of each panel. A heatmap's own title always labels its colour bar.

    Returns
    -------
    matplotlib.figure.Figure
        For :func:`save_figure`.
    """
    view = View.of_grid(heatmaps[0].grid)
    figure, axes = make_panels(view, len(heatmaps) + (slide is not None))
    if slide is not None:
        _show_tissue(axes[0], view, slide, heatmaps[0])
    for i, (heatmap, ax) in enumerate(
        zip(heatmaps, axes[-len(heatmaps) :], strict=True)
    ):
        if slide is not None:
            # Grey: the stain's own pink and blue would shift the map's colours.
            show_slide(ax, view, slide, grey=True)
        _show_values(ax, heatmap)
        _mark_query(ax, heatmap)
        _add_colour_bar(ax, heatmap)
        if titles:
            add_title(ax, titles[i])
        elif slide is None:
            add_title(ax, str(heatmap.grid.slide["name"]))
        if slide is None and i == 0:
            add_scale_bar(ax, view)
    return figure


def draw_grid(slide: Slide, tissue: TissueMask, grid: PatchGrid) -> Figure:
    """Draw a slide with the outline of its tissue and its patches.

    Parameters
    ----------
    slide : Slide
        With a known resolution.
    tissue : TissueMask
        Tissue of this slide.
    grid : PatchGrid
        Patches of this slide.

    Returns
    -------
    matplotlib.figure.Figure
        For :func:`save_figure`.
    """
    view = View.of_slide(slide)
    figure, (ax,) = make_panels(view, 1)
    show_slide(ax, view, slide)
    _outline(ax, tissue)
    _show_patches(ax, grid)
    add_scale_bar(ax, view)
    add_title(ax, f"{slide.name}: {len(grid):,} patches")
    handles = [
        Line2D([], [], color=BLUE, linewidth=1.6),
        Patch(facecolor="none", edgecolor=INK, linewidth=0.8),
    ]
    labels = [
        f"tissue: {tissue.fraction:.1%} of the slide",
        f"patch: {grid.patch_size} px at {grid.mpp:.3g} µm/px = {grid.patch_um:.0f} µm",
    ]
    ax.legend(
        handles,
        labels,
        loc="upper left",
        bbox_to_anchor=(0, -0.01),
        borderaxespad=0,
        ncols=1,
        frameon=False,
        fontsize=9,
        labelcolor=INK,
    )
    return figure


def draw_loss(
    steps: Sequence[float], losses: Sequence[float], label: str = "loss"
) -> Figure:
    """Draw the loss of a training against its steps.

    Parameters
    ----------
    steps, losses : sequence of float
        As in a run's ``metrics.csv``.
    label : str, optional
        Label of the axis, with the loss's unit where it has one.

    Returns
    -------
    matplotlib.figure.Figure
        For :func:`save_figure`.
    """
    loss = np.asarray(losses, float)
    figure = Figure(figsize=(6.4, 3.4), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.add_subplot()
    if len(loss):
        # A twentieth of the run is smooth enough to show a trend at any length.
        window = max(len(loss) // 20, 1)
        ax.plot(steps, loss, color=BLUE, alpha=0.35, linewidth=0.9, label="each step")
        smooth = f"mean of {window} steps"
        ax.plot(steps, _running_mean(loss, window), color=BLUE, lw=1.8, label=smooth)
        ax.legend(frameon=False, fontsize=9)
    ax.set_xlabel("training step", **FONT)
    ax.set_ylabel(label, **FONT)
    ax.tick_params(labelsize=8, colors=QUIET)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="#e4e4e4", linewidth=0.6)
    return figure


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, or in the format that the file's ending names.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The figure.
    path : Path
        The file, which appears when it is complete.

    Returns
    -------
    Path
        The file.
    """
    with atomic_path(Path(path)) as part:
        figure.savefig(part, dpi=DPI)
    return Path(path)


def _show_tissue(ax: Axes, view: View, slide: Slide, heatmap: Heatmap) -> None:
    show_slide(ax, view, slide)
    _mark_query(ax, heatmap)
    add_scale_bar(ax, view)
    add_title(ax, slide.name)


def _show_values(ax: Axes, heatmap: Heatmap) -> None:
    grid = heatmap.grid
    (left, top), (step_x, step_y) = grid.origin, grid.patch_size_level0
    rows, columns = grid.shape
    # imshow changes the limits, which the panel's proportions depend on.
    limits = ax.get_xlim(), ax.get_ylim()
    ax.imshow(
        # Patches without a value stay transparent.
        np.ma.masked_invalid(heatmap.raster),
        extent=(left, left + columns * step_x, top + rows * step_y, top),
        cmap=colormaps[heatmap.colormap],
        norm=Normalize(*heatmap.limits),
        alpha=OPACITY,
        interpolation="nearest",
        aspect="auto",
        zorder=3,
    )
    ax.set(xlim=limits[0], ylim=limits[1])


def _mark_query(ax: Axes, heatmap: Heatmap) -> None:
    if heatmap.query is None:
        return
    x, y = heatmap.grid.xy[heatmap.query]
    width, height = heatmap.grid.patch_size_level0
    box = Rectangle(
        (x, y), width, height, fill=False, edgecolor=INK, linewidth=1.6, zorder=5
    )
    box.set_path_effects([patheffects.withStroke(linewidth=3.6, foreground="white")])
    box.set_gid("query")
    ax.add_patch(box)
    (left, right), (_, top) = ax.get_xlim(), ax.get_ylim()
    # Near these edges the label would leave the panel: it goes to the other side.
    at_right, at_top = x > left + 0.85 * (right - left), y < top + 2 * height
    ax.annotate(
        "query",
        (x if at_right else x + width, y + height if at_top else y),
        (-3 if at_right else 3, -2 if at_top else 2),
        textcoords="offset points",
        ha="right" if at_right else "left",
        va="top" if at_top else "bottom",
        zorder=6,
        path_effects=[patheffects.withStroke(linewidth=2.5, foreground="white")],
        **FONT,
    )


def _add_colour_bar(ax: Axes, heatmap: Heatmap) -> None:
    low, high = heatmap.limits
    mappable = ScalarMappable(Normalize(low, high), colormaps[heatmap.colormap])
    # Pointed ends say that values lie beyond the colour range.
    ends = (np.nanmin(heatmap.values) < low, np.nanmax(heatmap.values) > high)
    extend = {(True, True): "both", (True, False): "min", (False, True): "max"}
    bar = ax.figure.colorbar(
        mappable,
        cax=ax.inset_axes((0.06, -0.045, 0.88, 0.022)),
        orientation="horizontal",
        alpha=OPACITY,
        extend=extend.get((bool(ends[0]), bool(ends[1])), "neither"),
        ticks=np.linspace(low, high, 5),
        format=lambda value, _: f"{round(value, 2 if high - low > 0.2 else 4):g}",
    )
    bar.set_label(heatmap.title, **FONT)
    bar.outline.set(linewidth=0.5, edgecolor=QUIET)
    bar.ax.tick_params(labelsize=8, colors=QUIET, length=2.5, width=0.6, pad=2)


def _outline(ax: Axes, tissue: TissueMask) -> None:
    height, width = tissue.mask.shape
    if not tissue.mask.any() or min(height, width) < 2:
        return
    # A border of background closes outlines where tissue touches the slide's edge.
    padded = np.pad(tissue.mask, 1).astype(float)
    x = (np.arange(-1, width + 1) + 0.5) * tissue.downsample[0]
    y = (np.arange(-1, height + 1) + 0.5) * tissue.downsample[1]
    lines = ax.contour(x, y, padded, [0.5], colors=[BLUE], linewidths=1.6, zorder=4)
    lines.set_path_effects([patheffects.withStroke(linewidth=3.0, foreground="white")])


def _show_patches(ax: Axes, grid: PatchGrid) -> None:
    corners = np.asarray([(0, 0), (1, 0), (1, 1), (0, 1)]) * grid.patch_size_level0
    squares = grid.xy[:, None, :] + corners
    # Thinner lines for many thousands of patches, which would hide the tissue.
    across = ax.get_window_extent().width / max(grid.shape[1], 1)
    thickness = float(np.clip(across / 30, 0.15, 0.8))
    ax.add_collection(
        PolyCollection(
            list(squares),
            facecolor="none",
            edgecolor=INK,
            linewidth=thickness,
            zorder=3,
        ),
        autolim=False,
    )


def _running_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Average over the last `window` values, over fewer at the start."""
    # Differences of cumulative sums: the cost does not depend on the window.
    sums = np.concatenate([[0.0], np.cumsum(values)])
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - window, 0)
    return np.asarray((sums[end] - sums[start]) / (end - start))
