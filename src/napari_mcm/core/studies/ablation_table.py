"""Tables and figures of an ablation: one row per trial as CSV, means and gains as Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from napari_mcm.core.cells.datasets import TRAIN, VALIDATION, CellSet
from napari_mcm.core.cells.metrics import UNRELIABLE
from napari_mcm.core.heatmaps.figures import BLUE, VERMILION, save_figure
from napari_mcm.core.heatmaps.panels import DPI, FONT, QUIET
from napari_mcm.core.runtime.files import write_text
from napari_mcm.core.studies.ablation_config import (
    AblationConfig,
    AblationTrial,
    arm_names,
)

FIGURES = {
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "balanced_accuracy": "balanced accuracy",
    "ece": "ECE",
    "nll": "NLL",
}

_BASE = "scratch"

_FEW = "\\*"


@dataclass(frozen=True)
class Row:
    """Metrics of a finished trial.

    Attributes
    ----------
    cell : AblationTrial
        The trial.
    images : int
        Number of training images.
    scores, majority : mapping of str to float
        Metrics on the test images, and those of the majority-class baseline.
    """

    cell: AblationTrial
    images: int
    scores: Mapping[str, float]
    majority: Mapping[str, float]


def make_row(cell: AblationTrial, summary: Mapping[str, Any]) -> Row:
    """Return the row of a finished trial.

    Parameters
    ----------
    cell : AblationTrial
        The trial.
    summary : mapping
        Its ``summary.json``.

    Returns
    -------
    Row
        Its metrics.
    """
    scores = summary["scores"]
    return Row(cell, summary["images"], scores["scores"], scores["majority"])


def write_tables(
    out: Path, config: AblationConfig, rows: Sequence[Row], images: CellSet
) -> tuple[Path, Path]:
    """Write ``ablation.md`` and ``ablation.csv``.

    Parameters
    ----------
    out : Path
        Directory of the ablation.
    config : AblationConfig
        Its options.
    rows : sequence of Row
        Finished trials.
    images : CellSet
        All images.

    Returns
    -------
    tuple of Path
        The Markdown file and the CSV file.
    """
    write_text(out / "ablation.csv", _csv(rows))
    write_text(out / "ablation.md", ablation_page(config, rows, images))
    return out / "ablation.md", out / "ablation.csv"


def ablation_page(config: AblationConfig, rows: Sequence[Row], images: CellSet) -> str:
    """Return an ablation as Markdown: set-up, metrics, gains, unreliable classes.

    Parameters
    ----------
    config : AblationConfig
        Options of the ablation.
    rows : sequence of Row
        Finished trials.
    images : CellSet
        All images.

    Returns
    -------
    str
        The page.
    """
    parts = [_about(config, images), _table(config, rows), _gains(config, rows)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _csv(rows: Sequence[Row]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["arm", "percent", "images", "seed", *FIGURES])
    for row in rows:
        about = [row.cell.arm, f"{row.cell.percent:g}", row.images, row.cell.seed]
        writer.writerow([*about, *(f"{row.scores[name]:.6f}" for name in FIGURES)])
    return text.getvalue()


def _about(config: AblationConfig, images: CellSet) -> str:
    fit, test = config.fit, images.only(VALIDATION)
    training = images.only(TRAIN)
    few = [n for n, count in test.support.items() if count < UNRELIABLE]
    support = ", ".join(
        f"{name}{_FEW if name in few else ''} {training.support[name]}/{count}"
        for name, count in test.support.items()
    )
    lines = [
        "# Label-fraction ablation",
        "",
        f"{len(training)} images to train on, {len(test)} to test on "
        f"({support}; training/test). Each trial: {fit.steps} steps of "
        f"{fit.batch_size} images, {fit.learn}, {config.seeds} seed(s); mean ± standard "
        "deviation over seeds (subset, order and random weights). Precision, recall and "
        "F1 are macro averages over classes with test images.",
    ]
    if few:
        lines += [
            "",
            f"\\* fewer than {UNRELIABLE} test images: scores are unreliable.",
        ]
    return "\n".join(lines)


def _table(config: AblationConfig, rows: Sequence[Row]) -> str:
    lines = [
        f"| data | images | start | {' | '.join(FIGURES.values())} |",
        f"|---|---|---|{'---|' * len(FIGURES)}",
    ]
    names = arm_names(config.arms)
    for percent in config.percent:
        for arm in config.arms:
            own = _of(rows, arm, percent)
            if own:
                cells = [_spread([r.scores[name] for r in own]) for name in FIGURES]
                count = f"{np.mean([r.images for r in own]):.0f}"
                lines.append(
                    f"| {percent:g} % | {count} | {names[arm]} | {' | '.join(cells)} |"
                )
    if rows:
        vote = rows[0].majority
        cells = [f"{vote[n]:.4f}" if n in vote else "-" for n in FIGURES]
        lines.append(f"| - | - | majority vote | {' | '.join(cells)} |")
    return "\n".join(lines)


def _gains(config: AblationConfig, rows: Sequence[Row]) -> str:
    others = [arm for arm in config.arms if arm != _BASE]
    if _BASE not in config.arms or not others:
        return ""
    names = [name for name in FIGURES if name not in ("ece", "nll")]
    called = arm_names(config.arms)
    lines = [
        "Gain over scratch, paired by seed:",
        "",
        f"| data | start | {' | '.join(FIGURES[name] for name in names)} |",
        f"|---|---|{'---|' * len(names)}",
    ]
    for percent in config.percent:
        base = {row.cell.seed: row for row in _of(rows, _BASE, percent)}
        for arm in others:
            pairs = [
                (row, base[row.cell.seed])
                for row in _of(rows, arm, percent)
                if row.cell.seed in base
            ]
            if pairs:
                cells = [
                    _spread([a.scores[n] - b.scores[n] for a, b in pairs], sign="+")
                    for n in names
                ]
                lines.append(f"| {percent:g} % | {called[arm]} | {' | '.join(cells)} |")
    return "\n".join(lines) if len(lines) > 4 else ""


def _of(rows: Sequence[Row], arm: str, percent: float) -> list[Row]:
    return [r for r in rows if r.cell.arm == arm and r.cell.percent == percent]


def _spread(values: Sequence[float], sign: str = "") -> str:
    mean = f"{np.mean(values):{sign}.4f}"
    if len(values) < 2:
        return mean
    return f"{mean} ± {np.std(values, ddof=1):.4f}"


_SMALL = {**FONT, "size": 7.0}

_SHOWN = ("accuracy", "balanced_accuracy", "f1", "ece")

# Okabe and Ito's palette.
_COLOURS = ("#595959", BLUE, VERMILION, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


Answers = dict[str, tuple[list[float], list[float]]]
"""By class: confidences of right and of wrong predictions."""


def draw_curves(rows: Sequence[Row], arms: Sequence[str], path: Path) -> Path:
    """Draw metrics against the number of training images: means, spreads, each seed.

    Parameters
    ----------
    rows : sequence of Row
        Finished trials, at least one.
    arms : sequence of str
        The arms, in order.
    path : Path
        File to write.

    Returns
    -------
    Path
        The file.
    """
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
    """Draw box plots of confidence by true class, for right and for wrong predictions.

    Rows are fractions of the data, columns are arms; all seeds together.

    Parameters
    ----------
    out : Path
        Directory of the ablation.
    rows : sequence of Row
        Finished trials.
    config : AblationConfig
        Options of the ablation.
    classes : sequence of str
        Names of the classes.
    path : Path
        File to write.

    Returns
    -------
    Path
        The file.
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
