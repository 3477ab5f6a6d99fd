"""The figure of an evaluation: encoders side by side, with their differences below."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from napari_mcm.core.evaluation.metrics import APART, BY_CHANCE, TITLES
from napari_mcm.core.evaluation.result import Evaluation, Row
from napari_mcm.core.runtime.files import atomic_path

# Okabe and Ito's palette, which is distinguishable with any colour vision.
COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_COLUMNS = 4
_DPI, _SIZE = 150, 8.0
_QUIET = "#8a8a8a"


def draw_evaluation(result: Evaluation) -> Figure:
    """Draw one panel per measure: values above, differences to the reference below.

    Parameters
    ----------
    result : Evaluation
        Of any number of encoders.

    Returns
    -------
    matplotlib.figure.Figure
        One colour per encoder.
    """
    # Tables have the measures at borders; here they would double the panels.
    names = [name for name in result.measures() if name not in APART]
    bands = -(-len(names) // _COLUMNS)
    paired = len(result.encoders) > 1
    heights = [2.0, 1.1] * bands if paired else [2.0] * bands
    tall = 1.2 * sum(heights) + 1.5
    figure = Figure((11, tall))
    FigureCanvasAgg(figure)
    axes = figure.subplots(
        len(heights), _COLUMNS, squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    figure.subplots_adjust(
        0.06, 0.25 / tall, 0.985, 1 - 1.15 / tall, wspace=0.33, hspace=0.32
    )
    for axis in axes.flat:
        # The last band may have fewer measures than columns.
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
    """Write a figure as PNG, atomically.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The figure.
    path : Path
        File to write.
    """
    with atomic_path(path) as part:
        figure.savefig(part, dpi=_DPI, facecolor="white")


def _draw_values(axis: Axes, name: str, rows: list[Row]) -> None:
    axis.set_title(TITLES[name], fontsize=_SIZE + 0.5, loc="left")
    # Axes do not begin at 0: without the line of chance every encoder would look good.
    axis.axhline(BY_CHANCE.get(name, 0.0), color=_QUIET, lw=0.8, ls=":")
    for place, row in enumerate(rows):
        _mark(axis, place, row.value, row.interval, f"{row.value:.3g}")
    ends = np.asarray([(*row.interval, row.value) for row in rows])
    _prepare(axis, len(rows), ends)


def _draw_differences(axis: Axes, rows: list[Row]) -> None:
    axis.axhline(0, color=_QUIET, lw=0.8)
    ends = [0.0]
    for place, row in enumerate(rows):
        if row.difference is not None and row.difference_interval is not None:
            text = f"{row.difference:{'+.3f' if abs(row.difference) < 1 else '+.1f'}}"
            _mark(axis, place, row.difference, row.difference_interval, text)
            ends += [row.difference, *row.difference_interval]
    _prepare(axis, len(rows), np.asarray(ends))


def _prepare(axis: Axes, count: int, ends: NDArray[np.float64]) -> None:
    axis.set_visible(True)
    axis.set_xticks([])
    axis.tick_params(labelsize=_SIZE - 1)
    axis.locator_params(axis="y", nbins=5)
    axis.spines[["top", "right"]].set_visible(False)
    # Room for the number at the right of the last mark.
    axis.set_xlim(-0.5, count - 0.2)
    ends = ends[np.isfinite(ends)]
    if len(ends):
        margin = 0.15 * max(float(np.ptp(ends)), 1e-3)
        axis.set_ylim(ends.min() - margin, ends.max() + margin)


def _mark(
    axis: Axes, place: int, value: float, interval: tuple[float, float], text: str
) -> None:
    # The encoder's place stays empty, so that the order is the same in all panels.
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
    lines = [
        f"{sum(result.classes.values())} patches of {len(result.groups)} groups: {counted}",
        f"lines: 95 % bootstrap, {result.resampling}",
    ]
    if result.neighbourhood.radius:
        lines[0] += f"; features over {result.neighbourhood.describe()} patches"
    if len(result.encoders) > 1:
        lines.append(f"lower panels: difference to {result.encoders[0]}, paired")
    wrapped = [part for line in lines for part in textwrap.wrap(line, 150)]
    top = 1 - 0.08 / figure.get_size_inches()[1]
    figure.text(0.01, top, "\n".join(wrapped), fontsize=_SIZE, va="top")
    handles = [
        Line2D(
            [], [], color=COLOURS[place % len(COLOURS)], marker="o", ms=5, label=name
        )
        for place, name in enumerate(result.encoders)
    ]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.0, 1 - 0.62 / figure.get_size_inches()[1]),
        ncols=max(len(handles), 1),
        frameon=False,
        fontsize=_SIZE + 0.5,
    )
