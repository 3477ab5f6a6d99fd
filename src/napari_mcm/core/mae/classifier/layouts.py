"""Reading labelled images: tables, folders of classes, splits, and frames with boxes."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.mae.classifier.boxes import is_bccd, read_bccd
from napari_mcm.core.mae.classifier.cells import TRAIN, VALIDATION, Cell
from napari_mcm.core.mae.classifier.config import LabelsConfig
from napari_mcm.core.mae.pictures import ENDINGS

_SPLITS = {"train": TRAIN, "training": TRAIN, "val": VALIDATION}
_SPLITS |= {"valid": VALIDATION, "validation": VALIDATION}
_TEST = re.compile(r"^test\w*$", re.IGNORECASE)
# The course's folders keep images in data/ beside masks/.
_INNER, _MASKS = "data", ("mask", "masks")
_COLUMNS = {
    "path": ("path", "file", "filename", "image"),
    "label": ("label", "class"),
    "split": ("split",),
    "group": ("group", "field", "source_image", "slide", "patient"),
}
_TIME = re.compile(r"^(\d{8}_\d{6})")
_FRAME = re.compile(r"^(BloodImage_\d+)")


def read_cells(data: Path, config: LabelsConfig) -> list[Cell]:
    """Find labelled images, whatever the layout.

    Parameters
    ----------
    data : Path
        A table (``.csv``), a folder with a table ``index.csv``, a folder of classes, a
        folder of splits of classes (Raabin-WBC's ``Train/TestA/TestB``, the course's
        ``train/data/<Class>``), or BCCD's ``images`` and ``annotations``.
    config : LabelsConfig
        The layout, where it is not to be found out.

    Returns
    -------
    list of Cell

    Raises
    ------
    ConfigError
        If there is no such layout, or a table is damaged.
    """
    if not data.exists():
        raise ConfigError("no such file or folder", data, "Check the path")
    layout = _look(data) if config.layout == "auto" else config.layout
    if layout == "csv":
        return _read_table(data / "index.csv" if data.is_dir() else data)
    if not data.is_dir():
        raise ConfigError("is no folder", data, "Check --layout")
    if layout == "bccd":
        return read_bccd(data, config.box_margin)
    if layout == "splits":
        return [cell for split in _split_folders(data) for cell in _read_split(split)]
    return _read_folders(data, "")


def group_of(path: Path) -> str:
    """Tell by its name which field of view an image is of.

    A time (``20190531_113249_0.jpg``: Raabin-WBC) or a frame (``BloodImage_00008_1``:
    BCCD) that a name begins with; a name that says nothing is a group of its own.
    """
    for pattern in (_TIME, _FRAME):
        found = pattern.match(path.name)
        if found:
            return found.group(1)
    return path.name


def _look(data: Path) -> str:
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
            "holds no folders of pictures, one a class",
            data,
            "Or give a table with the columns path and label",
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
    told = {name: (row.get(c) or "").strip() for name, c in columns.items() if c}
    if not told["path"] or not told["label"]:
        raise ConfigError(f"line {number} lacks a path or a label", file)
    path = file.parent / told["path"]
    split = told.get("split", "")
    split = _SPLITS.get(split.lower(), split)
    return Cell(path, told["label"], split, told.get("group") or group_of(path))
