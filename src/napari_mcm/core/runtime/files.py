"""Writing files so that nobody ever sees half of one."""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from napari_mcm.core.errors import McmError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path that becomes `path` when the block ends well.

    The temporary file lies in the same folder, keeps the same ending (writers choose
    their format by it), is flushed to the disk before it is renamed, and is removed
    when the block fails.

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


def flush(path: Path) -> None:
    """See that a file is on the disk, and not in the system's memory only.

    Raises
    ------
    OSError
        If it is not, as where the disk is full.
    """
    with path.open("rb") as written:
        try:
            os.fsync(written.fileno())
        except OSError as error:
            # Some network file systems know no such thing.
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise


def cache_folder(name: str) -> Path:
    """Name the folder for what can be made again; it need not exist yet.

    Parameters
    ----------
    name : str
        What is kept in it. All lie in ``$NAPARI_MCM_CACHE``, or where this system keeps
        caches of its user.
    """
    given = os.environ.get("NAPARI_MCM_CACHE")
    if given:
        return Path(given) / name
    return Path(user_cache_path("napari-mcm", appauthor=False)) / name


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8."""
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically, indented for people and diffs."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
