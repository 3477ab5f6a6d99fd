"""The label file: a :class:`~.label_set.LabelSet` as JSON, with one label per line.

A file holds the old or the new labels at any moment: it is written beside its place and
renamed. What another program has put into it is checked before it is used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from napari_mcm.core.errors import LabelError
from napari_mcm.core.labelling.label_set import LabelClass, LabelSet, PatchLabel
from napari_mcm.core.runtime.files import (
    Stamp,
    atomic_path,
    remove_abandoned,
    stamp_of,
)

ENDING = ".labels.json"
"""Ending of label files, by convention."""

FORMAT, MAJOR, MINOR = "napari-mcm labels", 1, 0

MOST_BYTES = 512 * 2**20

_CLASSES = TypeAdapter(tuple[LabelClass, ...])
_LABELS = TypeAdapter(tuple[PatchLabel, ...])
_NAMES = TypeAdapter(dict[str, str])


def write_labels(
    path: str | Path, labels: LabelSet, before: Stamp | None = None
) -> Path:
    """Write labels to a file; a killed program leaves the labels that it held.

    Parameters
    ----------
    path : str or Path
        The file, by convention ``.labels.json``; its folder is created.
    labels : LabelSet
        Classes and labels.
    before : tuple of int, optional
        What :func:`~napari_mcm.core.runtime.files.stamp_of` returned when this program
        last read or wrote the file. If another program has changed it since, it is not
        overwritten.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    LabelError
        If another program has changed the file.
    McmError
        If it cannot be written.
    """
    path = Path(path)
    if before is not None and stamp_of(path) not in (before, None):
        raise LabelError(
            "was changed by another program since it was opened, and is not overwritten",
            path,
            "Save under another name; napari-mcm labels merge joins the two",
        )
    with atomic_path(path) as part, part.open("w", encoding="utf-8") as out:
        out.writelines(_lines(labels))
    remove_abandoned(path.parent, ENDING)
    return path


def _lines(labels: LabelSet) -> Iterator[str]:
    """Yield the text of a file: a line for each class and label, for people and diffs."""
    known = set(labels.slides)
    names = {key: name for key, name in labels.slide_names.items() if key in known}
    yield f'{{"format": {_json(FORMAT)}, "version": [{MAJOR}, {MINOR}],\n'
    yield f'"slides": {_json(names)},\n'
    yield from ('"classes": [', *_rows(labels.classes), "\n],\n")
    yield from ('"labels": [', *_rows(labels.labels), "\n]}\n")


def _rows(rows: Sequence[LabelClass | PatchLabel]) -> Iterator[str]:
    for number, row in enumerate(rows):
        # asdict copies deeply, which takes most of the time.
        known = {one.name: getattr(row, one.name) for one in fields(row)}
        yield (",\n" if number else "\n") + _json(known)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def read_labels(path: str | Path) -> LabelSet:
    """Read a label file, and check all of it.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    LabelSet
        Its classes and labels. Where a place has two labels, the later one.

    Raises
    ------
    LabelError
        If it is missing, damaged, of a newer version, or no label file.
    """
    path = Path(path)
    content = _load(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise LabelError(
            "is not a label file of napari-mcm", path, "Name a .labels.json file"
        )
    version = content.get("version")
    if not isinstance(version, list) or not version or version[0] != MAJOR:
        raise LabelError(
            f"has version {version}, this program reads {MAJOR}",
            path,
            "Update napari-mcm",
        )
    try:
        classes = _CLASSES.validate_python(content.get("classes", ()))
        labels = _LABELS.validate_python(content.get("labels", ()))
        names = _NAMES.validate_python(content.get("slides", {}))
        return LabelSet(classes, (), names).with_labels(labels)
    except ValidationError as error:
        problem = _damaged(path, _first(error))
    except LabelError as error:
        problem = _damaged(path, error.what)
    raise problem


def is_label_file(path: Path) -> bool:
    """Return whether a file is a label file, by its first bytes.

    Parameters
    ----------
    path : Path
        Any file.

    Returns
    -------
    bool
        False where it cannot be read.
    """
    with suppress(OSError), Path(path).open("rb") as opened:
        return FORMAT.encode() in opened.read(256)
    return False


def _load(path: Path) -> Any:
    """Return the JSON of a file.

    Raises
    ------
    LabelError
        If it cannot be read.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise LabelError("is too large for a label file", path)
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LabelError("no such label file", path, "Check the path") from None
    except OSError as error:
        raise LabelError(f"cannot be read ({error.strerror or error})", path) from None
    except (ValueError, RecursionError) as error:
        problem = _damaged(path, str(error))
    raise problem


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"entry {'.'.join(map(str, first['loc']))}: {first['msg']}"


def _damaged(path: Path, reason: str) -> LabelError:
    return LabelError(
        f"is damaged ({reason})", path, "Use a copy of it, or label in a new file"
    )
