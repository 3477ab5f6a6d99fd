"""Measure what more labels bring, for each start of a classifier.

Trains a classifier for each start (--arms), label fraction (--percent) and seed, all
with the same steps, and writes ablation.md, ablation.csv and figures. The same command
resumes an interrupted ablation.
"""

from __future__ import annotations

from napari_mcm.cli.drive import drive
from napari_mcm.cli.output import Outcome, table
from napari_mcm.core.runtime.jobs import format_seconds
from napari_mcm.core.studies.ablation_config import AblationConfig

OPTIONS, POSITIONAL = AblationConfig, "data"


def run(options: AblationConfig) -> Outcome:
    """Run the trials that are not done yet."""
    from napari_mcm.core.studies.ablation import ablate

    done = drive(ablate(options))
    result = {
        "out": done.out,
        "table": done.table,
        "csv": done.csv,
        "figures": done.figures,
        "cells": done.cells,
        "images": done.images,
        "test_images": done.test_images,
        "seconds": done.seconds,
    }
    rows = [
        ("trials", str(done.cells)),
        ("table", str(done.table)),
        ("csv", str(done.csv)),
        *(("figure", str(figure)) for figure in done.figures),
        ("time", format_seconds(done.seconds)),
    ]
    lines = done.table.read_text(encoding="utf-8").splitlines()
    return Outcome(result, [*lines, "", *table(rows)], done.failed)
