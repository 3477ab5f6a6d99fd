"""Read the metrics of a run folder, without PyTorch, which is slow to import."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path

Series = dict[str, list[float]]
"""Metrics of each step by name, with the step itself; NaN where not measured."""

Curves = dict[tuple[int, int], Series]
"""Series by fold and seed; a training without folds has the one at `WHOLE`."""

WHOLE = (0, 0)


def read_series(folder: Path) -> Series:
    """Read the metrics of a run, finished or not; empty where there are none."""
    try:
        with (folder / "metrics.csv").open(newline="", encoding="utf-8") as opened:
            header, *rows = list(csv.reader(opened)) or [[]]
    except OSError:
        return {}
    # The last line of a run that was killed may be incomplete.
    whole = [row for row in rows if len(row) == len(header)]
    return {name: [_float(row[i]) for row in whole] for i, name in enumerate(header)}


def read_curves(folder: Path) -> Curves:
    """Read the curves of a run without folds, finished or not."""
    series = read_series(folder)
    return {WHOLE: series} if series else {}


def add_step(series: Series, step: int, values: Mapping[str, float]) -> None:
    """Add the metrics of a step, in place of those from this step on.

    A step is measured again where a run was interrupted between two checkpoints.

    Parameters
    ----------
    series : dict
        Is changed; its lists have the same length.
    step : int
        Counted from 0.
    values : mapping
        Metrics by name.
    """
    steps = series.setdefault("step", [])
    while steps and steps[-1] >= step:
        for figures in series.values():
            figures.pop()
    for name in {*values, *series} - {"step"}:
        figures = series.setdefault(name, [math.nan] * len(steps))
        figures.append(float(values.get(name, math.nan)))
    steps.append(float(step))


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
