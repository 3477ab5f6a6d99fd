"""Train a classifier of cells or patches.

DATA is a folder of classes, a folder of splits of classes (Raabin-WBC, the course's
layout), BCCD's frames with boxes, or a table with the columns path and label, and
optionally split and group. --init chooses what the classifier starts from. --resume DIR
resumes an interrupted run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_mcm.cli.drive import drive
from napari_mcm.cli.output import Outcome, table
from napari_mcm.cli.resuming import RESUME, run_to_resume
from napari_mcm.core.cells.config import ClassifyConfig
from napari_mcm.core.runtime.jobs import format_seconds

if TYPE_CHECKING:
    from napari_mcm.core.cells.training import ClassifyResult


class ClassifyOptions(ClassifyConfig):
    """A new training, or one to resume."""

    resume: Path | None = RESUME


OPTIONS, POSITIONAL = ClassifyOptions, "data"


def run(options: ClassifyOptions) -> Outcome:
    """Train a classifier, or resume a run."""
    from napari_mcm.core.cells.training import classify, resume_classify

    resume = run_to_resume(options)
    if resume is None:
        values = options.model_dump(exclude={"resume"})
        config = ClassifyConfig.model_validate(values)
        return _outcome(drive(classify(config), _resume_hint(config.out)))
    return _outcome(drive(resume_classify(resume), _resume_hint(resume)))


def _resume_hint(run_dir: Path | None) -> str:
    return f"resume with napari-mcm classify train --resume {run_dir}"


def _outcome(done: ClassifyResult) -> Outcome:
    result = {
        "run_dir": done.run_dir,
        "classes": done.classes,
        "images": done.images,
        "loss_first": done.loss_first,
        "loss_last": done.loss_last,
        "validation": done.scores,
        "steps": done.steps,
        "seconds": done.seconds,
    }
    rows = [
        ("run", str(done.run_dir)),
        ("classes", ", ".join(done.classes)),
        ("trained", f"{done.images:,} images in {done.steps:,} steps"),
        ("loss", f"{done.loss_first:.4f} -> {done.loss_last:.4f}"),
        ("time", format_seconds(done.seconds)),
    ]
    lines = table(rows)
    if done.scores:
        majority = done.scores["majority"]
        lines += ["", f"{'validation':<18} score   majority vote"]
        lines += [
            f"{name:<18} {value:.4f}"
            + (f"  {majority[name]:.4f}" if name in majority else "")
            for name, value in done.scores["scores"].items()
        ]
        few = ", ".join(done.scores["unreliable"])
        lines += [f"under 10 images, unreliable: {few}"] if few else []
    return Outcome(result, lines)
