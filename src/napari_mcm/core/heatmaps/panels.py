"""Panels of figures: views of a slide to scale, with its pixels and a scale bar."""

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
        The rectangle, within the slide.
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
        """Return a view of the whole slide.

        Parameters
        ----------
        slide : Slide
            With a known resolution.

        Returns
        -------
        View
            All of level 0.
        """
        return cls(0.0, 0.0, float(slide.size[0]), float(slide.size[1]), slide.mpp)

    @classmethod
    def of_grid(cls, grid: PatchGrid, margin: float = 1.0) -> View:
        """Return a view of a grid's patches with a margin.

        Parameters
        ----------
        grid : PatchGrid
            The patches.
        margin : float, optional
            Width of the margin, in patches.

        Returns
        -------
        View
            The whole slide where there are no patches.
        """
        size, mpp = grid.slide["size"], grid.slide["mpp"]
        step = np.asarray(grid.patch_size_level0)
        corners = grid.xy if len(grid) else np.zeros((1, 2))
        # Without patches the view is the whole slide.
        end = np.asarray(size) if not len(grid) else corners.max(0) + step
        low = np.maximum(corners.min(0) - margin * step, 0)
        high = np.minimum(end + margin * step, size)
        (left, top), (width, height) = low.tolist(), (high - low).tolist()
        return cls(left, top, width, height, (mpp[0], mpp[1]))

    @property
    def size_um(self) -> tuple[float, float]:
        """Return the width and height of the view.

        Returns
        -------
        tuple of float
            In microns.
        """
        return self.width * self.mpp[0], self.height * self.mpp[1]

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Return the edges of the view, as matplotlib's ``imshow`` takes them.

        Returns
        -------
        tuple of float
            Left, right, bottom and top, in level-0 pixels.
        """
        return self.left, self.left + self.width, self.top + self.height, self.top


def make_panels(view: View, count: int) -> tuple[Figure, list[Axes]]:
    """Create a figure with a row of panels of the same view.

    Parameters
    ----------
    view : View
        What every panel shows.
    count : int
        Number of panels.

    Returns
    -------
    figure : matplotlib.figure.Figure
        The figure.
    axes : list of matplotlib.axes.Axes
        Axes in level-0 pixels, y downwards, without ticks; with room for a title above
        and a colour bar or a legend below each.
    """
    across, down = view.size_um
    # Many panels share a row of fixed width, so that a figure still fits a page.
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
    """Draw the slide's pixels in a panel, in colour or in pale grey.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        The panel.
    view : View
        What the panel shows.
    slide : Slide
        The slide.
    grey : bool, optional
        Whether to draw it in pale grey.
    """
    pixels = ax.get_window_extent().width
    # No more pixels than the panel shows, and none that the slide does not have.
    mpp = max(view.size_um[0] / pixels, *slide.mpp)
    size = (
        max(round(view.size_um[0] / mpp), 1),
        max(round(view.size_um[1] / mpp), 1),
    )
    rgb = slide.read((view.left, view.top), size, mpp)
    shown = pale_grey(rgb) if grey else rgb
    ax.imshow(shown, extent=view.extent, aspect="auto", interpolation="antialiased")


def pale_grey(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert colours to pale grey, on which a heatmap keeps its own colours.

    Parameters
    ----------
    rgb : ndarray of uint8, shape (height, width, 3)
        An image.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        Grey levels from 76 to 255.
    """
    # Luma of ITU-R BT.601; then 70 % of the contrast, on white.
    light = rgb.astype(np.float32) @ np.asarray([0.299, 0.587, 0.114], np.float32)
    light = 255 - 0.7 * (255 - light)
    return np.repeat(light.astype(np.uint8)[..., None], 3, axis=2)


def add_title(ax: Axes, text: str) -> None:
    """Write a title above a panel.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        The panel.
    text : str
        The title.
    """
    ax.set_title(text, loc="left", fontsize=10, color=INK, pad=5)


def add_scale_bar(ax: Axes, view: View) -> None:
    """Draw a scale bar of a round physical length in the lower left corner.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        The panel.
    view : View
        What the panel shows.
    """
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
    """Return the largest round length (1, 2 or 5 times a power of ten) up to a length.

    Parameters
    ----------
    microns : float
        A length in microns, greater than 0.

    Returns
    -------
    float
        In microns.
    """
    power = 10.0 ** math.floor(math.log10(microns))
    return max(n * power for n in (1, 2, 5) if n * power <= microns)
