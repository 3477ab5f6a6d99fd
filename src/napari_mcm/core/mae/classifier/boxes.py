"""Cells in boxes on frames, as BCCD has them."""

from __future__ import annotations

import csv
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.mae.classifier.cells import Box, Cell
from napari_mcm.core.mae.pictures import picture_size

_IMAGES = ("images", "JPEGImages")
_ANNOTATIONS = ("annotations", "Annotations")
_WHITE = "WBC"
_LARGEST = 2**20


def is_bccd(data: Path) -> bool:
    """Tell whether a folder has BCCD's layout: images, annotations and labels."""
    return bool(
        _inside(data, _IMAGES)
        and _inside(data, _ANNOTATIONS)
        and (data / "labels.csv").is_file()
    )


def read_bccd(data: Path, margin: float) -> list[Cell]:
    """Cut the white cells out of BCCD's frames.

    A frame's label names its cells, and its boxes say where white cells are but not
    which is which: frames with one label and one such box are taken, others left out.

    Parameters
    ----------
    data : Path
        Holds ``images``, ``annotations`` and ``labels.csv``.
    margin : float
        Rim around a box, in parts of its longer side.

    Returns
    -------
    list of Cell
        Square boxes, shifted where they would leave the frame; the group is the frame.
    """
    images, notes = _inside(data, _IMAGES), _inside(data, _ANNOTATIONS)
    if images is None or notes is None:
        raise ConfigError("lacks images or annotations", data)
    labels = _labels(data / "labels.csv")
    cells = []
    for note in sorted(notes.glob("*.xml")):
        number = re.search(r"(\d+)$", note.stem)
        label = labels.get(int(number.group(1)), "") if number else ""
        boxes = _white_boxes(note)
        image = images / f"{note.stem}.jpg"
        if label and len(boxes) == 1 and image.is_file():
            box = square(boxes[0], picture_size(image), margin)
            cells.append(Cell(image, label.capitalize(), "", note.stem, box))
    return cells


def square(box: Box, size: tuple[int, int], margin: float) -> Box:
    """Make a box square with a rim, inside a frame of a width and height."""
    left, top, right, bottom = box
    side = round(max(right - left, bottom - top) * (1 + 2 * margin))
    side = max(min(side, *size), 1)
    x = min(max((left + right - side) // 2, 0), size[0] - side)
    y = min(max((top + bottom - side) // 2, 0), size[1] - side)
    return (x, y, x + side, y + side)


def _inside(data: Path, names: tuple[str, ...]) -> Path | None:
    return next((data / name for name in names if (data / name).is_dir()), None)


def _labels(file: Path) -> dict[int, str]:
    """Read which one kind of white cell a frame shows; frames of several are left out."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            rows = [(row["Image"], row["Category"]) for row in csv.DictReader(opened)]
        pairs = {int(image): (kind or "").strip() for image, kind in rows}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, ValueError) as error:
        raise ConfigError(
            f"is not BCCD's table of Image and Category ({error})", file
        ) from None
    return {n: kind.lower() for n, kind in pairs.items() if kind and "," not in kind}


def _white_boxes(note: Path) -> list[Box]:
    try:
        text = note.read_text(encoding="utf-8")
        # Entities are not needed here and can be made to grow without end.
        if len(text) > _LARGEST or "<!ENTITY" in text:
            raise ValueError("it is no plain annotation")
        tree = ElementTree.fromstring(text)
        return [
            _box(thing)
            for thing in tree.iter("object")
            if thing.findtext("name") == _WHITE
        ]
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise ConfigError(f"cannot be read as an annotation ({error})", note) from None


def _box(thing: ElementTree.Element) -> Box:
    found = thing.find("bndbox")
    if found is None:
        raise ValueError("an object has no box")
    left, top, right, bottom = (
        int(found.findtext(name) or "") for name in ("xmin", "ymin", "xmax", "ymax")
    )
    if not (0 <= left < right and 0 <= top < bottom):
        raise ValueError("a box is empty")
    return (left, top, right, bottom)
