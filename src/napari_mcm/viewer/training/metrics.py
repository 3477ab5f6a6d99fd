"""What lies in a run folder of `finetune`, read without PyTorch."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path

Series = dict[str, list[float]]
"""Figures of each step by name, with the step itself; NaN where not measured."""


def read_series(folder: Path) -> Series:
    """Read what each step of a run has measured, finished or not."""
    try:
        with (folder / "metrics.csv").open(newline="", encoding="utf-8") as opened:
            header, *rows = list(csv.reader(opened)) or [[]]
    except OSError:
        return {}
    # The last line of a run that was killed may be cut off.
    whole = [row for row in rows if len(row) == len(header)]
    return {name: [_float(row[i]) for row in whole] for i, name in enumerate(header)}


def add_step(series: Series, step: int, values: Mapping[str, float]) -> None:
    """Add what a step has measured; a step that comes again replaces the first one.

    Parameters
    ----------
    series : dict
        Is changed; its lists are as long as each other.
    step : int
        Counted from 0.
    values : mapping
        Figures by name.
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
