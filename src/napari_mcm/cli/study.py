"""Compare arms of a fine-tuning over folds and seeds: one table and one figure.

STUDY is a JSON file with slides, labels and arms; docs/study.md has an example. The
same command resumes an interrupted study, at the trial and step where it stopped. The
table is rewritten after each trial.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from napari_mcm.cli.drive import drive
from napari_mcm.cli.output import Outcome, table
from napari_mcm.core.errors import ConfigError
from napari_mcm.core.runtime.jobs import format_seconds


class StudyOptions(BaseModel):
    """A study to run or to resume."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    study: Path | None = Field(None, description="The study's JSON file.")
    out: Path | None = Field(
        None, description="Directory of the study; by default the one in its file."
    )
    seeds: int | None = Field(
        None, ge=1, le=100, description="Seeds per arm; by default as in its file."
    )
    arms: tuple[str, ...] = Field(
        (),
        description="Arms to run; by default all. Two processes may run different arms of "
        "one study at the same time.",
    )
    radii: tuple[Annotated[int, Field(ge=0, le=3)], ...] | None = Field(
        None,
        min_length=1,
        description="Context radii to measure at, in patch widths; by default as in its "
        "file.",
    )


OPTIONS, POSITIONAL = StudyOptions, "study"


def run(options: StudyOptions) -> Outcome:
    """Run the trials that are not done yet."""
    from napari_mcm.core.studies.study import run_study
    from napari_mcm.core.studies.study_config import read_study

    if options.study is None:
        raise ConfigError("no study given", hint="Give its JSON file")
    config = read_study(options.study)
    changes = options.model_dump(exclude={"study", "arms"}, exclude_none=True)
    unknown = [name for name in options.arms if name not in config.arms]
    if unknown:
        raise ConfigError(f"the study has no arm {unknown[0]}", "--arms")
    done = drive(run_study(config.model_copy(update=changes), arms=options.arms))
    result = {
        "out": done.out,
        "table": done.table,
        "csv": done.csv,
        "figure": done.figure,
        "cells": done.cells,
        "failed": list(done.failed),
        "seconds": done.seconds,
    }
    rows = [
        ("study", str(done.out)),
        ("table", str(done.table)),
        ("figure", str(done.figure)),
        ("trials", str(done.cells)),
        ("time", format_seconds(done.seconds)),
    ]
    return Outcome(result, table(rows), done.failed)
