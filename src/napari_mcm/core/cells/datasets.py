"""Labelled images: tables, folders of classes, folders of splits, and frames with boxes."""

from __future__ import annotations

import csv
import hashlib
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.cells.config import LabelsConfig
from napari_mcm.core.errors import ConfigError
from napari_mcm.core.mae.augment import Pixels
from napari_mcm.core.mae.pictures import ENDINGS, PictureCache, picture_size

_IMAGES = ("images", "JPEGImages")
_ANNOTATIONS = ("annotations", "Annotations")
_WHITE = "WBC"  # the data set's name of a white blood cell
_LARGEST = 2**20  # bytes of an annotation


def is_bccd(data: Path) -> bool:
    """Return whether a folder has BCCD's layout: images, annotations and labels.

    Parameters
    ----------
    data : Path
        The folder.

    Returns
    -------
    bool
    """
    return bool(
        _inside(data, _IMAGES)
        and _inside(data, _ANNOTATIONS)
        and (data / "labels.csv").is_file()
    )


def read_bccd(data: Path, margin: float) -> list[Cell]:
    """Read the white blood cells of BCCD's frames.

    A frame's label names its cells, and its boxes say where white cells are but not
    which is which. Frames with one label and one such box are used, others left out.

    Parameters
    ----------
    data : Path
        Folder with ``images``, ``annotations`` and ``labels.csv``.
    margin : float
        Margin around a box, as a fraction of its longer side.

    Returns
    -------
    list of Cell
        Square boxes, shifted where they would leave the frame; the group is the frame.

    Raises
    ------
    ConfigError
        If a folder is missing, or a table or an annotation is damaged.
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
    """Return a box as a square with a margin, inside a frame.

    Parameters
    ----------
    box : tuple of int
        Left, top, right, bottom in pixels.
    size : tuple of int
        Width and height of the frame, in pixels.
    margin : float
        Margin as a fraction of the longer side.

    Returns
    -------
    tuple of int
    """
    left, top, right, bottom = box
    side = round(max(right - left, bottom - top) * (1 + 2 * margin))
    side = max(min(side, *size), 1)  # never larger than the frame
    x = min(max((left + right - side) // 2, 0), size[0] - side)
    y = min(max((top + bottom - side) // 2, 0), size[1] - side)
    return (x, y, x + side, y + side)


def _inside(data: Path, names: tuple[str, ...]) -> Path | None:
    return next((data / name for name in names if (data / name).is_dir()), None)


def _labels(file: Path) -> dict[int, str]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            rows = [(row["Image"], row["Category"]) for row in csv.DictReader(opened)]
        pairs = {int(image): (kind or "").strip() for image, kind in rows}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, ValueError) as error:
        raise ConfigError(
            f"is not BCCD's table of Image and Category ({error})", file
        ) from None
    # A frame with several kinds does not say which of its cells is which.
    return {n: kind.lower() for n, kind in pairs.items() if kind and "," not in kind}


def _white_boxes(note: Path) -> list[Box]:
    try:
        text = note.read_text(encoding="utf-8")
        # Entities are not needed here and can expand without bound.
        if len(text) > _LARGEST or "<!ENTITY" in text:
            raise ValueError("it is not a plain annotation")
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


Box = tuple[int, int, int, int]

TRAIN, VALIDATION = "train", "val"


@dataclass(frozen=True)
class Cell:
    """One labelled image.

    Attributes
    ----------
    path : Path
        Its file.
    label : str
        Its class.
    split : str
        ``train``, ``val``, or the name of a test split; "" where there are no splits.
    group : str
        Shared by images that are nearly the same: a field of view.
    box : tuple of int or None
        Left, top, right, bottom of the image within the file, in pixels; None for all.
    """

    path: Path
    label: str
    split: str
    group: str
    box: Box | None = None

    def read(self, cache: PictureCache) -> Pixels:
        """Return the pixels of the image.

        Parameters
        ----------
        cache : PictureCache
            Decodes the file.

        Returns
        -------
        ndarray of uint8, shape (height, width, 3)

        Raises
        ------
        SlideError
            If the file cannot be decoded.
        """
        pixels = cache.read(self.path)
        if self.box is None:
            return pixels
        left, top, right, bottom = self.box
        return pixels[top:bottom, left:right]


@dataclass(frozen=True, eq=False)
class CellSet:
    """Labelled images with their classes in a fixed order.

    Attributes
    ----------
    cells : sequence of Cell
        The images.
    classes : tuple of str
        The same for every split, whichever classes it lacks.
    """

    cells: Sequence[Cell]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def targets(self) -> NDArray[np.int64]:
        """Return each image's class as a number.

        Returns
        -------
        ndarray of int64, shape (N,)
        """
        number = {name: n for n, name in enumerate(self.classes)}
        return np.array([number[cell.label] for cell in self.cells], np.int64)

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits, sorted.

        Returns
        -------
        tuple of str
        """
        return tuple(sorted({cell.split for cell in self.cells}))

    @property
    def support(self) -> dict[str, int]:
        """Return the number of images of each class.

        Returns
        -------
        dict of str to int
        """
        counts = Counter(cell.label for cell in self.cells)
        return {name: counts[name] for name in self.classes}

    @property
    def fingerprint(self) -> str:
        """Return a hash that changes with images, labels or classes.

        Returns
        -------
        str
        """
        digest = hashlib.blake2b(digest_size=8)
        digest.update("|".join(self.classes).encode())
        for cell in self.cells:
            digest.update(f"{cell.path.name}:{cell.label}:{cell.box};".encode())
        return digest.hexdigest()

    def only(self, *splits: str) -> CellSet:
        """Return the images of some splits, with the same classes.

        Parameters
        ----------
        *splits : str
            Names of the splits.

        Returns
        -------
        CellSet
        """
        kept = [cell for cell in self.cells if cell.split in splits]
        return CellSet(kept, self.classes)

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> CellSet:
        """Return some images, with the same classes.

        Parameters
        ----------
        rows : sequence of int or ndarray of int64
            Indices of the images.

        Returns
        -------
        CellSet
        """
        return CellSet([self.cells[int(row)] for row in rows], self.classes)


