"""The picture of all arms at each radius, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from benchmarks.results.context_folders import Measure, Study
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from napari_mcm.core.runtime.files import atomic_path

FILE = "results-arms.png"
PER_LINE = 3
_STYLE = {0: ("o", "C0", "patch"), 1: ("s", "C1", "3 × 3"), 2: ("^", "C2", "5 × 5")}

Panel = tuple[str, str, Measure]
"""Name of a study, what it is called, and the measure."""


def draw(
    pictures: Path,
    arms: Mapping[str, str],
    studies: Mapping[str, Study],
    panels: Sequence[Panel],
) -> str:
    """Draw what there is, and return the line that shows it."""
    there = [panel for panel in panels if panel[0] in studies]
    if not there:
        return "No study is run yet: there is nothing to draw."
    columns = min(len(there), PER_LINE)
    lines = -(-len(there) // columns)
    figure = Figure((3.3 * columns, 2.7 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis, (name, title, measure) in zip(axes, there, strict=False):
        _draw_panel(axis, arms, studies[name], measure)
        axis.set_title(f"{title}: {measure.title}", fontsize=8)
    for axis in axes[len(there) :]:
        axis.set_visible(False)
    axes[0].legend(fontsize=7, title="context", title_fontsize=7)
    with atomic_path(pictures / FILE) as part:
        figure.savefig(part, dpi=150)
    return f"![All arms at each context, with intervals](../pictures/{FILE})"


def _draw_panel(
    axis: Axes, arms: Mapping[str, str], study: Study, measure: Measure
) -> None:
    names = [arm for arm in arms if arm in study.config.arms]
    radii = [radius for radius in study.config.radii if radius in _STYLE]
    for radius in radii:
        marker, colour, label = _STYLE[radius]
        places, means, ends = [], [], []
        for place, arm in enumerate(names):
            value = study.value(measure, arm, radius)
            if value is not None:
                places.append(place + 0.18 * (radius - (len(radii) - 1) / 2))
                means.append(value.mean)
                low, high = np.nan_to_num(value.interval, nan=value.mean)
                ends.append((value.mean - low, high - value.mean))
        if means:
            bars = np.clip(np.transpose(ends), 0, None)
            axis.errorbar(
                places, means, bars, fmt=marker, color=colour, ms=4, lw=1, label=label
            )
    labels = [arm.removesuffix("-l2") for arm in names]
    axis.set_xlim(-0.5, len(names) - 0.5)
    axis.set_xticks(range(len(names)), labels, fontsize=8)
    axis.tick_params(labelsize=7)
    axis.grid(axis="y", lw=0.3)
