"""Tables and figure of a study: one row per arm as Markdown, one per trial as CSV.

Arms are compared with their controls in pairs of the same fold and seed. The interval is a
bootstrap over folds and, within them, seeds; with few folds it is too narrow.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from napari_mcm.core.runtime.files import atomic_path, write_text
from napari_mcm.core.studies.study_config import StudyConfig

DRAWS = 4000


# Properties of a run that are not measures of quality: their differences mean nothing.
_FACTS = {
    "held_out_constant",
    "held_out_loss_best",
    "held_out_visible_mean",
    "held_out_windows",
    "seconds_per_window",
    "windows",
}


@dataclass(frozen=True)
class Row:
    """Metrics of one trial.

    Attributes
    ----------
    fold : str
        Name of the fold.
    seed : int
        Random seed.
    arm : str
        Name of the arm.
    figures : mapping of str to float
        Value by measure; NaN where it is missing.
    """

    fold: str
    seed: int
    arm: str
    figures: Mapping[str, float]

    @classmethod
    def of_summary(cls, summary: Mapping[str, Any]) -> Row:
        """Return the row of a trial's ``summary.json``.

        Parameters
        ----------
        summary : mapping
            Content of the file.

        Returns
        -------
        Row
            Measures, and the figures of the training.
        """
        training = summary["training"]
        figures = {k: _number(v) for k, v in summary["figures"].items()}
        for name, value in training.get("held_out", {}).items():
            figures[f"held_out_{name}"] = _number(value)
        if training:
            figures["windows"] = _number(training["windows"])
            figures["seconds_per_window"] = training["seconds"] / training["windows"]
        return cls(summary["fold"], summary["seed"], summary["arm"], figures)


@dataclass(frozen=True)
class Difference:
    """Difference of an arm to its control, over trials.

    Attributes
    ----------
    mean : float
        Mean over pairs of the same fold and seed.
    low, high : float
        95 % bootstrap interval over folds and, within them, seeds.
    pairs, above : int
        Number of pairs, and of those in which the arm's value is higher.
    """

    mean: float
    low: float
    high: float
    pairs: int
    above: int


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


def by_trial(
    rows: Sequence[Row], arm: str, figure: str
) -> dict[tuple[str, int], float]:
    """Return an arm's values of a measure, by fold and seed.

    Parameters
    ----------
    rows : sequence of Row
        Finished trials.
    arm : str
        Name of the arm.
    figure : str
        Name of the measure.

    Returns
    -------
    dict of tuple to float
        By fold and seed; only finite values.
    """
    return {
        (row.fold, row.seed): row.figures[figure]
        for row in rows
        if row.arm == arm and np.isfinite(row.figures.get(figure, float("nan")))
    }


def compare(
    rows: Sequence[Row], arm: str, control: str, figure: str
) -> Difference | None:
    """Compare an arm with its control, in pairs of the same fold and seed.

    A control without seeds is paired with all of them. The bootstrap resamples folds,
    then seeds within them; with few folds its interval is too narrow.

    Parameters
    ----------
    rows : sequence of Row
        Finished trials.
    arm, control : str
        Names of the two arms.
    figure : str
        Name of the measure.

    Returns
    -------
    Difference or None
        None where there is no pair.
    """
    ours, theirs = by_trial(rows, arm, figure), by_trial(rows, control, figure)
    fixed = {fold: value for (fold, _), value in theirs.items()}
    seeded = len(theirs) > len(fixed)
    by_fold: dict[str, list[float]] = {}
    for (fold, seed), value in ours.items():
        other = theirs.get((fold, seed)) if seeded else fixed.get(fold)
        if other is not None:
            by_fold.setdefault(fold, []).append(value - other)
    if not by_fold:
        return None
    folds = [np.asarray(values) for values in by_fold.values()]
    together = np.concatenate(folds)
    low, high = _interval(folds)
    above = int((together > 0).sum())
    return Difference(float(together.mean()), low, high, len(together), above)


def _interval(folds: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    if sum(map(len, folds)) < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(0)
    count = len(folds)
    # For each fold, means of resampled seeds: one for each draw and place in the draw.
    seeds = [rng.choice(v, (DRAWS, count, len(v))).mean(axis=2) for v in folds]
    drawn = rng.integers(0, count, (DRAWS, count))
    means = np.take_along_axis(np.stack(seeds), drawn[None], axis=0)[0].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def write_tables(
    out: Path, rows: Sequence[Row], config: StudyConfig
) -> tuple[Path, Path]:
    """Write ``study.md``, one row per arm, and ``study.csv``, one row per trial.

    Parameters
    ----------
    out : Path
        Directory of the study.
    rows : sequence of Row
        Finished trials.
    config : StudyConfig
        The study.

    Returns
    -------
    tuple of Path
        The Markdown file and the CSV file.
    """
    names = figure_names(rows, config)
    table, path = out / "study.md", out / "study.csv"
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["fold", "seed", "arm", *names])
    for row in rows:
        cells = [_cell(row.figures.get(name)) for name in names]
        writer.writerow([row.fold, row.seed, row.arm, *cells])
    write_text(path, text.getvalue())
    write_text(table, "\n".join(_page(rows, config, names)))
    return table, path


def _page(rows: Sequence[Row], config: StudyConfig, names: Sequence[str]) -> list[str]:
    lines = [
        "# Study",
        "",
        f"{len(rows)} trials of {len(config.arms)} arms. Each value is the mean over "
        "folds and seeds; in brackets the mean over folds of each seed.",
        "",
        *_arms_table(rows, config, names),
    ]
    if config.against:
        lines += [
            "",
            "## Against the controls",
            "",
            "Differences in pairs of the same fold and seed, with a 95 % bootstrap "
            "interval over folds and seeds, and the pairs in which the arm is higher. "
            "With few folds the interval is too narrow.",
            "",
            *_differences_table(rows, config, names),
        ]
    return [*lines, ""]


def _arms_table(
    rows: Sequence[Row], config: StudyConfig, names: Sequence[str]
) -> list[str]:
    lines = [f"| arm | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for arm in config.arms:
        cells = [_mean_and_seeds(by_trial(rows, arm, name)) for name in names]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return lines


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
    lines = [
        f"| arm − control | {' | '.join(names)} |",
        "|---" * (len(names) + 1) + "|",
    ]
    for arm, control in config.against.items():
        cells = [_difference(compare(rows, arm, control, name)) for name in names]
        lines.append(f"| {arm} − {control} | {' | '.join(cells)} |")
    return lines


def _difference(found: Difference | None) -> str:
    if found is None:
        return ""
    return (
        f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}], "
        f"{found.above}/{found.pairs}"
    )


def _cell(value: float | None) -> str:
    return "" if value is None or not np.isfinite(value) else f"{value:.4g}"


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


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