def make_set(cells: Sequence[Cell], classes: Sequence[str] = ()) -> CellSet:
    """Return labelled images as a set with fixed classes.

    Parameters
    ----------
    cells : sequence of Cell
        The images.
    classes : sequence of str, optional
        Classes in order; by default all labels, sorted.

    Returns
    -------
    CellSet

    Raises
    ------
    ConfigError
        If there are no images, fewer than two classes, or a label that is not a class.
    """
    if not cells:
        raise ConfigError("there are no labelled images")
    found = sorted({cell.label for cell in cells})
    unknown = sorted(set(found) - set(classes)) if classes else []
    if unknown:
        first = next(cell for cell in cells if cell.label == unknown[0])
        raise ConfigError(
            f"has the label {first.label!r}, which is none of {', '.join(classes)}",
            first.path,
            "Give all classes, or leave its images out",
        )
    names = tuple(classes or found)
    if len(names) < 2:
        raise ConfigError(f"there is one class only ({names[0]})")
    return CellSet(list(cells), names)


_SPLITS = {"train": TRAIN, "training": TRAIN, "val": VALIDATION}
_SPLITS |= {"valid": VALIDATION, "validation": VALIDATION}
_TEST = re.compile(r"^test\w*$", re.IGNORECASE)  # TestA, TestB and the like

# Some data sets keep images in data/ beside masks/.
_INNER, _MASKS = "data", ("mask", "masks")

_COLUMNS = {
    "path": ("path", "file", "filename", "image"),
    "label": ("label", "class"),
    "split": ("split",),
    "group": ("group", "field", "source_image", "slide", "patient"),
}

_TIME = re.compile(r"^(\d{8}_\d{6})")  # Raabin-WBC: second of the photograph
_FRAME = re.compile(r"^(BloodImage_\d+)")  # crops of a frame of BCCD


