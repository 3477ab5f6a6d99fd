"""Figures of reconstructions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from napari_mcm.core.heatmaps.panels import DPI, FONT
from napari_mcm.core.mae.reconstruction import Reconstruction

_INCHES = 1.5
_SMALL = {**FONT, "size": 6.0}


def draw_reconstructions(found: Mapping[float, Sequence[Reconstruction]]) -> Figure:
    """Draw originals, and for each mask ratio what was seen and what was filled in.

    Parameters
    ----------
    found : mapping
        From a mask ratio to reconstructions, of the same images for each.

    Returns
    -------
    matplotlib.figure.Figure
        A row an image.
    """
    rows = len(next(iter(found.values())))
    columns = 1 + 2 * len(found)
    figure = Figure(
        figsize=(_INCHES * columns, _INCHES * rows + 0.5), dpi=DPI, layout="constrained"
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for row in range(rows):
        pictures, titles = [], []
        for ratio, several in found.items():
            one = several[row]
            pictures += [one.masked, one.filled]
            titles += [
                f"{ratio:.0%} hidden",
                f"error {one.error_hidden:.2f} | visible {one.error_visible:.2f}",
            ]
        originals = [next(iter(found.values()))[row].original]
        for column, picture in enumerate(originals + pictures):
            axes[row, column].imshow(picture, interpolation="nearest")
            if column:
                axes[row, column].set_title(titles[column - 1], **_SMALL)
        axes[row, 0].set_title("original", **_SMALL)
    return figure
