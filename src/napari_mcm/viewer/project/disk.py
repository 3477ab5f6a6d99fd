"""What a project reads and writes, called in threads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_mcm.core import slides
from napari_mcm.core.errors import McmError, ProjectError
from napari_mcm.core.project import (
    ENDING,
    Project,
    ProjectSlide,
    find_existing,
    find_moved,
    keep_backup,
    locate,
    place_beside,
    read_project,
    rebase,
    stamp_of,
    write_project,
)
from napari_mcm.core.runtime.files import Stamp
from napari_mcm.core.slides.find import find_slides
from napari_mcm.core.slides.paths import slide_name, url_of
from napari_mcm.viewer.app import persistence

if TYPE_CHECKING:
    from napari_mcm.viewer.layers.metadata import LayerData

MOST_UNNAMED = 50
"""Projects in the settings folder, which got no name; the oldest are removed."""


@dataclass(frozen=True)
class Opened:
    """A slide of a project that was found and opened.

    Attributes
    ----------
    path : Path
        Its file or folder.
    layers : list of LayerData
        What the reader returned.
    """

    path: Path
    layers: list[LayerData]


@dataclass(frozen=True)
class Relocated:
    """The result of a search for missing slides.

    Attributes
    ----------
    found : dict
        Fingerprint to path.
    missing : int
        Number of slides that were missing before.
    complete : bool
        Whether all of the folder was searched.
    """

    found: dict[str, Path]
    missing: int
    complete: bool


def read(path: Path) -> tuple[Project, Stamp | None]:
    """Read a project, keep a copy of it, and remember it and its runs as recent.

    Raises
    ------
    ProjectError
        If it cannot be read.
    """
    stamp, project = stamp_of(path), read_project(path)
    # In a folder that cannot be written to there is no copy, and no save either.
    with suppress(McmError, OSError):
        keep_backup(path)
    for run in reversed(project.runs):
        if (found := find_existing(run, path)) is not None:
            persistence.remember_recent(persistence.RUNS, str(found))
    persistence.remember_recent(persistence.PROJECTS, str(path))
    return project, stamp


def write(path: Path, project: Project, stamps: dict[Path, Stamp | None]) -> str:
    """Write a project, unless another program has changed its file.

    Parameters
    ----------
    path : Path
        The project file.
    project : Project
        The project.
    stamps : dict
        Stamp of each file when this program last read or wrote it, which is updated.

    Returns
    -------
    str
        Empty; or in one line that another program has changed the file.

    Raises
    ------
    McmError
        If it cannot be written.
    """
    try:
        stamps[path] = write_project(path, project, stamps.get(path))
    except ProjectError as error:
        return str(error)
    if path.parent == unnamed_folder():
        _forget_oldest(path.parent)
    return ""


def write_at(path: Path, project: Project, old: Path | None) -> None:
    """Write a project to another file than before, and remember it as recent.

    Parameters
    ----------
    path : Path
        The project file, which is replaced.
    project : Project
        The project.
    old : Path or None
        The file that its paths are relative to; None if they are absolute.

    Raises
    ------
    McmError
        If it cannot be written.
    """
    write(path, rebase(project, old, path), {})
    persistence.remember_recent(persistence.PROJECTS, str(path))


def remove(path: Path) -> None:
    """Remove a project without a name, which is saved in another file now."""
    path.unlink(missing_ok=True)


def unnamed_folder() -> Path:
    """Return the folder of projects that the user did not name."""
    return persistence.settings_folder() / "projects"


def last_unnamed(current: Path | None) -> tuple[Path, Project] | None:
    """Return the newest project that the user did not name, if it has results.

    Parameters
    ----------
    current : Path or None
        The project that is open, which is left out.

    Returns
    -------
    tuple of Path and Project, or None
        None, too, if it cannot be read: nobody has asked for it.
    """
    files = [
        file
        for file in unnamed_folder().glob(f"*{ENDING}")
        if file != current and not file.name.endswith(f".backup{ENDING}")
    ]
    with suppress(McmError, OSError, ValueError):
        newest = max(files, key=lambda file: file.stat().st_mtime)
        project = read_project(newest)
        return (newest, project) if project.results else None
    return None


def with_ending(path: Path) -> Path:
    """Return a path with the ending of projects."""
    name = path.name
    if name.lower().endswith(ENDING):
        return path
    return path.with_name(name.removesuffix(".json").removesuffix(".mcm") + ENDING)


def is_local(slide: ProjectSlide) -> bool:
    """Return whether a slide is a local file: links are opened only on request."""
    return url_of(slide.absolute) is None and url_of(slide.path) is None


def list_slides(paths: Sequence[Path], project: Path | None) -> list[ProjectSlide]:
    """Return slides, and those in folders, as entries of a project.

    Raises
    ------
    SlideError
        If there is none.
    """
    return [describe(path, project, None) for path in find_slides(paths)]


def describe(path: str | Path, project: Path | None, mpp: float | None) -> ProjectSlide:
    """Return a slide as an entry of a project, without its fingerprint.

    Parameters
    ----------
    path : str or Path
        File, folder or URL of the slide.
    project : Path or None
        The project file.
    mpp : float or None
        Microns per level-0 pixel that the user entered.
    """
    place = (
        {"path": "", "absolute": url_of(path) or os.path.abspath(path)}
        if project is None
        else place_beside(path, project)
    )
    path, size = Path(path), 0
    with suppress(OSError):
        size = path.stat().st_size if path.is_file() else 0
    return ProjectSlide(**place, name=slide_name(path), file_size=size, mpp=mpp)


def identify(batch: Sequence[ProjectSlide], project: Path | None) -> dict[str, str]:
    """Return the fingerprints of slides by their path; empty where one cannot be read."""
    marks = {}
    for one in batch:
        marks[one.absolute] = ""
        path = _path_of(one, project)
        with suppress(McmError):
            if path is not None:
                with slides.open_slide(path) as slide:
                    marks[one.absolute] = slide.fingerprint
    return marks


def open_slide(
    entry: ProjectSlide, project: Path | None, folders: Iterable[str]
) -> Opened | None:
    """Open a slide of a project; None where its file is not found.

    Parameters
    ----------
    entry : ProjectSlide
        The slide.
    project : Path or None
        The project file.
    folders : iterable of str
        Where other slides of the project were found.

    Raises
    ------
    SlideError
        If the file cannot be read.
    """
    from napari_mcm.viewer.reader import read_slide

    folders = tuple(folders)
    path = _path_of(entry, project, folders)
    if path is None:
        near = [Path(folder) for folder in folders]
        near += [project.parent] if project is not None else []
        path = find_moved([entry], near).found.get(entry.fingerprint)
    return None if path is None else Opened(path, read_slide(path, entry.mpp))


def search(project: Project, path: Path | None, folder: Path) -> Relocated:
    """Look for the missing slides of a project in a folder.

    Parameters
    ----------
    project : Project
        The project.
    path : Path or None
        Its file.
    folder : Path
        Where to look, with subfolders.
    """
    base = path or Path("unnamed")
    missing = [one for one in project.slides if find_existing(one, base) is None]
    result = find_moved(missing, [folder])
    return Relocated(result.found, len(missing), result.complete)


def runs_since(runs: Iterable[Path], begun: float) -> list[Path]:
    """Return the runs that ended after a time, in seconds since 1970."""
    found = []
    for run in runs:
        with suppress(OSError):
            if (run / "summary.json").stat().st_mtime >= begun:
                found.append(run)
    return found


def _path_of(
    entry: ProjectSlide, project: Path | None, folders: Iterable[str] = ()
) -> Path | None:
    return locate(entry, project or Path("unnamed"), folders)


def _forget_oldest(folder: Path) -> None:
    files = sorted(folder.glob(f"*{ENDING}"), key=lambda file: file.stat().st_mtime)
    for file in files[: max(len(files) - MOST_UNNAMED, 0)]:
        file.unlink(missing_ok=True)