def read_cells(data: Path, config: LabelsConfig) -> list[Cell]:
    """Find labelled images in any of the supported layouts.

    Parameters
    ----------
    data : Path
        A table (``.csv``), a folder with a table ``index.csv``, a folder of classes, a
        folder of splits of classes (Raabin-WBC's ``Train/TestA/TestB``, or
        ``train/data/<Class>``), or BCCD's ``images`` and ``annotations``.
    config : LabelsConfig
        The layout, or ``auto`` to detect it.

    Returns
    -------
    list of Cell

    Raises
    ------
    ConfigError
        If the data do not have this layout, or a table is damaged.
    """
    if not data.exists():
        raise ConfigError("no such file or folder", data, "Check the path")
    layout = _detect_layout(data) if config.layout == "auto" else config.layout
    if layout == "csv":
        return _read_table(data / "index.csv" if data.is_dir() else data)
    if not data.is_dir():
        raise ConfigError("is not a folder", data, "Check --layout")
    if layout == "bccd":
        return read_bccd(data, config.box_margin)
    if layout == "splits":
        return [cell for split in _split_folders(data) for cell in _read_split(split)]
    return _read_folders(data, "")


def group_of(path: Path) -> str:
    """Return the field of view of an image, from its file name.

    Parameters
    ----------
    path : Path
        The file. Its name may begin with a time (``20190531_113249_0.jpg``, Raabin-WBC)
        or a frame (``BloodImage_00008_1``, BCCD).

    Returns
    -------
    str
        The time or the frame; the whole name where there is neither.
    """
    for pattern in (_TIME, _FRAME):
        found = pattern.match(path.name)
        if found:
            return found.group(1)
    return path.name


def _detect_layout(data: Path) -> str:
    if data.is_file():
        return "csv"
    if is_bccd(data):
        return "bccd"
    if _split_folders(data):
        return "splits"
    if (data / "index.csv").is_file():
        with (data / "index.csv").open(newline="", encoding="utf-8-sig") as file:
            header = next(csv.reader(file), [])
        if all(_column(header, name) for name in ("path", "label")):
            return "csv"
    return "folders"


def _split_folders(data: Path) -> list[Path]:
    return sorted(
        folder for folder in data.iterdir() if folder.is_dir() and _split_name(folder)
    )


def _split_name(folder: Path) -> str:
    if folder.name.lower() in _SPLITS:
        return _SPLITS[folder.name.lower()]
    return folder.name if _TEST.match(folder.name) else ""


def _read_split(folder: Path) -> list[Cell]:
    inner = folder / _INNER
    return _read_folders(inner if inner.is_dir() else folder, _split_name(folder))


def _read_folders(data: Path, split: str) -> list[Cell]:
    cells = [
        Cell(path, folder.name, split, group_of(path))
        for folder in sorted(_class_folders(data))
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in ENDINGS and not path.name.startswith(".")
    ]
    if not cells:
        raise ConfigError(
            "holds no folders of pictures, one per class",
            data,
            "Give one folder per class, or a table with the columns path and label",
        )
    return cells


def _class_folders(data: Path) -> Iterator[Path]:
    for folder in data.iterdir():
        hidden = folder.name.startswith(".") or folder.name.lower() in _MASKS
        if folder.is_dir() and not hidden:
            yield folder


def _column(header: list[str], name: str) -> str:
    known = {column.strip().lower(): column for column in header}
    return next((known[k] for k in _COLUMNS[name] if k in known), "")


def _read_table(file: Path) -> list[Cell]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.DictReader(opened)
            rows, header = list(reader), list(reader.fieldnames or [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"cannot be read as a table ({error})", file) from None
    columns = {name: _column(header, name) for name in _COLUMNS}
    if not columns["path"] or not columns["label"]:
        raise ConfigError(
            "lacks a column path or label",
            file,
            "It needs path and label, and may have split and group",
        )
    return [_row(row, number, columns, file) for number, row in enumerate(rows, 2)]


def _row(
    row: Mapping[str, str | None], number: int, columns: Mapping[str, str], file: Path
) -> Cell:
    values = {name: (row.get(c) or "").strip() for name, c in columns.items() if c}
    if not values["path"] or not values["label"]:
        raise ConfigError(f"line {number} lacks a path or a label", file)
    path = file.parent / values["path"]
    split = values.get("split", "")
    split = _SPLITS.get(split.lower(), split)
    return Cell(path, values["label"], split, values.get("group") or group_of(path))
