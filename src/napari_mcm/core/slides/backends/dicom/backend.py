"""Backend for DICOM whole-slide images, through wsidicom."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from napari_mcm.core.errors import SlideError
from napari_mcm.core.slides.backend import Backend, Mpp, Place, SlideFile
from napari_mcm.core.slides.backends.dicom.files import (
    Found,
    files_of,
    looks_like_dicom,
    optics_of,
)
from napari_mcm.core.slides.backends.dicom.tiles import FrameTiles
from napari_mcm.core.slides.backends.optional import import_optional, one_line
from napari_mcm.core.slides.paths import shown
from napari_mcm.core.slides.tiles import Pixels

_KEPT = 4 * 2**20


def _open(place: Place) -> SlideFile:
    if place.url is not None:
        raise SlideError("is not a local file", shown(place.path))
    wsidicom = import_optional("wsidicom", "dicom", place.path)
    pydicom = import_optional("pydicom", "dicom", place.path)
    found = files_of(place, pydicom)
    wsi = _opened(place.path, found, wsidicom)
    try:
        return _slide_file(place.path, found, wsi, pydicom)
    except SlideError:
        wsi.close()
        raise
    # Fields that are missing or damaged.
    except Exception as error:  # noqa: BLE001
        wsi.close()
        raise _damaged(place.path, error) from error


def _opened(path: Path, found: Found, wsidicom: Any) -> Any:
    settings = wsidicom.Settings(
        # A coarse level may well be one small tile.
        strict_tile_size_check=False,
        # Decoded tiles are cached above the backends; one cache is enough.
        decoded_frame_cache_size=_KEPT,
        encoded_frame_cache_size=_KEPT,
    )
    files = [header.path for header in found.headers]
    try:
        return wsidicom.WsiDicom.open(files, settings=settings)
    except Exception as error:  # noqa: BLE001
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> SlideError:
    return SlideError(
        f"cannot be read as a DICOM slide ({one_line(error)})",
        path,
        "Copy its files again from their source",
    )


def _slide_file(path: Path, found: Found, wsi: Any, pydicom: Any) -> SlideFile:
    pyramid = max(wsi.pyramids, key=lambda pyramid: pyramid[0].size.width)
    stored = sorted(pyramid, key=lambda level: level.size.width, reverse=True)
    finest = stored[0]
    levels, warnings = _levels(path, stored)
    used = {Path(str(file)).name for file in wsi.files}
    return SlideFile(
        levels=levels,
        mpp=_mpp(finest),
        properties=_properties(found, finest, pydicom),
        images=_images(path, wsi),
        icc_profile=partial(_icc_profile, found, pydicom),
        files=[header.path for header in found.headers if header.is_level],
        warnings=[
            *found.warnings,
            *warnings,
            *_oddities(found, used, wsi, finest),
        ],
        close=wsi.close,
    )


def _levels(path: Path, stored: list[Any]) -> tuple[list[FrameTiles], list[str]]:
    levels: list[FrameTiles] = []
    warnings = []
    for level in stored:
        try:
            levels.append(FrameTiles(path, level))
        except SlideError as error:
            # The finest level is required; a coarser one can be computed.
            if not levels:
                raise
            warnings.append(f"a level {level.size.width} px wide {error.what}")
    return levels, warnings


def _oddities(found: Found, used: set[str], wsi: Any, level: Any) -> Iterator[str]:
    if unread := [h.path.name for h in found.headers if h.path.name not in used]:
        yield f"{', '.join(unread[:3])} cannot be read, and is not used"
    if len(wsi.pyramids) > 1:
        yield f"it holds {len(wsi.pyramids)} images; the largest one is shown"
    if len(level.focal_planes) > 1:
        yield f"it has {len(level.focal_planes)} focal planes; the default is shown"
    if len(level.optical_paths) > 1:
        yield f"it has {len(level.optical_paths)} optical paths; the default is shown"


def _mpp(level: Any) -> Mpp | None:
    spacing = level.pixel_spacing
    if spacing is None:
        return None
    # Spacing is in millimetres. Rounded, to undo the conversion from decimal text.
    x, y = (round(float(mm) * 1000, 9) for mm in (spacing.width, spacing.height))
    return (x, y) if x > 0 and y > 0 else None


def _properties(found: Found, level: Any, pydicom: Any) -> dict[str, str]:
    """Collect the scan properties; never anything about the patient."""
    header, path = optics_of(found.finest, pydicom)
    power = path.get("ObjectiveLensPower")
    stated = {
        "vendor": header.get("Manufacturer"),
        "model": header.get("ManufacturerModelName"),
        "objective": f"{float(power):g}" if power else None,
        "compression": level.default_instance.image_data.transfer_syntax.name,
    }
    return {name: str(value) for name, value in stated.items() if value}


def _icc_profile(found: Found, pydicom: Any) -> bytes | None:
    profile = optics_of(found.finest, pydicom)[1].get("ICCProfile")
    return bytes(profile) if profile else None


def _images(path: Path, wsi: Any) -> dict[str, Callable[[], Pixels]]:
    kinds = {"label": wsi.labels, "overview": wsi.overviews}
    readers = {"label": wsi.read_label, "overview": wsi.read_overview}
    return {
        name: partial(_image, path, name, readers[name])
        for name, held in kinds.items()
        if held
    }


def _image(path: Path, name: str, read: Callable[[], Any]) -> Pixels:
    try:
        return np.asarray(read().convert("RGB"))
    except Exception as error:  # noqa: BLE001
        raise SlideError(
            f"its {name} image cannot be decoded ({one_line(error)})", path
        ) from error


BACKEND = Backend("DICOM", looks_like_dicom, _open, extra="dicom")
