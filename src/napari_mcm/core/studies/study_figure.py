"""A study's figures drawn: a panel a figure, a column an arm, a dot a cell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from napari_mcm.core.files import atomic_path
from napari_mcm.core.studies.study_config import StudyConfig
from napari_mcm.core.studies.study_table import Row, by_cell, figure_names

PANELS = 6
_MARKERS = "osD^vP*X"


def draw_study(path: Path, rows: Sequence[Row], config: StudyConfig) -> Path | None:
    """Draw each arm's cells: colour is the fold, the bar is the mean.

    Returns
    -------
    Path or None
        The picture; None where there is nothing to draw.
    """
    names = figure_names(rows, config)[:PANELS]
    if not names:
        return None
    columns = min(len(names), 3)
    lines = -(-len(names) // columns)
    width = max(3.2, 0.55 * len(config.arms) + 1.4)
    figure = Figure((width * columns, 3.1 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis, name in zip(axes, names, strict=False):
        _draw_panel(axis, rows, config, name)
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    folds = list(dict.fromkeys(row.fold for row in rows))
    handles, _ = axes[0].get_legend_handles_labels()
    if len(folds) > 1 and handles:
        axes[0].legend(fontsize=7, title="fold", title_fontsize=7)
    with atomic_path(path) as part:
        figure.savefig(part, dpi=150)
    return path


def _draw_panel(
    axis: Axes, rows: Sequence[Row], config: StudyConfig, name: str
) -> None:
    folds = list(dict.fromkeys(row.fold for row in rows))
    named: set[str] = set()
    for column, arm in enumerate(config.arms):
        values = by_cell(rows, arm, name)
        for (fold, seed), value in values.items():
            number = folds.index(fold)
            axis.plot(
                column + 0.6 * ((seed - config.first_seed + 0.5) / config.seeds - 0.5),
                value,
                _MARKERS[number % len(_MARKERS)],
                color=f"C{number % 10}",
                markersize=4,
                label="" if fold in named else fold,
            )
            named.add(fold)
        if values:
            mean = float(np.mean(list(values.values())))
            axis.hlines(mean, column - 0.35, column + 0.35, colors="black", lw=1.2)
    axis.set_xticks(range(len(config.arms)), list(config.arms), rotation=45, ha="right")
    axis.set_title(name.replace("_", " "), fontsize=9)
    axis.tick_params(labelsize=8)
    axis.grid(axis="y", lw=0.3)
