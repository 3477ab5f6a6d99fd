"""Classification of pictures with a trained classifier, and evaluation on labelled ones."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.cells.config import EvaluateCellsConfig, PredictCellsConfig
from napari_mcm.core.cells.datasets import TRAIN, Cell, CellSet, make_set, read_cells
from napari_mcm.core.cells.metrics import Scores, score
from napari_mcm.core.cells.model import CellClassifier, load_classifier
from napari_mcm.core.errors import ConfigError, McmError, TrainingError
from napari_mcm.core.mae.augment import resized
from napari_mcm.core.mae.pictures import PictureCache, find_pictures
from napari_mcm.core.runtime.files import write_json, write_text
from napari_mcm.core.runtime.jobs import Job, Meter, Note

_AT_ONCE = 8


@dataclass(frozen=True, eq=False)
class Predictions:
    """Class probabilities of images.

    Attributes
    ----------
    rows : ndarray of int64, shape (M,)
        Indices of the images that could be read.
    probabilities : ndarray of float32, shape (M, C)
        Class probabilities.
    failed : tuple of str
        One line for each image that could not be read.
    """

    rows: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    failed: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class PredictResult:
    """Classes of pictures.

    Attributes
    ----------
    pictures : tuple of Path
        Pictures that could be read.
    classes : tuple of str
        Names of the classes.
    probabilities : ndarray of float32, shape (N, C)
        Class probabilities.
    failed : tuple of str
        One line for each picture that could not be read.
    file : Path or None
        The table written.
    """

    pictures: tuple[Path, ...]
    classes: tuple[str, ...]
    probabilities: NDArray[np.float32]
    failed: tuple[str, ...]
    file: Path | None


@dataclass(frozen=True, eq=False)
class EvaluateResult:
    """Metrics of a classifier on labelled images.

    Attributes
    ----------
    scores : Scores
        The metrics.
    images : int
        Number of images.
    split : str
        Names of the splits scored.
    failed : tuple of str
        One line for each image that could not be read.
    out : Path or None
        The folder written.
    """

    scores: Scores
    images: int
    split: str
    failed: tuple[str, ...]
    out: Path | None


def predict(config: PredictCellsConfig) -> Job[PredictResult]:
    """Classify pictures, as a job.

    Parameters
    ----------
    config : PredictCellsConfig
        Classifier, pictures, and output table.

    Yields
    ------
    Event
        Progress in images; a note for each that cannot be read.

    Returns
    -------
    PredictResult
        Class probabilities of each picture.

    Raises
    ------
    RunError
        If there is no trained classifier.
    TrainingError
        If no picture can be read.
    """
    classifier = load_classifier(config.run, config.compute)
    files = find_pictures(config.inputs)
    # Without labels: only the images of the set are used.
    cells = CellSet([Cell(file, "", "", "") for file in files], classifier.classes)
    found = yield from predict_cells(classifier, cells)
    pictures = tuple(files[row] for row in found.rows)
    if config.out is not None:
        _write_table(config.out, [(str(p), "") for p in pictures], found, cells.classes)
    return PredictResult(
        pictures, classifier.classes, found.probabilities, found.failed, config.out
    )


def evaluate(config: EvaluateCellsConfig) -> Job[EvaluateResult]:
    """Evaluate a classifier on labelled images, as a job.

    Parameters
    ----------
    config : EvaluateCellsConfig
        Classifier, labelled images, split and output folder.

    Yields
    ------
    Event
        Progress in images; a note for each that cannot be read.

    Returns
    -------
    EvaluateResult
        Metrics, by the classifier's own classes in its own order.

    Raises
    ------
    RunError
        If there is no trained classifier.
    ConfigError
        If an image has a class that the classifier does not know, or there is no such
        split.
    TrainingError
        If no image can be read.
    """
    classifier = load_classifier(config.run, config.compute)
    every = make_set(read_cells(config.data, config.labels), classifier.classes)
    splits = _splits_to_score(every, config.split)
    cells = every.only(*splits)
    found = yield from predict_cells(classifier, cells)
    if config.out is None:
        scores = score(
            found.probabilities, cells.targets[found.rows], classifier.classes
        )
    else:
        scores = write_results(config.out, found, cells)
    name = ", ".join(filter(None, splits))
    return EvaluateResult(scores, len(found.rows), name, found.failed, config.out)


def _splits_to_score(cells: CellSet, split: str) -> tuple[str, ...]:
    known = {name.lower(): name for name in cells.splits}
    if split:
        if split.lower() not in known:
            known_names = ", ".join(filter(None, cells.splits)) or "none"
            raise ConfigError(f"is not a split; there are {known_names}", split)
        return (known[split.lower()],)
    # Images of the training set are scored only where there are no others.
    held_out = tuple(name for name in cells.splits if name not in (TRAIN, ""))
    return held_out or cells.splits


def predict_cells(classifier: CellClassifier, cells: CellSet) -> Job[Predictions]:
    """Classify a set of images, a few at a time, as a job.

    Parameters
    ----------
    classifier : CellClassifier
        The classifier.
    cells : CellSet
        The images.

    Yields
    ------
    Event
        Progress in images; a note for each that cannot be read.

    Returns
    -------
    Predictions
        Class probabilities of the images that could be read.

    Raises
    ------
    TrainingError
        If none can be read.
    """
    cache, meter = PictureCache(64), Meter("Classifying", len(cells), "images")
    rows: list[int] = []
    parts, failed = [], []
    for start in range(0, len(cells), _AT_ONCE):
        several = []
        for row in range(start, min(start + _AT_ONCE, len(cells))):
            try:
                pixels = cells.cells[row].read(cache)
            except McmError as error:
                failed.append(str(error))
                yield Note(f"skipped: {error}", "warning")
                continue
            several.append(resized(pixels, classifier.side))
            rows.append(row)
        if several:
            parts.append(classifier.probabilities(np.stack(several)))
        yield meter.advance(min(_AT_ONCE, len(cells) - start))
    if not parts:
        raise TrainingError("none of the images can be read")
    return Predictions(np.asarray(rows), np.concatenate(parts), tuple(failed))


def write_results(folder: Path, found: Predictions, cells: CellSet) -> Scores:
    """Write metrics, predictions and a confusion matrix to a folder.

    Parameters
    ----------
    folder : Path
        Gets ``scores.json``, ``predictions.csv`` and ``confusion.png``.
    found : Predictions
        Predictions of the images.
    cells : CellSet
        The images, with labels.

    Returns
    -------
    Scores
        The metrics.
    """
    # matplotlib is slow to import: do it only if a figure is written.
    from napari_mcm.core.cells.metrics import draw_confusion
    from napari_mcm.core.heatmaps.figures import save_figure

    scores = score(found.probabilities, cells.targets[found.rows], cells.classes)
    chosen = [cells.cells[row] for row in found.rows]
    named = [(_name(cell), cell.label) for cell in chosen]
    _write_table(folder / "predictions.csv", named, found, cells.classes)
    write_json(folder / "scores.json", scores.plain())
    save_figure(draw_confusion(scores, cells.classes), folder / "confusion.png")
    return scores


def _name(cell: Cell) -> str:
    return f"{cell.path.parent.name}/{cell.path.name}"


def _write_table(
    file: Path,
    named: Sequence[tuple[str, str]],
    found: Predictions,
    classes: Sequence[str],
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    columns = ("image", "label", "predicted", "confidence")
    writer.writerow([*columns, *(f"p_{name}" for name in classes)])
    for (image, label), row in zip(named, found.probabilities, strict=True):
        best = int(row.argmax())
        shares = [f"{p:.6f}" for p in row]
        writer.writerow([image, label, classes[best], shares[best], *shares])
    write_text(file, text.getvalue())
