"""Figures of heatmaps, grids and losses, for files and for the report of a run.

They are matplotlib figures made without pyplot: no window, no state, any thread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from napari_mcm.core.runtime.files import atomic_path
from napari_mcm.core.slides import Slide
from napari_mcm.core.tissue import TissueMask

OPACITY = 0.62

# Okabe and Ito's palette, which people with any colour vision can tell apart.
BLUE, VERMILION = "#0072B2", "#D55E00"


def draw_heatmap(heatmap: Heatmap, slide: Slide | None = None) -> Figure:
    """Draw one heatmap; with a slide, the tissue beside it and underneath.

    Parameters
    ----------
    heatmap : Heatmap
        Its title stands at the colour bar, its limits are the bar's ends.
    slide : Slide, optional
        The slide that it was made from.

    Returns
    -------
    matplotlib.figure.Figure
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
        What heads each heatmap. Its own title always stands at its colour bar.

    Returns
    -------
    matplotlib.figure.Figure
    """
    view = View.of_grid(heatmaps[0].grid)
    figure, axes = make_panels(view, len(heatmaps) + (slide is not None))
    if slide is not None:
        _show_tissue(axes[0], view, slide, heatmaps[0])
    for i, (heatmap, ax) in enumerate(
        zip(heatmaps, axes[-len(heatmaps) :], strict=True)
    ):
        if slide is not None:
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
        Of this slide.
    grid : PatchGrid
        Of this slide.

    Returns
    -------
    matplotlib.figure.Figure
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
        As a run's ``metrics.csv`` has them.
    label : str
        What the loss is called on the axis, with its unit where it has one.

    Returns
    -------
    matplotlib.figure.Figure
    """
    loss = np.asarray(losses, float)
    figure = Figure(figsize=(6.4, 3.4), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.add_subplot()
    if len(loss):
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
    """Write a figure in one go, as PNG or in the format that the ending names."""
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
    limits = ax.get_xlim(), ax.get_ylim()
    ax.imshow(
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
    padded = np.pad(tissue.mask, 1).astype(float)
    x = (np.arange(-1, width + 1) + 0.5) * tissue.downsample[0]
    y = (np.arange(-1, height + 1) + 0.5) * tissue.downsample[1]
    lines = ax.contour(x, y, padded, [0.5], colors=[BLUE], linewidths=1.6, zorder=4)
    lines.set_path_effects([patheffects.withStroke(linewidth=3.0, foreground="white")])


def _show_patches(ax: Axes, grid: PatchGrid) -> None:
    corners = np.asarray([(0, 0), (1, 0), (1, 1), (0, 1)]) * grid.patch_size_level0
    squares = grid.xy[:, None, :] + corners
    # Many thousands of patches: thinner lines, or they would hide the tissue.
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
    sums = np.concatenate([[0.0], np.cumsum(values)])
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - window, 0)
    return np.asarray((sums[end] - sums[start]) / (end - start))


DPI = 160

INK, QUIET = "#1a1a1a", "#595959"

FONT: dict[str, Any] = {"size": 9.0, "color": INK}

_PANEL_INCHES, _ROW_INCHES = 5.2, 15.0

_GAP, _TOP, _BOTTOM, _SIDE = 0.25, 0.36, 0.62, 0.2


@dataclass(frozen=True)
class View:
    """The part of a slide that a panel shows, in level-0 pixels.

    Attributes
    ----------
    left, top, width, height : float
        The rectangle; within the slide.
    mpp : tuple of float
        Microns per level-0 pixel along x and y.
    """

    left: float
    top: float
    width: float
    height: float
    mpp: tuple[float, float]

    @classmethod
    def of_slide(cls, slide: Slide) -> View:
        """Show all of a slide."""
        return cls(0.0, 0.0, float(slide.size[0]), float(slide.size[1]), slide.mpp)

    @classmethod
    def of_grid(cls, grid: PatchGrid, margin: float = 1.0) -> View:
        """Show a grid's patches, and a margin of so many patches around them."""
        size, mpp = grid.slide["size"], grid.slide["mpp"]
        step = np.asarray(grid.patch_size_level0)
        corners = grid.xy if len(grid) else np.zeros((1, 2))
        end = np.asarray(size) if not len(grid) else corners.max(0) + step
        low = np.maximum(corners.min(0) - margin * step, 0)
        high = np.minimum(end + margin * step, size)
        (left, top), (width, height) = low.tolist(), (high - low).tolist()
        return cls(left, top, width, height, (mpp[0], mpp[1]))

    @property
    def size_um(self) -> tuple[float, float]:
        """Width and height in microns."""
        return self.width * self.mpp[0], self.height * self.mpp[1]

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom, top, as matplotlib's ``imshow`` takes them."""
        return self.left, self.left + self.width, self.top + self.height, self.top


def make_panels(view: View, count: int) -> tuple[Figure, list[Axes]]:
    """Make a figure with a row of panels of the same view.

    Returns
    -------
    tuple of Figure and list of Axes
        Axes in level-0 pixels, y downwards, without ticks; a title has room above, a
        colour bar or a legend below each.
    """
    across, down = view.size_um
    longest = min(_PANEL_INCHES, _ROW_INCHES / count)
    width = max(longest * min(1.0, across / down), 2.6)
    height = width * down / across
    total_w = 2 * _SIDE + count * width + (count - 1) * _GAP
    total_h = _TOP + height + _BOTTOM
    figure = Figure(figsize=(total_w, total_h), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    axes = []
    for i in range(count):
        x = (_SIDE + i * (width + _GAP)) / total_w
        box = (x, _BOTTOM / total_h, width / total_w, height / total_h)
        ax = figure.add_axes(box)
        ax.set_xlim(view.extent[:2])
        ax.set_ylim(view.extent[2:])
        # Pixels need not be square: the box above already has the physical proportions.
        ax.set_aspect("auto")
        ax.set(xticks=[], yticks=[])
        for spine in ax.spines.values():
            spine.set(linewidth=0.6, color="#b0b0b0")
        axes.append(ax)
    return figure, axes


def show_slide(ax: Axes, view: View, slide: Slide, grey: bool = False) -> None:
    """Put the slide's pixels into a panel, in colour or as pale grey."""
    pixels = ax.get_window_extent().width
    mpp = max(view.size_um[0] / pixels, *slide.mpp)
    size = (
        max(round(view.size_um[0] / mpp), 1),
        max(round(view.size_um[1] / mpp), 1),
    )
    rgb = slide.read((view.left, view.top), size, mpp)
    shown = pale_grey(rgb) if grey else rgb
    ax.imshow(shown, extent=view.extent, aspect="auto", interpolation="antialiased")


def pale_grey(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Take the stain out and lift the darks: a heatmap keeps its own colours."""
    light = rgb.astype(np.float32) @ np.asarray([0.299, 0.587, 0.114], np.float32)
    light = 255 - 0.7 * (255 - light)
    return np.repeat(light.astype(np.uint8)[..., None], 3, axis=2)


def add_title(ax: Axes, text: str) -> None:
    """Say above a panel what it shows."""
    ax.set_title(text, loc="left", fontsize=10, color=INK, pad=5)


def add_scale_bar(ax: Axes, view: View) -> None:
    """Draw a bar of a round physical length into the lower left corner."""
    length = round_length(view.size_um[0] / 5)
    across = length / view.mpp[0]
    x = view.left + 0.03 * view.width
    y = view.top + view.height - 0.03 * view.height
    halo = [patheffects.withStroke(linewidth=4.5, foreground="white", alpha=0.9)]
    ax.plot(
        [x, x + across],
        [y, y],
        color=INK,
        linewidth=2.5,
        solid_capstyle="butt",
        path_effects=halo,
        gid="scale-bar",
        zorder=6,
    )
    label = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"
    ax.annotate(
        label,
        (x, y),
        (0, 4),
        textcoords="offset points",
        ha="left",
        va="bottom",
        path_effects=[patheffects.withStroke(linewidth=2.5, foreground="white")],
        zorder=6,
        **FONT,
    )


def round_length(microns: float) -> float:
    """Give the nearest length below of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(microns))
    return max(n * power for n in (1, 2, 5) if n * power <= microns)
