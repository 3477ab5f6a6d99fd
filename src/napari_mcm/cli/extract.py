"""Compute the features of all patches, one feature file per slide.

Slides with a complete feature file of the same options are skipped; interrupted files
resume.
"""

from __future__ import annotations

from napari_mcm.cli.drive import drive
from napari_mcm.cli.output import Outcome, table
from napari_mcm.core.features import ExtractConfig
from napari_mcm.core.features.cluster import extract_anywhere
from napari_mcm.core.runtime.jobs import format_seconds
from napari_mcm.core.slides.find import find_slides

OPTIONS, POSITIONAL = ExtractConfig, "slides"


def run(options: ExtractConfig) -> Outcome:
    """Extract features from each slide."""
    config = options.model_copy(update={"slides": find_slides(options.slides)})
    done = drive(
        extract_anywhere(config), "resume with the same command: what is done is kept"
    )
    result = {
        "slides": done.slides,
        "patches": done.patches,
        "failed": done.failed,
        "patches_per_s": done.patches_per_s,
        "files": done.files,
        "seconds": done.seconds,
    }
    rows = [
        ("slides", str(done.slides)),
        ("patches", f"{done.patches:,} in {format_seconds(done.seconds)}"),
        ("speed", f"{done.patches_per_s:.3g} patches/s"),
        *(("file", str(file)) for file in done.files),
    ]
    return Outcome(result, table(rows), done.failed)
