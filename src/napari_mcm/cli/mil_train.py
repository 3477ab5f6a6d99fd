"""Train a classifier of slides on patch features, and test it on folds of patients.

The table names slides and labels, and where there are any patients (`patient`, `case_id`)
and a `split` or `fold`. A run that was cancelled or killed goes on with --resume DIR.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from napari_mcm.cli.drive import drive
from napari_mcm.cli.output import Outcome, table
from napari_mcm.core.errors import ConfigError
from napari_mcm.core.jobs import format_seconds
from napari_mcm.core.mil.config import MilConfig

if TYPE_CHECKING:
    from napari_mcm.core.mil.results import MilResult


class MilTrainOptions(MilConfig):
    """A new training, or one to go on with."""

    resume: Path | None = Field(
        None,
        description="Directory of a run to go on with; its options stay as they are.",
    )


OPTIONS, POSITIONAL = MilTrainOptions, "cohort"


def run(options: MilTrainOptions) -> Outcome:
    """Train, or go on with it."""
    from napari_mcm.core.mil.train import resume_train, train

    if options.resume is None:
        config = MilConfig(**options.model_dump(exclude={"resume"}))
        return _outcome(drive(train(config), _how(config.out)))
    others = sorted(options.model_fields_set - {"resume"})
    if others:
        raise ConfigError(
            "takes no other options: the run has its own",
            "--resume",
            f"Leave out {', '.join(others)}",
        )
    return _outcome(drive(resume_train(options.resume), _how(options.resume)))


def _how(run_dir: Path | None) -> str:
    return f"resume with napari-mcm mil train --resume {run_dir}"


def _outcome(done: MilResult) -> Outcome:
    from napari_mcm.core.mil.results import figures_table

    result = {"run_dir": done.run_dir, "seconds": done.seconds, **done.figures}
    rows = [
        ("run", str(done.run_dir)),
        ("slides", str(done.figures["pooled"]["slides"])),
        ("time", format_seconds(done.seconds)),
    ]
    return Outcome(result, [*table(rows), "", *figures_table(done.figures)])
