"""What the figures are put together from: panels of slide, scale bars, colour bars."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.slides import Slide

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
