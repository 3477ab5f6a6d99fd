"""Generate a cohort: slides, region annotations and a table of labels."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from napari_mcm.cli.drive import drive
from napari_mcm.cli.output import Outcome
from napari_mcm.core.synthetic import SampleConfig, generate_cohort


class SampleOptions(SampleConfig):
    """The options of the generated cohort, and its folder."""

    out: Path = Field(description="Directory for the slides.")


OPTIONS, POSITIONAL = SampleOptions, ""


def run(options: SampleOptions) -> Outcome:
    """Generate the cohort."""
    config = SampleConfig(**options.model_dump(exclude={"out"}))
    cohort = drive(generate_cohort(options.out, config))
    result = {"slides": cohort.slides, "cohort": cohort.cohort}
    if cohort.truths:
        result["truths"] = cohort.truths
    return Outcome(result, [f"{len(cohort.slides)} slides in {options.out}"])
