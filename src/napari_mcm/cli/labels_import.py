"""Label the patches in outlined regions, such as annotations that QuPath exports.

Regions have classes and are in level-0 pixels. The label file trains a classifier with
`labels train`, opens in the Classes widget, and is what `evaluate` and `study` take.
"""

from __future__ import annotations

from napari_mcm.cli.drive import drive
from napari_mcm.cli.output import Outcome, table
from napari_mcm.core.labelling.config import ImportLabelsConfig

OPTIONS, POSITIONAL = ImportLabelsConfig, "regions"


def run(options: ImportLabelsConfig) -> Outcome:
    """Import the regions and write the label file."""
    from napari_mcm.core.labelling.importing import import_labels

    done = drive(import_labels(options))
    counts = done.labels.counts()
    rows = [
        (slide, f"{count} patches labelled") for slide, count in done.counts.items()
    ]
    rows += [
        ("labels", ", ".join(f"{count} {name}" for name, count in counts.items())),
        ("file", str(done.file)),
    ]
    result = {
        "file": done.file,
        "labels": len(done.labels),
        "counts": counts,
        "slides": done.counts,
    }
    return Outcome(result, table(rows))
