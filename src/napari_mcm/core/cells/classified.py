"""Classes of annotated cells, their colours, and the files that hold them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.cells.annotations import (
    GEOJSON,
    CellAnnotations,
    Feature,
)
from napari_mcm.core.cells.datasets import Box
from napari_mcm.core.errors import ConfigError
from napari_mcm.core.runtime.files import write_text
from napari_mcm.core.runtime.geojson import write_features

# Okabe and Ito's palette; colours that stand out from stained tissue come first.
COLOURS = (
    *("#0072B2", "#E69F00", "#009E73", "#F0E442"),
    *("#D55E00", "#56B4E9", "#CC79A7", "#000000"),
)

UNKNOWN = "#808080"

CLASS, CONFIDENCE, PROBABILITY = "class", "confidence", "p_"
"""Names of columns and measurements; a class's name follows the last."""

_ENDINGS = "Use .geojson or .csv"


@dataclass(frozen=True, eq=False)
class Classified:
    """Classes of cells.

    Attributes
    ----------
    classes : tuple of str
        Names of the classes.
    probabilities : ndarray of float32, shape (N, C)
        NaN where a cell could not be read.
    """

    classes: tuple[str, ...]
    probabilities: NDArray[np.float32]

    @property
    def failed(self) -> int:
        """Return the number of cells that could not be read.

        Returns
        -------
        int
            0 if all were read.
        """
        return int((self.winners < 0).sum())

    @property
    def winners(self) -> NDArray[np.int64]:
        """Return each cell's class as a number.

        Returns
        -------
        ndarray of int64, shape (N,)
            -1 where it could not be read.
        """
        # argmax of NaN is 0, the first class: unreadable cells need a mark of their own.
        unread = np.isnan(self.probabilities).any(axis=1)
        best = np.nan_to_num(self.probabilities).argmax(axis=1)
        return np.where(unread, -1, best)

    @property
    def names(self) -> list[str]:
        """Return the name of each cell's class.

        Returns
        -------
        list of str
            Empty where a cell could not be read.
        """
        return [self.classes[n] if n >= 0 else "" for n in self.winners]

    @property
    def confidence(self) -> NDArray[np.float32]:
        """Return each cell's highest probability.

        Returns
        -------
        ndarray of float32, shape (N,)
            NaN where it could not be read.
        """
        return np.asarray(self.probabilities.max(axis=1))

    def describe(self) -> list[tuple[int, str]]:
        """Return a line of text for each class that occurs.

        Returns
        -------
        list of tuple of int and str
            Number of the class; its name, number of cells and mean confidence.
        """
        found, winners = [], self.winners
        for number, name in enumerate(self.classes):
            own = self.confidence[winners == number]
            if len(own):
                text = f"{name}: {len(own):,}, mean confidence {own.mean():.2f}"
                found.append((number, text))
        return found


def colour_of(number: int) -> str:
    """Return the colour of a class.

    Parameters
    ----------
    number : int
        Number of the class; -1 for a cell that could not be read.

    Returns
    -------
    str
        Such as ``"#0072B2"``.
    """
    return COLOURS[number % len(COLOURS)] if number >= 0 else UNKNOWN


def check_out(path: Path, marks: Path) -> None:
    """Check that classes can be written to a file, before anything takes time.

    Parameters
    ----------
    path : Path
        File to write.
    marks : Path
        File of the annotations.

    Raises
    ------
    ConfigError
        If it has another suffix, is a folder, or is the file of the annotations.
    """
    if path.suffix.lower() not in (*GEOJSON, ".csv"):
        raise ConfigError("cannot be written as a file of cells", path, _ENDINGS)
    if path.is_dir():
        raise ConfigError("is a folder", path, "Name a file in it")
    # samefile sees through links; the annotations would be overwritten.
    if path.exists() and marks.exists() and path.samefile(marks):
        raise ConfigError("is the file of the annotations", path, "Name another one")


def write_classified(
    path: Path, marks: CellAnnotations, boxes: Sequence[Box], found: Classified
) -> None:
    """Write cells with their classes.

    Parameters
    ----------
    path : Path
        ``.geojson``: everything in the file of annotations, and for each cell its
        class, the class's colour and the probabilities, as QuPath reads them. ``.csv``:
        one row per cell with its box, class and probabilities.
    marks : CellAnnotations
        The annotations.
    boxes : sequence of tuple of int
        The classified boxes, in level-0 pixels.
    found : Classified
        Classes in the same order.
    """
    if path.suffix.lower() == ".csv":
        write_text(path, _table(boxes, found))
        return
    rows = zip(marks.cells, found.winners, found.probabilities, strict=True)
    cells = [_painted(m.feature, int(n), row, found.classes) for m, n, row in rows]
    write_features(path, [*marks.others, *cells])


def _table(boxes: Sequence[Box], found: Classified) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    shares = [f"{PROBABILITY}{name}" for name in found.classes]
    writer.writerow(["left", "top", "right", "bottom", CLASS, CONFIDENCE, *shares])
    for box, name, row in zip(boxes, found.names, found.probabilities, strict=True):
        values = [_written(v) for v in (row.max(), *row)]
        writer.writerow([*box, name, *(values if name else [""] * len(values))])
    return text.getvalue()


def _painted(
    feature: Feature, number: int, row: NDArray[np.float32], classes: Sequence[str]
) -> Feature:
    """Return a cell's feature with its class; none, if it could not be read."""
    given = feature.get("properties")
    kept = dict(given) if isinstance(given, dict) else {}
    # A class from earlier would look like the classifier's own.
    kept.pop("classification", None)
    if number >= 0:
        kept["classification"] = {"name": classes[number], "color": _rgb(number)}
        shares = zip(classes, row, strict=True)
        measured = {f"{PROBABILITY}{name}": float(_written(v)) for name, v in shares}
        kept["measurements"] = _measured(kept.get("measurements"), measured)
    return {"type": "Feature", **feature, "properties": kept}


def _measured(given: Any, more: dict[str, float]) -> Any:
    """Add measurements: a list in older QuPath versions, else a mapping."""
    if isinstance(given, list):
        rest = [m for m in given if not (isinstance(m, dict) and m.get("name") in more)]
        return [*rest, *({"name": name, "value": v} for name, v in more.items())]
    return {**(given if isinstance(given, dict) else {}), **more}


def _rgb(number: int) -> list[int]:
    return list(bytes.fromhex(colour_of(number)[1:]))


def _written(value: np.float32) -> str:
    """Format a number so that parsing gives the same float32."""
    return str(np.float32(value))
