"""Backend for the TIFF family, through tifffile and imagecodecs.

Aperio SVS, Hamamatsu NDPI, Leica SCN, Ventana BIF, Akoya QPTIFF, Philips TIFF,
OME-TIFF, generic pyramids, BigTIFF, tiles and strips.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import tifffile

from napari_mcm.core.errors import SlideError, TruncatedError
from napari_mcm.core.slides.backend import Backend, Place, SlideFile
from napari_mcm.core.slides.backends.tiff.layout import Layout, Planes, layout
from napari_mcm.core.slides.backends.tiff.tiles import (
    PageReader,
    count_missing,
    page_tiles,
)
from napari_mcm.core.slides.backends.tiff.vendors import describe, overlaps, xmp
from napari_mcm.core.slides.tiles import Pixels, assemble

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_NDPI_TAG = 65420
_LARGEST_IMAGE = 2**28
_MOST_PAGES = 10_000

# tifffile's log messages are replaced by our own warnings and errors.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def claims(place: Place) -> bool:
    """Return whether a place is a TIFF, by its first bytes.

    Parameters
    ----------
    place : Place
        The location to check.

    Returns
    -------
    bool
    """
    return place.head[:4] in _MAGIC


def open_tiff(place: Place) -> SlideFile:
    """Open a slide of the TIFF family.

    Parameters
    ----------
    place : Place
        A local file.

    Returns
    -------
    SlideFile
        Close it after use.

    Raises
    ------
    SlideError
        If its directory is damaged or malicious, or describes no slide.
    """
    # Damaged files make tifffile and struct raise many kinds of errors.
    try:
        tiff = _open(place)
    except Exception as error:  # noqa: BLE001
        raise SlideError(
            f"is not a readable TIFF ({error})",
            place.path,
            "It may be truncated: copy it again from its source",
        ) from error
    try:
        return _slide_file(place, tiff)
    except SlideError:
        tiff.close()
        raise
    except Exception as error:  # noqa: BLE001
        tiff.close()
        raise SlideError(
            f"its directory is damaged ({type(error).__name__}: {error})",
            place.path,
            "Copy the file again from its source",
        ) from error


def _open(place: Place) -> tifffile.TiffFile:
    """Open as NDPI if it is one by its tags; tifffile decides by the file's ending."""
    # Files named in the XML are untrusted, and never opened.
    open_as = partial(tifffile.TiffFile, place.path, _multifile=False)
    try:
        tiff = open_as(is_ndpi=False)
    except Exception:  # noqa: BLE001 - an NDPI of over 4 GB is no TIFF at all
        return open_as(is_ndpi=True)
    if _NDPI_TAG not in tiff.pages.first.tags:
        return tiff
    wide = open_as(is_ndpi=True)
    # Other programs write the tags of an NDPI into a plain TIFF.
    used, other = (wide, tiff) if len(wide.pages) else (tiff, wide)
    other.close()
    return used


def _slide_file(place: Place, tiff: tifffile.TiffFile) -> SlideFile:
    """Read levels, resolution and images of an open TIFF.

    Raises
    ------
    SlideError
        If it cannot be read as a slide.
    """
    name = str(place.path)
    _refuse_hostile(tiff, name)
    if tiff.is_bif and overlaps(tiff):
        raise SlideError(
            "its tiles overlap and must be stitched, which OpenSlide does",
            name,
            'pip install "napari-mcm[openslide]"',
        )
    found = layout(tiff, name)
    reader = PageReader(tiff, name)
    # Philips omits the tiles of bare glass; elsewhere a missing tile is damage.
    blank = bool(tiff.is_philips)
    main = found.levels[0][0].keyframe
    levels = [page_tiles(reader, planes, blank) for planes in found.levels]
    mpp, properties = describe(tiff, main)
    return SlideFile(
        levels=levels,
        mpp=mpp,
        properties=properties,
        images=_images(reader, found),
        icc_profile=lambda: _profile(main),
        warnings=found.warnings,
        close=tiff.close,
        truncation=_truncation(tiff, found, name),
    )


def _truncation(tiff: tifffile.TiffFile, found: Layout, name: str) -> str:
    """Say how many tiles lie beyond the end of the file.

    Raises
    ------
    TruncatedError
        If all do: nothing of the slide can be seen.
    """
    missing, tiles = count_missing(found.levels, tiff.filehandle.size)
    if not missing:
        return ""
    if missing == tiles:
        raise TruncatedError(
            f"is truncated: all of its {tiles:,} tiles are missing",
            name,
            "Copy the file again from its source",
        )
    return f"is truncated: {missing:,} of {tiles:,} tiles are missing"


def _refuse_hostile(tiff: tifffile.TiffFile, name: str) -> None:
    """Reject files that would keep a parser busy without end.

    Raises
    ------
    SlideError
        If it has too many pages, or its XML declares entities.
    """
    if len(tiff.pages) > _MOST_PAGES:
        raise SlideError(f"holds {len(tiff.pages)} pages, which no slide has", name)
    first = tiff.pages.first
    for text in (first.description, xmp(first)):
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise SlideError("its XML defines entities, which no scanner does", name)


def _images(reader: PageReader, found: Layout) -> dict[str, Callable[[], Pixels]]:
    return {
        kind: partial(_image, reader, planes) for kind, planes in found.images.items()
    }


def _image(reader: PageReader, planes: Planes) -> Pixels:
    tiles = page_tiles(reader, planes)
    width, height = tiles.size
    if width * height > _LARGEST_IMAGE:
        raise SlideError(
            f"its image of {width} x {height} px is too large", reader.name
        )
    return assemble(tiles, 0, 0, width, height)


def _profile(page: Any) -> bytes | None:
    value = page.tags.valueof(34675)
    return bytes(value) if value else None


BACKEND = Backend("tifffile", claims, open_tiff)
