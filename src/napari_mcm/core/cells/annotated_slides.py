"""Classification of cells that are annotated on a slide, as a job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.cells.annotations import (
    CellAnnotations,
    Crop,
    crop_of,
    read_annotations,
)
from napari_mcm.core.cells.classified import Classified, check_out, write_classified
from napari_mcm.core.cells.config import MarkedCellsConfig
from napari_mcm.core.cells.datasets import Box
from napari_mcm.core.cells.model import CellClassifier, load_classifier
from napari_mcm.core.encoders import ComputeConfig
from napari_mcm.core.errors import ConfigError, McmError, TrainingError
from napari_mcm.core.mae.augment import resized
from napari_mcm.core.runtime.jobs import Job, Meter, Note
from napari_mcm.core.runtime.threads import run_in_thread
from napari_mcm.core.slides import Slide

# Few, so that a large network on a CPU still reports progress and can be cancelled.
_AT_ONCE = 4

_MAX_WARNINGS = 20
"""Number of skipped cells that are reported one by one."""


@dataclass(frozen=True, eq=False)
class AnnotatedResult:
    """Classes of annotated cells.

    Attributes
    ----------
    slide : str
        Name of the slide.
    boxes : tuple of tuple of int
        Left, top, right, bottom of each classified box, in level-0 pixels.
    found : Classified
        Classes in the same order, which is that of the file.
    others : int
        Number of objects in the file that are not cells.
    file : Path or None
        The file written.
    """

    slide: str
    boxes: tuple[Box, ...]
    found: Classified
    others: int
    file: Path | None


def classify_cells(config: MarkedCellsConfig) -> Job[AnnotatedResult]:
    """Classify the cells that a file annotates on a slide, and write the classes, as a job.

    Parameters
    ----------
    config : MarkedCellsConfig
        Slide, classifier, annotations, and output file.

    Returns
    -------
    AnnotatedResult
        Class probabilities of each cell.

    Raises
    ------
    ConfigError
        If the annotations cannot be read, or belong to another slide.
    GridError
        If a geometry in the file is damaged.
    SlideError
        If the slide cannot be opened.
    RunError
        If there is no trained classifier.
    TrainingError
        If no cell can be read.
    """
    if config.out is not None:
        check_out(config.out, config.marks)
    marks = yield from run_in_thread(
        "Reading the annotations", read_annotations, config.marks
    )
    if marks.others:
        text = f"{len(marks.others):,} objects that are not cells are ignored"
        yield Note(text)
    with config.read.open(config.slide) as slide:
        boxes = _boxes(marks, slide, config)
        found = yield from classify_boxes(
            config.run, crop_of(slide), boxes, config.compute
        )
        name = slide.name
    if found.failed == len(boxes):
        raise TrainingError("none of the cells can be read", config.slide)
    if config.out is not None:
        yield from run_in_thread(
            "Writing", write_classified, config.out, marks, boxes, found
        )
    return AnnotatedResult(name, boxes, found, len(marks.others), config.out)


def classify_boxes(
    run: Path, crop: Crop, boxes: Sequence[Box], compute: ComputeConfig
) -> Job[Classified]:
    """Classify boxes of an image, a few at a time, as a job.

    Parameters
    ----------
    run : Path
        Directory of a trained classifier.
    crop : callable
        Returns the pixels of a box; a box for which it raises TileError is skipped.
    boxes : sequence of tuple of int
        Left, top, right, bottom in pixels.
    compute : ComputeConfig
        Where to compute.

    Returns
    -------
    Classified
        Class probabilities of each box; NaN where it could not be read.

    Raises
    ------
    RunError
        If there is no trained classifier.
    """
    classifier = yield from run_in_thread(
        "Loading the classifier", load_classifier, run, compute
    )
    found = yield from _few_by_few(classifier, crop, boxes)
    return Classified(tuple(classifier.classes), found)


def _few_by_few(
    classifier: CellClassifier, crop: Crop, boxes: Sequence[Box]
) -> Job[NDArray[np.float32]]:
    """Return the probabilities of boxes, computed in a thread; NaN where one is unreadable."""
    # Rows of unreadable cells stay NaN: the file then has the cell, without a class.
    found = np.full((len(boxes), len(classifier.classes)), np.nan, np.float32)
    meter, failed = Meter("Classifying", len(boxes), "cells"), 0
    for first in range(0, len(boxes), _AT_ONCE):
        rows, images = [], []
        for row in range(first, min(first + _AT_ONCE, len(boxes))):
            try:
                images.append(resized(crop(boxes[row]), classifier.side))
            except McmError as error:
                failed += 1
                if failed <= _MAX_WARNINGS:
                    yield Note(_skipped(row, boxes[row], error), "warning")
                continue
            rows.append(row)
        if rows:
            # A large network takes long for a few cells: cancelling does not wait.
            found[rows] = yield from run_in_thread(
                meter.progress(), classifier.probabilities, np.stack(images)
            )
        yield meter.advance(min(_AT_ONCE, len(boxes) - first))
    if failed > _MAX_WARNINGS:
        yield Note(f"skipped {failed - _MAX_WARNINGS:,} more cells", "warning")
    return found


def _skipped(row: int, box: Box, error: McmError) -> str:
    return f"skipped cell {row + 1:,} at {box[0]}, {box[1]}: {error}"


def _boxes(
    marks: CellAnnotations, slide: Slide, config: MarkedCellsConfig
) -> tuple[Box, ...]:
    """Return the boxes in the slide's pixels.

    Raises
    ------
    ConfigError
        If all boxes lie outside of the slide.
    """
    size = slide.size
    boxes = tuple(m.box(size, config.side, config.box_margin) for m in marks.cells)
    low, high = np.min(boxes, axis=0), np.max(boxes, axis=0)
    # One cell inside is enough: outlines at a slide's edge may cross it.
    inside = any(
        0 <= b[0] < b[2] <= size[0] and 0 <= b[1] < b[3] <= size[1] for b in boxes
    )
    if not inside:
        raise ConfigError(
            f"all cells lie outside of {slide.name}: x {low[0]} to {high[2]}, y "
            f"{low[1]} to {high[3]} on {size[0]} x {size[1]} px",
            config.marks,
            "Does the file belong to another slide? Coordinates are level-0 pixels",
        )
    return boxes
