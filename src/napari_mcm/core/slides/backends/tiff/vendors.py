"""Resolution and scan properties as each scanner vendor writes them into TIFF files.

Resolutions are never guessed. Fields that may identify a patient (titles, users, file
names, barcodes, dates) are not read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from napari_mcm.core.slides.backend import Mpp

# Programs for screens and printers write 72 to 1200 dots per inch (353 to 21 µm) into
# files without a known scale. No scanner's finest level is that coarse.
COARSEST_FROM_TAGS = 20.0
_FINEST, _COARSEST = 0.005, 1000.0

_MICRONS = {"nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6}


def describe(tiff: tifffile.TiffFile, page: Any) -> tuple[Mpp | None, dict[str, str]]:
    """Read the resolution of a file's finest level, and its scan properties.

    The vendor's own statement comes first, then the TIFF resolution tags.

    Parameters
    ----------
    tiff : TiffFile
        Its XML, if any, must have been checked for entities.
    page : TiffPage
        The finest level.

    Returns
    -------
    mpp : tuple of float or None
        Microns per pixel along x and y; None where the file does not state it.
    properties : dict of str to str
        ``vendor``, ``objective``, ``scanner``, ``compression``.
    """
    for name, is_one, read in _VENDORS:
        if getattr(tiff, is_one):
            mpp, found = read(tiff, page)
            found = {"vendor": name} | {k: v for k, v in found.items() if v}
            break
    else:
        mpp, found = None, {}
    found["compression"] = str(tifffile.COMPRESSION(page.compression).name).lower()
    if 34675 in page.tags:
        found["icc_profile"] = "yes"
    # The tags come last: Philips and others write the size of a screen pixel there.
    return mpp or _from_tags(page), found


Described = tuple[Mpp | None, dict[str, Any]]


def _aperio(tiff: tifffile.TiffFile, page: Any) -> Described:
    stated = {}
    for part in page.description.split("|")[1:]:
        key, _, value = part.partition("=")
        stated[key.strip().upper()] = value.strip()
    mpp = stated.get("MPP")
    return checked(mpp, mpp), {"objective": stated.get("APPMAG")}


def _ome(tiff: tifffile.TiffFile, page: Any) -> Described:
    size = (str(page.imagewidth), str(page.imagelength))
    images = list(_all(tiff.ome_metadata, "Pixels"))
    same = [p for p in images if (p.get("SizeX"), p.get("SizeY")) == size]
    pixels = (same or images or [ElementTree.Element("Pixels")])[0].attrib
    found = []
    for axis in "XY":
        unit = _MICRONS.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        stated = _number(pixels.get(f"PhysicalSize{axis}"))
        found.append(stated * unit if stated and unit else None)
    objectives = [
        o.get("NominalMagnification") for o in _all(tiff.ome_metadata, "Objective")
    ]
    return checked(*found), {"objective": next(filter(None, objectives), None)}


def _hamamatsu(tiff: tifffile.TiffFile, page: Any) -> Described:
    lens = _number(page.tags.valueof(65421))
    objective = f"{lens:g}" if lens and lens > 0 else None
    return None, {"objective": objective, "scanner": page.tags.valueof(272)}


def _leica(tiff: tifffile.TiffFile, page: Any) -> Described:
    for image in _all(tiff.scn_metadata, "image"):
        pixels = next(_children(image, "pixels"), None)
        view = next(_children(image, "view"), None)
        if pixels is None or view is None:
            continue
        width, height = _number(pixels.get("sizeX")), _number(pixels.get("sizeY"))
        if (width, height) != (page.imagewidth, page.imagelength):
            continue
        nm = (_number(view.get("sizeX")), _number(view.get("sizeY")))
        objective = next((e.text for e in image.iter() if _is(e, "objective")), None)
        device = next((e.get("model") for e in image.iter() if _is(e, "device")), None)
        mpp = checked(
            *(
                n and s and n / s / 1000
                for n, s in zip(nm, (width, height), strict=True)
            )
        )
        return mpp, {"objective": objective, "scanner": device}
    return None, {}


def _ventana(tiff: tifffile.TiffFile, page: Any) -> Described:
    scan = next((i for p in tiff.pages for i in _all(xmp(p), "iScan")), None)
    if scan is None:
        return None, {}
    mpp = scan.get("ScanRes")
    return checked(mpp, mpp), {"objective": scan.get("Magnification")}


def _akoya(tiff: tifffile.TiffFile, page: Any) -> Described:
    names = [o.text or "" for o in _all(tiff.pages.first.description, "Objective")]
    return None, {"objective": (names or [""])[0].lower().rstrip("x")}


def _philips(tiff: tifffile.TiffFile, page: Any) -> Described:
    stated: dict[str | None, str] = {}
    for attribute in _all(tiff.philips_metadata, "Attribute"):
        stated.setdefault(attribute.get("Name"), attribute.text or "")
    # Along y first, in mm, in quotation marks.
    spacing = stated.get("DICOM_PIXEL_SPACING", "").replace('"', "").split()
    mm = [_number(value) for value in spacing]
    mpp = checked(mm[1] * 1000, mm[0] * 1000) if len(mm) == 2 and all(mm) else None  # type: ignore[operator]
    return mpp, {"scanner": stated.get("DICOM_MANUFACTURERS_MODEL_NAME")}


_VENDORS = (
    ("aperio", "is_svs", _aperio),
    ("hamamatsu", "is_ndpi", _hamamatsu),
    ("leica", "is_scn", _leica),
    ("ventana", "is_bif", _ventana),
    ("akoya", "is_qpi", _akoya),
    ("philips", "is_philips", _philips),
    ("ome", "is_ome", _ome),
)


def overlaps(tiff: tifffile.TiffFile) -> bool:
    """Return whether tiles of a Ventana file overlap, so that a plain read would be shifted.

    Parameters
    ----------
    tiff : TiffFile
        Open.

    Returns
    -------
    bool
    """
    joints = (j for p in tiff.pages for j in _all(xmp(p), "TileJointInfo"))
    return any(
        (_number(joint.get(f"Overlap{axis}")) or 0) != 0
        for joint in joints
        for axis in "XY"
    )


def xmp(page: Any) -> str:
    """Return a page's XMP packet as text.

    Parameters
    ----------
    page : TiffPage or TiffFrame
        Any page.

    Returns
    -------
    str
        "" where there is none.
    """
    value = page.keyframe.tags.valueof(700) or b""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _all(xml: str | None, name: str) -> Iterator[ElementTree.Element]:
    """Find elements by their name, whatever their namespace."""
    text = (xml or "").strip("\0 \r\n")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError):
        return iter(())
    return (e for e in root.iter() if _is(e, name))


def _children(parent: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    return (child for child in parent if _is(child, name))


def _is(element: ElementTree.Element, name: str) -> bool:
    return str(element.tag).rpartition("}")[2] == name


def _from_tags(page: Any) -> Mpp | None:
    unit = {2: 25_400.0, 3: 10_000.0}.get(getattr(page.tags.get(296), "value", 2))
    densities = [getattr(page.tags.get(code), "value", None) for code in (282, 283)]
    if unit is None or not all(isinstance(d, tuple) and all(d) for d in densities):
        return None
    mpp = checked(*(unit * d[1] / d[0] for d in densities if d is not None))
    return mpp if mpp and max(mpp) <= COARSEST_FROM_TAGS else None


def checked(x: Any, y: Any) -> Mpp | None:
    """Return two numbers as a resolution, if they are a plausible one.

    Parameters
    ----------
    x, y : object
        Microns per pixel, as the file states them.

    Returns
    -------
    tuple of float or None
        None where either is not a number from 0.005 to 1000 µm.
    """
    mpp = (_number(x), _number(y))
    if mpp[0] is None or mpp[1] is None:
        return None
    possible = all(_FINEST <= m <= _COARSEST for m in mpp if m is not None)
    return (mpp[0], mpp[1]) if possible else None


def _number(value: Any) -> float | None:
    try:
        number = float(np.asarray(value, float))
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
