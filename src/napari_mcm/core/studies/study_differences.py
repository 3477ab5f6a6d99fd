"""Figures of a study's trials, and paired differences with their intervals.

The difference of an arm to its control is taken in pairs of the same fold and seed. Let
d_f be its mean over the seeds of fold f. With k folds, their mean d and standard
deviation s, the 95 % interval is Student's::

    d ± t(0.975, k - 1) · s / √k

With one fold the seeds take the place of the folds. Folds share training slides, so even
this interval is somewhat narrow (Nadeau and Bengio, "Inference for the generalization
error", Machine Learning 52, 2003).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

Unit = Literal["folds", "seeds"]


@dataclass(frozen=True)
class Row:
    """Metrics of one trial at one context radius.

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
    radius : int
        Context radius of the features, in patch widths.
    """

    fold: str
    seed: int
    arm: str
    figures: Mapping[str, float]
    radius: int = 0

    @classmethod
    def of_summary(cls, summary: Mapping[str, Any]) -> Row:
        """Return the row of a trial's ``summary.json`` at its first radius.

        Parameters
        ----------
        summary : mapping
            Content of the file.

        Returns
        -------
        Row
            Measures, and the figures of the training.
        """
        return rows_of(summary)[0]


def rows_of(summary: Mapping[str, Any]) -> list[Row]:
    """Return the rows of a trial's ``summary.json``, one per radius.

    Parameters
    ----------
    summary : mapping
        Content of the file. Files of versions that knew no radius have one row.

    Returns
    -------
    list of Row
        Measures, and the figures of the training, which are the same at all radii.
    """
    training = summary["training"]
    shared: dict[str, float] = {}
    for name, value in training.get("held_out", {}).items():
        shared[f"held_out_{name}"] = _number(value)
    if training:
        shared["windows"] = _number(training["windows"])
        shared["seconds_per_window"] = training["seconds"] / training["windows"]
    for name, value in summary.get("cost", {}).items():
        shared[name] = _number(value)
    for name, value in summary.get("seconds", {}).items():
        shared[f"{name}_seconds"] = _number(value)
    by_radius = summary.get("by_radius") or {"0": summary["figures"]}
    rows = []
    for radius, found in by_radius.items():
        figures = {name: _number(value) for name, value in found.items()} | shared
        trial = summary["fold"], summary["seed"], summary["arm"]
        rows.append(Row(*trial, figures, int(radius)))
    return rows


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


@dataclass(frozen=True)
class Difference:
    """Difference of an arm to its control, over trials.

    Attributes
    ----------
    mean : float
        Mean over folds of the mean over seeds.
    low, high : float
        95 % t interval; NaN where there are fewer than two folds and seeds.
    pairs, above : int
        Number of pairs, and of those in which the arm's value is higher.
    over : {"folds", "seeds"}
        What the interval is over: seeds, where there is one fold only.
    units : int
        Number of folds (or seeds).
    """

    mean: float
    low: float
    high: float
    pairs: int
    above: int
    over: Unit = "folds"
    units: int = 0


def by_trial(
    rows: Sequence[Row], arm: str, figure: str, radius: int | None = None
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
    radius : int, optional
        Context radius; by default the smallest one.

    Returns
    -------
    dict of tuple to float
        By fold and seed; only finite values.
    """
    if radius is None:
        radius = min((row.radius for row in rows), default=0)
    return {
        (row.fold, row.seed): row.figures[figure]
        for row in rows
        if (row.arm, row.radius) == (arm, radius)
        and np.isfinite(row.figures.get(figure, float("nan")))
    }


def compare(
    rows: Sequence[Row],
    arm: str,
    control: str,
    figure: str,
    radius: int | None = None,
    control_radius: int | None = None,
) -> Difference | None:
    """Compare an arm with its control, in pairs of the same fold and seed.

    A control without seeds is paired with all of them.

    Parameters
    ----------
    rows : sequence of Row
        Finished trials.
    arm, control : str
        Names of the two arms; the same one to compare two radii.
    figure : str
        Name of the measure.
    radius, control_radius : int, optional
        Context radius of the arm, by default the smallest one, and of the control, by
        default the arm's.

    Returns
    -------
    Difference or None
        None where there is no pair.
    """
    other_radius = radius if control_radius is None else control_radius
    ours = by_trial(rows, arm, figure, radius)
    theirs = by_trial(rows, control, figure, other_radius)
    fixed = {fold: value for (fold, _), value in theirs.items()}
    seeded = len(theirs) > len(fixed)
    by_fold: dict[str, list[float]] = {}
    for (fold, seed), value in ours.items():
        other = theirs.get((fold, seed)) if seeded else fixed.get(fold)
        if other is not None:
            by_fold.setdefault(fold, []).append(value - other)
    if not by_fold:
        return None
    means = [float(np.mean(values)) for values in by_fold.values()]
    pairs = [value for values in by_fold.values() for value in values]
    over: Unit = "folds" if len(means) > 1 else "seeds"
    units = means if over == "folds" else pairs
    low, high = t_interval(units)
    above = sum(value > 0 for value in pairs)
    return Difference(
        float(np.mean(means)), low, high, len(pairs), above, over, len(units)
    )


def t_interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Return Student's interval of a mean.

    Parameters
    ----------
    values : array_like of float, shape (K,)
        Independent values, such as fold means.
    level : float, optional
        Coverage.

    Returns
    -------
    tuple of float
        Lower and upper end; NaN for fewer than two values.
    """
    from scipy.stats import t

    found = np.asarray(values, np.float64)
    if len(found) < 2:
        return float("nan"), float("nan")
    half = t.ppf((1 + level) / 2, len(found) - 1) * found.std(ddof=1)
    half /= np.sqrt(len(found))
    mean = found.mean()
    return float(mean - half), float(mean + half)
