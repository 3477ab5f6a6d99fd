"""The figure of an evaluation: encoders side by side, their differences below."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from napari_mcm.core.evaluation.measures import BY_CHANCE, TITLES
from napari_mcm.core.evaluation.result import Evaluation, Row
from napari_mcm.core.files import atomic_path

# Okabe and Ito's palette, which people with any colour vision can tell apart.
COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_COLUMNS = 4
_DPI, _SIZE = 150, 8.0


def draw_evaluation(result: Evaluation) -> Figure:
    """Draw each measure in a panel: values above, differences to the first below.

    Parameters
    ----------
    result : Evaluation
        Of any number of encoders.

    Returns
    -------
    matplotlib.figure.Figure
    """
    names = result.measures()
    bands = -(-len(names) // _COLUMNS)
    paired = len(result.encoders) > 1
    rows = bands * (2 if paired else 1)
    figure = Figure((11, 1.1 + bands * (3.9 if paired else 2.4)), layout="constrained")
    FigureCanvasAgg(figure)
    heights = [2.0, 1.1] * bands if paired else [2.0] * bands
    axes = figure.subplots(
        rows, _COLUMNS, squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for axis in axes.flat:
        axis.set_visible(False)
    for number, name in enumerate(names):
        band, column = divmod(number, _COLUMNS)
        top = band * (2 if paired else 1)
        found = [row for row in result.rows if row.measure == name]
        _draw_values(axes[top, column], name, found)
        if paired:
            _draw_differences(axes[top + 1, column], found)
    _add_words(figure, result)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically."""
    with atomic_path(path) as part:
        figure.savefig(part, dpi=_DPI, facecolor="white")


def _draw_values(axis: Axes, name: str, rows: list[Row]) -> None:
    _prepare(axis, len(rows))
    axis.set_title(TITLES[name], fontsize=_SIZE + 0.5, loc="left")
    if name in BY_CHANCE:
        axis.axhline(BY_CHANCE[name], color="#8a8a8a", lw=0.8, ls=":")
    if name == "neighbour_gain":
        axis.axhline(0, color="#8a8a8a", lw=0.8, ls=":")
    for place, row in enumerate(rows):
        _mark(axis, place, row.value, row.interval, f"{row.value:.3g}")
    axis.set_xticks(range(len(rows)), [""] * len(rows))
    if len(rows) == 1:
        axis.set_xticks([0], [rows[0].encoder])


def _draw_differences(axis: Axes, rows: list[Row]) -> None:
    _prepare(axis, len(rows))
    axis.axhline(0, color="#8a8a8a", lw=0.8)
    for place, row in enumerate(rows):
        if row.difference is not None and row.difference_interval is not None:
            told = f"{row.difference:+.2g}"
            _mark(axis, place, row.difference, row.difference_interval, told)
    labels = [row.encoder for row in rows]
    axis.set_xticks(range(len(rows)), labels, rotation=20, ha="right")


def _prepare(axis: Axes, count: int) -> None:
    axis.set_visible(True)
    axis.tick_params(labelsize=_SIZE - 1)
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(y=0.18)
    # Room for the number at the right of the last mark.
    axis.set_xlim(-0.5, count - 0.2)


def _mark(
    axis: Axes, place: int, value: float, interval: tuple[float, float], text: str
) -> None:
    if not np.isfinite(value):
        return
    colour = COLOURS[place % len(COLOURS)]
    axis.vlines(place, *interval, color=colour, lw=1.6)
    axis.plot(place, value, "o", color=colour, ms=5)
    axis.annotate(
        text,
        (place, value),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        fontsize=_SIZE - 1,
        color=colour,
    )


def _add_words(figure: Figure, result: Evaluation) -> None:
    counted = ", ".join(f"{count} {name}" for name, count in result.classes.items())
    head = f"{sum(result.classes.values())} patches: {counted}; {len(result.groups)} groups"
    below = f"; below: difference to {result.encoders[0]}, paired"
    figure.suptitle(
        f"{head}\nlines: 95 % bootstrap, {result.resampling}"
        + (below if len(result.encoders) > 1 else ""),
        fontsize=_SIZE,
        ha="left",
        x=0.01,
        wrap=True,
    )
