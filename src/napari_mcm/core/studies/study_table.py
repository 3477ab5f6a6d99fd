"""Tables and figure of a study: one row per arm as Markdown, one per trial as CSV.

Measures that were chosen before the runs come first; all others are exploratory. Each is
shown at every context radius, and compared between arms and between radii in pairs of the
same fold and seed, see :mod:`~napari_mcm.core.studies.study_differences`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from napari_mcm.core.runtime.files import atomic_path, write_text
from napari_mcm.core.studies.study_config import StudyConfig
from napari_mcm.core.studies.study_differences import (
    Difference,
    Row,
    by_trial,
    compare,
)

# Properties of a run that are not measures of quality: their differences mean nothing.
_FACTS = {
    "held_out_constant",
    "held_out_loss_best",
    "held_out_visible_mean",
    "held_out_windows",
    "seconds_per_window",
    "windows",
    "parameters",
    "multiply_adds",
    "training_seconds",
    "evaluation_seconds",
    "clicks_seconds",
    "click_chance_1",
    "click_chance_10",
}


def figure_names(rows: Sequence[Row], config: StudyConfig) -> list[str]:
    """Return the names of all measures, the primary ones first.

    Parameters
    ----------
    rows : sequence of Row
        Finished trials.
    config : StudyConfig
        Its primary measures.

    Returns
    -------
    list of str
        Each name once.
    """
    found = dict.fromkeys(name for row in rows for name in row.figures)
    first = [name for name in config.primary if name in found]
    return [*first, *(name for name in found if name not in first)]


def write_tables(
    out: Path,
    rows: Sequence[Row],
    config: StudyConfig,
    more: Sequence[str] = (),
) -> tuple[Path, Path]:
    """Write ``study.md``, one row per arm and radius, and ``study.csv``, one per trial.

    Parameters
    ----------
    out : Path
        Directory of the study.
    rows : sequence of Row
        Finished trials.
    config : StudyConfig
        The study.
    more : sequence of str, optional
        Lines to add at the end of the Markdown page.

    Returns
    -------
    tuple of Path
        The Markdown file and the CSV file.
    """
    names = figure_names(rows, config)
    table, path = out / "study.md", out / "study.csv"
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["fold", "seed", "arm", "radius", *names])
    for row in rows:
        cells = [_cell(row.figures.get(name)) for name in names]
        writer.writerow([row.fold, row.seed, row.arm, row.radius, *cells])
    write_text(path, text.getvalue())
    write_text(table, "\n".join([*_page(rows, config, names), *more, ""]))
    return table, path


def _page(rows: Sequence[Row], config: StudyConfig, names: Sequence[str]) -> list[str]:
    trials = {(row.fold, row.seed, row.arm) for row in rows}
    lines = [
        "# Study",
        "",
        f"{len(trials)} trials of {len(config.arms)} arms. Each value is the mean over "
        "folds and seeds; in brackets the mean over folds of each seed. Radius is the "
        "context at inference, in patch widths.",
    ]
    primary = [name for name in names if name in config.primary]
    others = [name for name in names if name not in config.primary]
    if primary:
        lines += _section("Registered measures", rows, config, primary)
    if others:
        title = "Exploratory measures" if primary else "Measures"
        lines += _section(title, rows, config, others)
    return lines


def _section(
    title: str, rows: Sequence[Row], config: StudyConfig, names: Sequence[str]
) -> list[str]:
    """Write a group of measures: by arm, against controls, and between radii."""
    lines = ["", f"## {title}", "", *_arms_table(rows, config, names)]
    compared = [name for name in names if name not in _FACTS]
    if not compared:
        return lines
    if config.against:
        lines += [
            "",
            "### Against the controls",
            "",
            "Differences in pairs of the same fold and seed, with a 95 % t interval over "
            "folds (over seeds, where there is one fold), and the pairs in which the arm "
            "is higher.",
            "",
            *_differences_table(rows, config, compared),
        ]
    if len(config.radii) > 1:
        lines += [
            "",
            "### Context at inference",
            "",
            "The same between the radii of one arm.",
            "",
            *_radii_table(rows, config, compared),
        ]
    return lines


def _table(
    first: Sequence[str], names: Sequence[str], body: Sequence[Sequence[str]]
) -> list[str]:
    header = [*first, *names]
    lines = [header, ["---"] * len(header), *body]
    return [f"| {' | '.join(line)} |" for line in lines]


def _arms_table(
    rows: Sequence[Row], config: StudyConfig, names: Sequence[str]
) -> list[str]:
    body = [
        [
            arm,
            str(radius),
            *(_mean_and_seeds(by_trial(rows, arm, name, radius)) for name in names),
        ]
        for arm in config.arms
        for radius in config.radii
    ]
    return _table(["arm", "radius"], names, body)


def _mean_and_seeds(values: Mapping[tuple[str, int], float]) -> str:
    if not values:
        return ""
    seeds = sorted({seed for _, seed in values})
    means = [np.mean([v for (_, s), v in values.items() if s == one]) for one in seeds]
    mean = _cell(float(np.mean(list(values.values()))))
    if len(seeds) == 1:
        return mean
    return f"{mean} ({', '.join(_cell(float(value)) for value in means)})"


def _differences_table(
    rows: Sequence[Row], config: StudyConfig, names: Sequence[str]
) -> list[str]:
    body = [
        [
            f"{arm} − {control}",
            str(radius),
            *(_difference(compare(rows, arm, control, n, radius)) for n in names),
        ]
        for arm, controls in config.controls.items()
        for control in controls
        for radius in config.radii
    ]
    return _table(["arm − control", "radius"], names, body)


def _radii_table(
    rows: Sequence[Row], config: StudyConfig, names: Sequence[str]
) -> list[str]:
    first, *others = sorted(config.radii)
    body = [
        [
            arm,
            f"{radius} − {first}",
            *(_difference(compare(rows, arm, arm, n, radius, first)) for n in names),
        ]
        for arm in config.arms
        for radius in others
    ]
    return _table(["arm", "radii"], names, body)


def _difference(found: Difference | None) -> str:
    if found is None:
        return ""
    text = f"{found.mean:+.3f}"
    # A single fold and seed has no interval.
    if np.isfinite(found.low):
        text += f" [{found.low:+.3f}, {found.high:+.3f}]"
    return f"{text}, {found.above}/{found.pairs}"


def _cell(value: float | None) -> str:
    return "" if value is None or not np.isfinite(value) else f"{value:.4g}"


PANELS = 6

_MARKERS = "osD^vP*X"


def draw_study(path: Path, rows: Sequence[Row], config: StudyConfig) -> Path | None:
    """Draw each arm's trials: the colour is the fold, the bar is the mean.

    Parameters
    ----------
    path : Path
        File to write.
    rows : sequence of Row
        Finished trials.
    config : StudyConfig
        The study.

    Returns
    -------
    Path or None
        The file; None where there is nothing to draw.
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
        values = by_trial(rows, arm, name)
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
