"""Classify the cells that are marked on a slide or an image.

Mark them with a GeoJSON file, as QuPath writes it, or with a table of points or boxes.
"""

from __future__ import annotations

from napari_mcm.cli.drive import drive
from napari_mcm.cli.output import Outcome
from napari_mcm.core.cells.config import MarkedCellsConfig

OPTIONS, POSITIONAL = MarkedCellsConfig, "slide"


def run(options: MarkedCellsConfig) -> Outcome:
    """Classify the cells and write the file."""
    from napari_mcm.core.cells.annotated_slides import classify_cells

    done = drive(classify_cells(options))
    found, count = done.found, len(done.boxes)
    lines = [f"{count - found.failed:,} of {count:,} cells classified"]
    lines += [text for _, text in found.describe()]
    if done.file is not None:
        lines.append(f"file  {done.file}")
    cells = [
        {
            "box": box,
            "class": name or None,
            "probabilities": dict(zip(found.classes, row.tolist(), strict=True)),
        }
        for box, name, row in zip(
            done.boxes, found.names, found.probabilities, strict=True
        )
    ]
    result = {
        "slide": done.slide,
        "classes": found.classes,
        "counts": {name: found.names.count(name) for name in found.classes},
        "skipped": found.failed,
        "passed_over": done.others,
        "cells": cells,
        "file": done.file,
    }
    skipped = f"{found.failed:,} of {count:,} cells could not be read"
    return Outcome(result, lines, [skipped] if found.failed else [])
