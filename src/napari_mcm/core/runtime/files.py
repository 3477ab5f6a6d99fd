"""Atomic writing of files: readers never see a file that is half-written."""

from __future__ import annotations

import errno
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from napari_mcm.core.errors import McmError

Stamp = tuple[int, int, int]
"""Time of the last change, length and number of a file, which show that it changed."""

_ABANDONED_S = 600.0
"""A temporary file of this age belongs to a process that has died."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Provide a temporary path that becomes `path` when the block succeeds.

    The temporary file lies in the same folder, keeps the same ending (writers choose
    their format by it), is flushed to the disk before it is renamed, and is removed
    when the block fails.

    Parameters
    ----------
    path : Path
        The file to write; its folder is created.

    Yields
    ------
    Path
        Where the block must write.

    Raises
    ------
    McmError
        If the folder cannot be written to or the disk is full.
    """
    path = Path(path)
    ending = "".join(path.suffixes[-2:])
    part = path.with_name(f".part-{secrets.token_hex(6)}{ending}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with part.open("rb+") as written:
            os.fsync(written.fileno())
        part.replace(path)
    except OSError as error:
        raise McmError(
            f"cannot be written ({error.strerror or error})",
            path,
            "Check the folder's permissions and the free space on the disk",
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def stamp_of(path: Path) -> Stamp | None:
    """Return what shows that a file was changed; None if it does not exist.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    tuple of int or None
    """
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def remove_abandoned(folder: Path, ending: str) -> None:
    """Remove the temporary files that killed processes have left in a folder.

    Parameters
    ----------
    folder : Path
        A folder that :func:`atomic_path` writes to; it need not exist.
    ending : str
        Ending of the files to remove, such as ``.csv``.
    """
    oldest = time.time() - _ABANDONED_S
    with suppress(OSError):
        for entry in os.scandir(folder):
            is_part = entry.name.startswith(".part-") and entry.name.endswith(ending)
            if is_part and entry.stat().st_mtime < oldest:
                Path(entry.path).unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Flush a file to the disk, from the system's memory.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    OSError
        If that fails, for example because the disk is full.
    """
    with path.open("rb") as written:
        try:
            os.fsync(written.fileno())
        except OSError as error:
            # Some network file systems do not support it.
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise


def cache_folder(name: str) -> Path:
    """Return the folder for data that can be recomputed or downloaded; it may not exist yet.

    Parameters
    ----------
    name : str
        Name of the subfolder. All are in ``$NAPARI_MCM_CACHE``, or in the user's
        cache folder of this system.

    Returns
    -------
    Path
    """
    given = os.environ.get("NAPARI_MCM_CACHE")
    if given:
        return Path(given) / name
    return Path(user_cache_path("napari-mcm", appauthor=False)) / name


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8.

    Parameters
    ----------
    path : Path
        The file.
    text : str
        Its content.

    Raises
    ------
    McmError
        If it cannot be written.
    """
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically, indented for people and diffs.

    Parameters
    ----------
    path : Path
        The file.
    content : object
        Anything that JSON can hold.

    Raises
    ------
    McmError
        If it cannot be written.
    """
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
