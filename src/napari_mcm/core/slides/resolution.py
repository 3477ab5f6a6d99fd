"""What a TIFF file says of its physical resolution. Never a guess."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import tifffile

Mpp = tuple[float, float]

# Screens and printers write 72 to 1200 dots per inch (353 to 21 µm) into files that know
# nothing of a microscope. No scanner's finest level is that coarse.
COARSEST_FROM_TAGS = 20.0

_MICRONS = {"nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6}


def stated_mpp(tiff: tifffile.TiffFile, page: tifffile.TiffPage) -> Mpp | None:
    """Find the microns per pixel of a file's finest level.

    Looks at the vendor's own statement first (Aperio's ``MPP``, OME's
    ``PhysicalSizeX/Y`` with its unit), then at the TIFF resolution tags.

    Returns
    -------
    tuple of float or None
        Along x and y; None where the file does not say.
    """
    if tiff.is_svs:
        return _from_aperio(page) or _from_tags(page)
    if tiff.is_ome:
        return _from_ome(tiff) or _from_tags(page)
    return _from_tags(page)


def _from_aperio(page: tifffile.TiffPage) -> Mpp | None:
    for part in page.description.split("|"):
        key, _, value = part.partition("=")
        if key.strip().upper() == "MPP":
            return _checked(value, value)
    return None


def _from_ome(tiff: tifffile.TiffFile) -> Mpp | None:
    images = (
        tifffile.xml2dict(tiff.ome_metadata or "<OME/>").get("OME", {}).get("Image", {})
    )
    first: Mapping[str, Any] = images[0] if isinstance(images, list) else images
    pixels = first.get("Pixels", {})
    found = []
    for axis in "XY":
        unit = _MICRONS.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        size = pixels.get(f"PhysicalSize{axis}")
        if unit is None or size is None:
            return None
        found.append(float(size) * unit)
    return _checked(*found)


def _from_tags(page: tifffile.TiffPage) -> Mpp | None:
    unit = {2: 25_400.0, 3: 10_000.0}.get(getattr(page.tags.get(296), "value", 2))
    densities = [getattr(page.tags.get(code), "value", None) for code in (282, 283)]
    if unit is None or not all(isinstance(d, tuple) and all(d) for d in densities):
        return None
    x, y = (unit * d[1] / d[0] for d in densities if d is not None)
    mpp = _checked(x, y)
    return mpp if mpp and max(mpp) <= COARSEST_FROM_TAGS else None


def _checked(x: Any, y: Any) -> Mpp | None:
    try:
        mpp = (float(x), float(y))
    except ValueError:
        return None
    return mpp if all(math.isfinite(m) and m > 0 for m in mpp) else None
