"""Train a classifier of slides on patch features, and test it on folds of patients.

The table names slides and labels, and optionally patients (`patient`, `case_id`) and a
`split` or `fold`. --resume DIR resumes an interrupted run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_mcm.cli.drive import drive
from napari_mcm.cli.output import Outcome, table
from napari_mcm.cli.resuming import RESUME, run_to_resume
from napari_mcm.core.mil.config import MilConfig
from napari_mcm.core.runtime.jobs import format_seconds

if TYPE_CHECKING:
    from napari_mcm.core.mil.results import MilResult


class MilTrainOptions(MilConfig):
    """A new training, or one to resume."""

    resume: Path | None = RESUME


OPTIONS, POSITIONAL = MilTrainOptions, "cohort"


def run(options: MilTrainOptions) -> Outcome:
    """Train a classifier, or resume a run."""
    from napari_mcm.core.mil.train import resume_train, train

    resume = run_to_resume(options)
    if resume is None:
        config = MilConfig(**options.model_dump(exclude={"resume"}))
        return _outcome(drive(train(config), _resume_hint(config.out)))
    return _outcome(drive(resume_train(resume), _resume_hint(resume)))


def _resume_hint(run_dir: Path | None) -> str:
    return f"resume with napari-mcm mil train --resume {run_dir}"


def _outcome(done: MilResult) -> Outcome:
    from napari_mcm.core.mil.bags import covered
    from napari_mcm.core.mil.results import figures_table

    result = {
        "run_dir": done.run_dir,
        "seconds": done.seconds,
        "neighbourhood": done.neighbourhood.model_dump(),
        **done.figures,
    }
    rows = [
        ("run", str(done.run_dir)),
        ("slides", str(done.figures["pooled"]["slides"])),
        ("covers", covered(done.neighbourhood)),
        ("time", format_seconds(done.seconds)),
    ]
    return Outcome(result, [*table(rows), "", *figures_table(done.figures)])
