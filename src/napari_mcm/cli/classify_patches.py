"""Apply a classifier of patches to feature files, and measure the areas of its classes.

The classifier file comes from `labels train`, or from the Classes widget. No slide is
needed, and no window: the table of areas is the one that the widget exports.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from napari_mcm.cli.drive import drive
from napari_mcm.cli.output import Outcome, aligned, table
from napari_mcm.core.labelling.areas import ClassArea
from napari_mcm.core.labelling.config import ClassifyPatchesConfig

OPTIONS, POSITIONAL = ClassifyPatchesConfig, "classifier features"
_SHOWN = 20


def run(options: ClassifyPatchesConfig) -> Outcome:
    """Classify the patches and write the table."""
    from napari_mcm.core.labelling.applying import apply_classifier
    from napari_mcm.core.labelling.exports import ALL_SLIDES

    done = drive(
        apply_classifier(options),
        "run the same command again: finished slides are kept",
    )
    classifier = done.classifier
    rows = [["slide", *(f"{one.label}" for one in done.total)]]
    rows += [[one.slide, *map(_shown, one.areas)] for one in done.slides[:_SHOWN]]
    rows.append([ALL_SLIDES, *map(_shown, done.total)])
    lines = aligned(rows)
    if len(done.slides) > _SHOWN:
        lines.append(f"... and {len(done.slides) - _SHOWN} more slides in the table")
    about = [
        ("unsure", f"below a probability of {classifier.config.unsure_below:g}"),
        ("covers", f"{classifier.config.neighbourhood.describe()}, as in training"),
        ("resumed", f"{done.resumed} slides of an earlier run"),
        ("table", str(done.table)),
    ]
    if not classifier.calibrated:
        about.insert(0, ("note", "the classifier is not calibrated: few labels"))
    result = {
        "classes": classifier.names,
        "calibrated": classifier.calibrated,
        "slides": {one.slide: described(one.areas) for one in done.slides},
        "total": described(done.total),
        "resumed": done.resumed,
        "table": done.table,
        "files": done.files,
    }
    return Outcome(result, [*lines, "", *table(about)], done.failed)


def described(areas: Sequence[ClassArea]) -> dict[str, Any]:
    """Return areas for JSON, by class."""
    return {
        one.label: {
            "mm2": one.mm2,
            "share": one.share,
            "patches": one.patches,
            "probability": one.probability,
        }
        for one in areas
    }


def _shown(area: ClassArea) -> str:
    return f"{area.mm2:.3f} mm² {100 * area.share:.1f} %"
