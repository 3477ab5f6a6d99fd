"""What the trials of the studies took, and what their encoders cost."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.results.context_folders import Study
from benchmarks.results.tables import markdown

from napari_mcm.core.studies.study_config import arm_config

OPTIONS = {
    "context": ("context_mode", "mask_ratio", "s"),
    "target": ("loss",),
    "optimiser": ("student_lr", "placements", "epochs", "aligned", "head_epochs"),
}
"""Options in which arms may differ, and what a window is."""
SECONDS = ("training_seconds", "evaluation_seconds", "clicks_seconds")


def options_table(studies: Mapping[str, Study]) -> str:
    """Write the options of each fine-tuned arm, as the studies' folders have them."""
    rows = []
    for name, study in studies.items():
        for arm, content in study.config.arms.items():
            if content.encoder is None:
                options = arm_config(study.config, arm, 0, (), None)
                told = [
                    getattr(getattr(options, group), option)
                    for group, names in OPTIONS.items()
                    for option in names
                ]
                rows.append([f"`{name}`", arm, *map(str, told)])
    if not rows:
        return "No study is run yet."
    return markdown(
        ["study", "arm", *(o for names in OPTIONS.values() for o in names)], rows
    )


def cost_table(studies: Mapping[str, Study]) -> str:
    """Write mean seconds per trial, and parameters and multiply-adds of each encoder."""
    rows = []
    for name, study in studies.items():
        for arm in study.config.arms:
            if not study.finished[arm]:
                continue
            spent = [study.mean(part, arm) for part in SECONDS]
            rows.append(
                [
                    f"`{name}`",
                    arm,
                    f"{study.finished[arm]} of {study.planned[arm]}",
                    _number(study.mean("windows", arm)),
                    *(_number(value) for value in spent),
                    _number(study.mean("parameters", arm), 1e6, 2),
                    _number(study.mean("multiply_adds", arm), 1e9, 3),
                ]
            )
    if not rows:
        return ""
    header = [
        "study", "arm", "trials", "windows", "training, s", "evaluation, s",
        "click test, s", "parameters, M", "multiply-adds per patch, G",
    ]  # fmt: skip
    return f"{markdown(header, rows)}\n\n{_hours(studies)}"


def _number(value: float | None, unit: float = 1, digits: int = 0) -> str:
    return "" if not value else f"{value / unit:.{digits}f}"


def _hours(studies: Mapping[str, Study]) -> str:
    """Say how long the finished trials of each study took, one after the other."""
    told = []
    for name, study in studies.items():
        trials = {(row.fold, row.seed, row.arm): row.figures for row in study.rows}
        spent = sum(f.get(part, 0.0) for f in trials.values() for part in SECONDS)
        told.append(f"`{name}` {spent / 3600:.2f}")
    return f"Hours of all finished trials, on one core each: {', '.join(told)}."
