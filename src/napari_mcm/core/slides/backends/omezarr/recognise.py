"""Recognise OME-Zarr without importing zarr, which takes longer than opening a slide."""

from __future__ import annotations

import errno
import zipfile
from pathlib import Path

from napari_mcm.core.slides.backend import Place

MARKERS = (".zattrs", ".zgroup", "zarr.json")
"""Every group contains one of these files."""

_ZIP = b"PK\x03\x04"


def looks_like_zarr(place: Place) -> bool:
    """Return whether a place may hold a zarr group, without opening it. Every URL may.

    Parameters
    ----------
    place : Place
        The location to check.

    Returns
    -------
    bool
    """
    if place.url is not None:
        return True
    if place.is_dir:
        return any((place.path / marker).is_file() for marker in MARKERS)
    return place.head.startswith(_ZIP) and root_in_zip(place.path) is not None


def root_in_zip(path: Path) -> str | None:
    """Find the outermost group: an archive holds a folder's content, or the folder itself.

    Parameters
    ----------
    path : Path
        The archive.

    Returns
    -------
    str or None
        Path of the group in the archive; None where there is none.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (ValueError, zipfile.BadZipFile, NotImplementedError):
        return None
    except OSError as error:
        # A damaged directory leads to places that no file has.
        if error.errno == errno.EINVAL:
            return None
        raise
    groups = [name for name in names if name.rpartition("/")[2] in MARKERS]
    outermost = min(groups, key=lambda name: name.count("/"), default=None)
    return None if outermost is None else outermost.rpartition("/")[0]
