"""Reading and writing of project files: never half-written, and the last good one kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from napari_mcm.core.errors import ProjectError
from napari_mcm.core.project.model import FORMAT, MAJOR, MINOR, Project, ProjectSlide
from napari_mcm.core.runtime.files import (
    Stamp,
    atomic_path,
    remove_abandoned,
    stamp_of,
)

ENDING = ".mcm.json"

MOST_BYTES = 256 * 2**20

_BACKUP = ".backup" + ENDING


def write_project(path: Path, project: Project, before: Stamp | None = None) -> Stamp:
    """Write a project to a file; it holds the old or the new content at any moment.

    Parameters
    ----------
    path : Path
        The file, by convention ``.mcm.json``.
    project : Project
        The project.
    before : tuple of int, optional
        What :func:`stamp_of` returned when this program last read or wrote the file. If
        another program has changed it since, it is not overwritten.

    Returns
    -------
    tuple of int
        The new stamp.

    Raises
    ------
    ProjectError
        If another program has changed the file.
    McmError
        If the file cannot be written.
    """
    path = Path(path)
    if before is not None and stamp_of(path) not in (before, None):
        raise ProjectError(
            "was changed by another program since it was opened, and is not overwritten",
            path,
            "Use Save project as… with another name, or open the project again",
        )
    text = _as_text(project)
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8")
    remove_abandoned(path.parent, ENDING)
    return stamp_of(path) or (0, 0, 0)


def _as_text(project: Project) -> str:
    """Return the content of a project's file, with a line for each slide and row.

    Each is made on its own: one call for ten thousand would hold Python's lock for half a
    second, in which no other thread runs.
    """
    lists = {"slides": project.slides, "results": project.results}
    rest = project.model_copy(update=dict.fromkeys(lists, ()))
    parts = [rest.model_dump_json(exclude_defaults=True).removesuffix("}")]
    for name, entries in lists.items():
        if entries:
            lines = (one.model_dump_json(exclude_defaults=True) for one in entries)
            parts.append(f',\n"{name}": [\n' + ",\n".join(lines) + "\n]")
    return "".join((*parts, "\n}\n"))


def backup_of(path: Path) -> Path:
    """Return the file that keeps a project as it was when it was opened last.

    Parameters
    ----------
    path : Path
        The project file.

    Returns
    -------
    Path
        ``NAME.backup.mcm.json`` in the same folder; it need not exist.
    """
    name = path.name
    stem = name[: -len(ENDING)] if name.lower().endswith(ENDING) else path.stem
    return path.with_name(stem.removesuffix(".backup") + _BACKUP)


def thumbnail_of(path: Path, fingerprint: str) -> Path:
    """Return the file of a slide's thumbnail, in a folder beside the project.

    Parameters
    ----------
    path : Path
        The project file.
    fingerprint : str
        Fingerprint of the slide.

    Returns
    -------
    Path
        ``NAME.thumbnails/FINGERPRINT.png``; it need not exist.
    """
    name = path.name
    stem = name[: -len(ENDING)] if name.lower().endswith(ENDING) else path.stem
    return path.with_name(f"{stem}.thumbnails") / f"{fingerprint}.png"


def keep_backup(path: Path) -> None:
    """Keep a copy of a project file that was just read without error.

    Parameters
    ----------
    path : Path
        The project file. A file that is a backup itself is not copied.

    Raises
    ------
    McmError
        If the copy cannot be written.
    """
    kept = backup_of(path)
    if kept != path and path.is_file():
        with atomic_path(kept) as part:
            part.write_bytes(path.read_bytes())


def read_project(path: Path) -> Project:
    """Read a project file and check all of it.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Project
        The project. Fields of a later minor version are in it, too.

    Raises
    ------
    ProjectError
        If the file is missing, damaged, too large, no project, or of a newer version.
    """
    path = Path(path)
    try:
        return _parse(path)
    except ProjectError as error:
        kept = backup_of(path)
        hint = error.hint
        if not hint and kept != path and kept.is_file():
            hint = f"Open {kept.name}, the copy from when it was opened last"
        raise ProjectError(error.what, path, hint) from None


def _parse(path: Path) -> Project:
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)  # one too many shows a larger file
    except OSError as error:
        raise ProjectError(f"cannot be read ({error.strerror or error})") from None
    if len(raw) > MOST_BYTES:
        raise ProjectError(f"is larger than {MOST_BYTES >> 20} MiB")
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        raise ProjectError("is damaged: it is not JSON") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ProjectError("is no project of napari-mcm")
    _check_version(content.get("version"))
    project = _validate(content)
    _check_text(raw, project)
    return project


def _validate(content: dict[str, Any]) -> Project:
    """Check the content of a file; each slide on its own, as it is written.

    Raises
    ------
    ProjectError
        If it is not a project.
    """
    at: tuple[str | int, ...] = ()
    slides, checked = content.get("slides"), []
    try:
        for number, slide in enumerate(slides if isinstance(slides, list) else ()):
            at = ("slides", number)
            checked.append(ProjectSlide.model_validate(slide))
        at = ()
        if isinstance(slides, list):
            content = {**content, "slides": checked}
        return Project.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, (*at, *first["loc"])))
        raise ProjectError(f"is damaged: {where}: {first['msg']}") from None


def _check_text(raw: bytes, project: Project) -> None:
    """Refuse text that could not be written again: halves of characters.

    Raises
    ------
    ProjectError
        If there is such text.
    """
    if b"\\ud" in raw.lower():
        try:
            project.model_dump_json()
        except ValueError:
            raise ProjectError("is damaged: it holds text that is no text") from None


def _check_version(version: object) -> None:
    major = str(version).partition(".")[0]
    if major.isdecimal() and len(major) < 5 and int(major) > MAJOR:
        raise ProjectError(
            f"was written by a newer version (format {str(version)[:20]}, this program "
            f"reads up to {MAJOR}.{MINOR} and all {MAJOR}.x)",
            hint="Update napari-mcm",
        )
