"""Where the files of a project are, also after folders were moved.

A path relative to the project comes first, the absolute one second. A slide counts as
found only if its fingerprint is the stored one, so that another slide of the same name is
not taken for it. Moved slides are searched by name and length, below folders that the
caller names, to a limited depth and number of entries.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from napari_mcm.core.errors import McmError
from napari_mcm.core.project.model import Located, ProjectSlide
from napari_mcm.core.slides import open_slide
from napari_mcm.core.slides.paths import url_of

DEEPEST = 4
"""Folders below a start of a search, at most."""

MOST_ENTRIES = 20_000
"""Files and folders that one search looks at, at most."""

MOST_OPENED = 200
"""Files that one search opens to compare their content, at most."""


def place_beside(path: str | Path, project: Path) -> dict[str, str]:
    """Return a path as a project stores it.

    Parameters
    ----------
    path : str or Path
        File, folder or URL.
    project : Path
        The project file.

    Returns
    -------
    dict
        ``path``, relative to the project's folder and with slashes, and ``absolute``; a
        URL, or a path on another drive, has the latter only.
    """
    if (url := url_of(path)) is not None:
        return {"path": "", "absolute": url}
    absolute = os.path.abspath(path)
    try:
        relative = os.path.relpath(absolute, os.path.abspath(project.parent))
    except ValueError:  # another drive
        return {"path": "", "absolute": absolute}
    return {"path": Path(relative).as_posix(), "absolute": absolute}


def candidates(
    entry: Located, project: Path, folders: Iterable[str | Path] = ()
) -> list[Path]:
    """Return where a file of a project should be: relative first, absolute second.

    Parameters
    ----------
    entry : Located
        The file.
    project : Path
        The project file.
    folders : iterable of str or Path, optional
        Where else a file of that name may be.

    Returns
    -------
    list of Path
        Local paths; they need not exist.
    """
    found = []
    if entry.path and url_of(entry.path) is None:
        inside = project.parent / PurePosixPath(entry.path)
        found.append(Path(os.path.normpath(inside)))
    if entry.absolute and url_of(entry.absolute) is None:
        found.append(Path(entry.absolute))
    found += [Path(folder) / found[0].name for folder in folders if found]
    return list(dict.fromkeys(found))


def find_existing(
    entry: Located, project: Path, folders: Iterable[str | Path] = ()
) -> Path | None:
    """Return the first of a file's places that exists; its content is not compared.

    Parameters
    ----------
    entry : Located
        The file.
    project : Path
        The project file.
    folders : iterable of str or Path, optional
        Where else a file of that name may be.

    Returns
    -------
    Path or None
        A URL is returned as it is.
    """
    if (url := url_of(entry.absolute)) is not None:
        return Path(url)
    places = candidates(entry, project, folders)
    return next((path for path in places if _exists(path)), None)


def locate(
    slide: ProjectSlide, project: Path, folders: Iterable[str | Path] = ()
) -> Path | None:
    """Return the file of a slide where the project expects it.

    Parameters
    ----------
    slide : ProjectSlide
        The slide.
    project : Path
        The project file.
    folders : iterable of str or Path, optional
        Where else a file of that name may be: folders of other slides that moved.

    Returns
    -------
    Path or None
        None where there is no file, or another slide. A URL is returned as it is.
    """
    if (url := url_of(slide.absolute)) is not None:
        return Path(url)
    for path in candidates(slide, project, folders):
        if _exists(path) and _is_slide(path, slide.fingerprint):
            return path
    return None


@dataclass
class Search:
    """The result of a search for moved slides.

    Attributes
    ----------
    found : dict
        Fingerprint of a slide to its file.
    complete : bool
        Whether all folders were searched; False if there were too many entries.
    """

    found: dict[str, Path] = field(default_factory=dict)
    complete: bool = True


def find_moved(slides: Iterable[ProjectSlide], folders: Iterable[Path]) -> Search:
    """Search folders for slides, by their content.

    Parameters
    ----------
    slides : iterable of ProjectSlide
        The slides. Those without a fingerprint are not searched.
    folders : iterable of Path
        Where to look, with their subfolders; the first that holds a slide counts.

    Returns
    -------
    Search
        What was found.
    """
    wanted = {one.fingerprint: one for one in slides if one.fingerprint}
    result = Search()
    names, sizes = _by_name(wanted), {one.file_size for one in wanted.values()} - {0}
    opened = 0
    for number, entry in enumerate(_walk(folders)):
        missing = len(wanted) - len(result.found)
        if not missing:
            break
        if number >= MOST_ENTRIES or opened >= MOST_OPENED + 2 * len(result.found):
            result.complete = False
            break
        if not (entry.name.casefold() in names or _size(entry) in sizes):
            continue
        opened += 1
        mark = _fingerprint(Path(entry.path))
        if mark in wanted:
            result.found.setdefault(mark, Path(entry.path))
    return result


def _by_name(wanted: Mapping[str, ProjectSlide]) -> set[str]:
    paths = [one.path or one.absolute for one in wanted.values()]
    return {PurePosixPath(path.replace("\\", "/")).name.casefold() for path in paths}


def _walk(folders: Iterable[Path]) -> Iterator[os.DirEntry[str]]:
    """Give the entries below folders, level by level and in the order of their names."""
    waiting = deque((Path(folder), 0) for folder in dict.fromkeys(folders))
    seen: set[str] = set()
    while waiting:
        folder, depth = waiting.popleft()
        if (real := os.path.realpath(folder)) in seen:
            continue
        seen.add(real)
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            if entry.name.startswith(".") or entry.name.endswith(".features.zarr"):
                continue
            yield entry
            # The thousands of pieces inside an OME-Zarr are no slides.
            whole = entry.name.lower().endswith(".zarr")
            if depth < DEEPEST and not whole and _is_folder(entry):
                waiting.append((Path(entry.path), depth + 1))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size if entry.is_file() else -1
    except OSError:
        return -1


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _is_slide(path: Path, fingerprint: str) -> bool:
    return not fingerprint or _fingerprint(path) == fingerprint


def _fingerprint(path: Path) -> str:
    try:
        with open_slide(path) as slide:
            return slide.fingerprint
    except McmError:
        return ""
