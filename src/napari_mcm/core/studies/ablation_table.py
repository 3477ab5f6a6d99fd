"""Tables of an ablation: a row a cell for programs, means and gains for people."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_mcm.core.files import write_text
from napari_mcm.core.mae.classifier.cells import TRAIN, VALIDATION, CellSet
from napari_mcm.core.mae.classifier.scores import UNRELIABLE
from napari_mcm.core.studies.ablation_config import (
    AblationCell,
    AblationConfig,
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
    """A cell that is done.

    Attributes
    ----------
    cell : AblationCell
    images : int
        Trained on.
    scores, majority : mapping of str to float
        Of the test images; and of calling all of them the commonest class.
    """

    cell: AblationCell
    images: int
    scores: Mapping[str, float]
    majority: Mapping[str, float]


def make_row(cell: AblationCell, summary: Mapping[str, Any]) -> Row:
    """Make a row of a finished cell's summary."""
    scores = summary["scores"]
    return Row(cell, summary["images"], scores["scores"], scores["majority"])


def write_tables(
    out: Path, config: AblationConfig, rows: Sequence[Row], images: CellSet
) -> tuple[Path, Path]:
    """Write ``ablation.md`` and ``ablation.csv``; gives both paths."""
    write_text(out / "ablation.csv", _csv(rows))
    write_text(out / "ablation.md", ablation_page(config, rows, images))
    return out / "ablation.md", out / "ablation.csv"


def ablation_page(config: AblationConfig, rows: Sequence[Row], images: CellSet) -> str:
    """Write an ablation as Markdown: set-up, table, gains, and what is unreliable."""
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
        "# What more labelled data buys",
        "",
        f"{len(training)} images to train on, {len(test)} to test on "
        f"({support}; training/test). Each cell: {fit.steps} steps of "
        f"{fit.batch_size} images, {fit.learn}, {config.seeds} seed(s); mean ± standard "
        "deviation over seeds (subset, order and random weights). Precision, recall and "
        "F1 are macro averages over classes that the test has.",
    ]
    if few:
        lines += ["", f"\\* under {UNRELIABLE} test images: its scores say nothing."]
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
