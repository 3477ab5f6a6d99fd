"""Backend for MRXS, VMS, Sakura and other vendors' files, through OpenSlide."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from math import isfinite
from pathlib import Path

from napari_mcm.core.errors import SlideError
from napari_mcm.core.slides.backend import Backend, Mpp, Place, SlideFile
from napari_mcm.core.slides.backends.openslide.tiles import (
    Handle,
    RegionTiles,
    bounds_of,
)
from napari_mcm.core.slides.backends.optional import import_optional, one_line
from napari_mcm.core.slides.paths import shown

_JPEG = b"\xff\xd8"
_CZI = b"ZISRAWFILE"
_SQLITE = b"SQLite format 3\0"
_SAKURA = "SELECT 1 FROM sqlite_master WHERE name = 'DataManagerSQLiteConfigXPO'"
_HAMAMATSU = (
    b"[Virtual Microscope Specimen]",
    b"[Uncompressed Virtual Microscope Specimen]",
)


def _claims(place: Place) -> bool:
    head = place.head
    if head.startswith(_JPEG):
        return mrxs_folder(place.path) is not None
    if head.startswith(_SQLITE):
        return _is_sakura(place.path)
    return head.startswith(_CZI) or head.lstrip().startswith(_HAMAMATSU)


def mrxs_folder(path: Path) -> Path | None:
    """Return the folder of an MRXS slide; the ``.mrxs`` file itself is only a small JPEG.

    Parameters
    ----------
    path : Path
        Any JPEG file.

    Returns
    -------
    Path or None
        None beside any other JPEG.
    """
    folder = path.with_suffix("")
    return folder if (folder / "Slidedat.ini").is_file() else None


def _is_sakura(path: Path) -> bool:
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        with closing(sqlite3.connect(uri, uri=True)) as database:
            return database.execute(_SAKURA).fetchone() is not None
    except (sqlite3.Error, ValueError):
        return False


def _open(place: Place) -> SlideFile:
    if place.url is not None or place.is_dir:
        raise SlideError("is not a local file", shown(place.path))
    handle = Handle(place.path, import_optional("openslide", "openslide", place.path))
    try:
        return _slide_file(place, handle)
    except SlideError:
        handle.close()
        raise
    # OpenSlide and the conversions below raise several kinds of errors for bad values.
    except Exception as error:  # noqa: BLE001
        handle.close()
        raise SlideError(
            f"is damaged ({one_line(error)})",
            place.path,
            "Copy the file again from its source",
        ) from error


def _slide_file(place: Place, handle: Handle) -> SlideFile:
    slide = handle.get()
    stated = dict(slide.properties)
    return SlideFile(
        levels=[RegionTiles(handle, level) for level in range(slide.level_count)],
        mpp=_mpp(stated),
        # OpenSlide's own factors, with which it maps level-0 positions to a level.
        downsamples=[(float(d), float(d)) for d in slide.level_downsamples],
        properties=_properties(stated),
        images={
            str(name): partial(handle.image, str(name))
            for name in slide.associated_images
        },
        icc_profile=handle.icc_profile,
        files=_files(place),
        close=handle.close,
    )


def _mpp(stated: Mapping[str, str]) -> Mpp | None:
    try:
        mpp = (float(stated["openslide.mpp-x"]), float(stated["openslide.mpp-y"]))
    except (KeyError, ValueError):
        return None
    return mpp if all(isfinite(m) and m > 0 for m in mpp) else None


def _properties(stated: Mapping[str, str]) -> dict[str, str]:
    names = {"vendor": "openslide.vendor", "objective": "openslide.objective-power"}
    found = {name: stated[key] for name, key in names.items() if key in stated}
    if bounds := bounds_of(stated):
        found["bounds"] = "x {}, y {}, width {}, height {}".format(*bounds)
    return found


def _files(place: Place) -> list[Path]:
    """Return the files that identify a slide: those that list its tiles.

    The file that is opened may be the same for all slides of a scanner: an MRXS file is
    a small picture, a VMS file a list of names.
    """
    beside: list[Path] = []
    if place.head.startswith(_JPEG) and (folder := mrxs_folder(place.path)):
        beside = [folder / "Slidedat.ini", *folder.glob("[Ii]ndex.dat")]
    elif place.head.lstrip().startswith(_HAMAMATSU):
        text = place.head.decode("utf-8", "replace")
        # Names only: the file is untrusted and must not lead to another folder.
        named = (Path(line.partition("=")[2].strip()).name for line in text.split("\n"))
        beside = [place.path.parent / name for name in named if name]
    return [place.path, *(file for file in beside if file.is_file())]


BACKEND = Backend("OpenSlide", _claims, _open, extra="openslide", last_resort=True)
