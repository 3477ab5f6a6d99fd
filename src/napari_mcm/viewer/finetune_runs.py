"""What lies in a run folder of `finetune`, read without PyTorch."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_mcm.viewer.run_folders import RunState, read_config, run_state

Series = dict[str, list[float]]
"""Figures of each step by name, with the step itself; NaN where not measured."""

_KEYS = {"student", "teacher", "context"}


@dataclass(frozen=True)
class FinetuneRun:
    """A finished fine-tuning.

    Attributes
    ----------
    path : Path
        Its folder, which names the fine-tuned encoder, too.
    student : str
        What it began with.
    summary : mapping
        How it ended.
    """

    path: Path
    student: str
    summary: Mapping[str, Any]

    def describe(self) -> str:
        """Say in a line what came of it."""
        first, last = self.summary.get("loss_first"), self.summary.get("loss_last")
        windows = self.summary.get("windows", 0)
        text = f"{windows:,} windows learned from"
        if isinstance(first, float) and isinstance(last, float):
            text += f", loss {first:.3f} → {last:.3f}"
        return text


def state_of(folder: Path) -> RunState:
    """Tell whether a folder is free for a run, or what it holds."""
    return run_state(folder, _KEYS, _done)


def read_run(folder: Path) -> FinetuneRun | None:
    """Read a finished run; None where there is none."""
    if state_of(folder).kind != "finished":
        return None
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    student = str(read_config(folder).get("student", ""))
    return FinetuneRun(folder, student, summary if isinstance(summary, dict) else {})


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


def _done(folder: Path) -> str:
    steps = read_series(folder).get("step", [])
    return f"{round(steps[-1]) + 1:,} steps done" if steps else ""


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
