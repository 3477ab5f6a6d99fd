"""Figures of an ablation: learning curves, and how sure right and wrong answers are."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from napari_mcm.core.heatmaps.figures import BLUE, VERMILION, save_figure
from napari_mcm.core.heatmaps.panels import DPI, FONT, QUIET
from napari_mcm.core.studies.ablation_config import AblationConfig, arm_names
from napari_mcm.core.studies.ablation_table import FIGURES, Row

_SMALL = {**FONT, "size": 7.0}
_SHOWN = ("accuracy", "balanced_accuracy", "f1", "ece")
# Okabe and Ito's palette.
_COLOURS = ("#595959", BLUE, VERMILION, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

Answers = dict[str, tuple[list[float], list[float]]]
"""By class: confidences of right and of wrong answers."""


def draw_curves(rows: Sequence[Row], arms: Sequence[str], path: Path) -> Path:
    """Draw scores against training images: means, spreads over seeds, each seed."""
    figure = Figure(figsize=(3.2 * len(_SHOWN), 3.0), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    called = arm_names(arms)
    for ax, name in zip(figure.subplots(1, len(_SHOWN)), _SHOWN, strict=True):
        for number, arm in enumerate(arms):
            own = [r for r in rows if r.cell.arm == arm]
            _draw_arm(ax, own, name, number, _short(called[arm]))
        vote = rows[0].majority.get(name)
        if vote is not None:
            ax.axhline(vote, color=QUIET, linestyle=":", linewidth=1)
        ax.set_xscale("log")
        ticks = sorted({row.images for row in rows})
        ax.set_xticks(ticks, [str(tick) for tick in ticks])
        ax.set_xticks([], minor=True)
        ax.set_xlabel("training images", **_SMALL)
        ax.set_title(FIGURES[name], **FONT)
        ax.tick_params(labelsize=7)
        ax.spines[["top", "right"]].set_visible(False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=7)
    return save_figure(figure, path)


def _draw_arm(
    ax: Axes, rows: Sequence[Row], name: str, number: int, label: str
) -> None:
    if not rows:
        return
    colour = _COLOURS[number % len(_COLOURS)]
    parts = sorted({row.cell.percent for row in rows})
    groups = [[row for row in rows if row.cell.percent == part] for part in parts]
    x = [float(np.mean([row.images for row in group])) for group in groups]
    values = [np.array([row.scores[name] for row in group]) for group in groups]
    means = [float(v.mean()) for v in values]
    spread = [float(v.std(ddof=1)) if len(v) > 1 else 0.0 for v in values]
    ax.errorbar(x, means, spread, color=colour, marker="o", ms=3, lw=1.2, label=label)
    for place, v in zip(x, values, strict=True):
        ax.plot([place] * len(v), v, ".", color=colour, alpha=0.35, ms=3)


def draw_confidence(
    out: Path,
    rows: Sequence[Row],
    config: AblationConfig,
    classes: Sequence[str],
    path: Path,
) -> Path:
    """Draw box plots of confidence by true class, for right and for wrong answers.

    Rows are parts of the data, columns are arms; all seeds together.
    """
    shape = (len(config.percent), len(config.arms))
    size = (max(2.2, 0.55 * len(classes)) * shape[1] + 0.6, 1.9 * shape[0] + 0.8)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(*shape, squeeze=False, sharey=True)
    for (row, column), ax in np.ndenumerate(axes):
        percent, arm = config.percent[row], config.arms[column]
        own = [r for r in rows if (r.cell.arm, r.cell.percent) == (arm, percent)]
        _draw_boxes(ax, _answers(out, own, classes))
        if row == 0:
            ax.set_title(_short(arm_names(config.arms)[arm]), **_SMALL)
        if column == 0:
            ax.set_ylabel(f"{percent:g} %: confidence", **_SMALL)
    key = [Patch(color=BLUE, label="right"), Patch(color=VERMILION, label="wrong")]
    figure.legend(handles=key, loc="outside lower center", ncols=2, fontsize=7)
    return save_figure(figure, path)


def _answers(out: Path, rows: Sequence[Row], classes: Sequence[str]) -> Answers:
    found: Answers = {name: ([], []) for name in classes}
    for row in rows:
        file = out / row.cell.folder / "validation" / "predictions.csv"
        with file.open(newline="", encoding="utf-8") as opened:
            for line in csv.DictReader(opened):
                wrong = line["predicted"] != line["label"]
                found[line["label"]][wrong].append(float(line["confidence"]))
    return found


def _draw_boxes(
    ax: Axes, answers: Mapping[str, tuple[list[float], list[float]]]
) -> None:
    for number, pair in enumerate(answers.values()):
        for side, values in enumerate(pair):
            if not values:
                continue
            colour = (BLUE, VERMILION)[side]
            ax.boxplot(
                [values],
                positions=[number + (side - 0.5) * 0.36],
                widths=0.3,
                patch_artist=True,
                boxprops={"facecolor": colour, "alpha": 0.55, "linewidth": 0.6},
                medianprops={"color": "black", "linewidth": 0.9},
                whiskerprops={"linewidth": 0.6},
                capprops={"linewidth": 0.6},
                flierprops={"marker": ".", "markersize": 2},
            )
    counts = [len(right) + len(wrong) for right, wrong in answers.values()]
    names = [f"{name}\n{n}" for name, n in zip(answers, counts, strict=True)]
    ax.set_xticks(range(len(names)), names, rotation=40, ha="right", size=5)
    ax.set_xlim(-0.6, len(names) - 0.4)
    ax.set_ylim(0, 1.02)
    ax.tick_params(labelsize=6)
    ax.spines[["top", "right"]].set_visible(False)


def _short(arm: str) -> str:
    return arm if len(arm) <= 32 else f"{arm[:6]}…{arm[-24:]}"
