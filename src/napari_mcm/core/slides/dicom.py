"""DICOM whole-slide images, through wsidicom."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from napari_mcm.core.errors import SlideError, TileError
from napari_mcm.core.slides.backend import Backend, Mpp, Place, SlideFile
from napari_mcm.core.slides.dicom_files import Found, files_of, looks_like_dicom
from napari_mcm.core.slides.foreign import library, said
from napari_mcm.core.slides.location import shown
from napari_mcm.core.slides.tiles import Pixels

_KEPT = 4 * 2**20


def _open(place: Place) -> SlideFile:
    if place.url is not None:
        raise SlideError("is not a local file", shown(place.path))
    wsidicom = library("wsidicom", "dicom", place.path)
    found = files_of(place, library("pydicom", "dicom", place.path))
    wsi = _opened(place.path, found, wsidicom)
    try:
        return _slide_file(place.path, found, wsi)
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
        # Tiles are cached once, above.
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
        f"cannot be read as a DICOM slide ({said(error)})",
        path,
        "Copy its files again from their source",
    )


def _slide_file(path: Path, found: Found, wsi: Any) -> SlideFile:
    pyramid = max(wsi.pyramids, key=lambda pyramid: pyramid[0].size.width)
    levels = sorted(pyramid, key=lambda level: level.size.width, reverse=True)
    used = {Path(str(file)).name for file in wsi.files}
    return SlideFile(
        levels=[FrameTiles(path, level) for level in levels],
        mpp=_mpp(levels[0]),
        properties=_properties(levels[0]),
        images=_images(path, wsi),
        icc_profile=partial(_icc_profile, levels[0]),
        files=[header.path for header in found.headers if header.is_level],
        warnings=[*found.warnings, *_oddities(found, used, wsi, levels[0])],
        close=wsi.close,
    )


def _oddities(found: Found, used: set[str], wsi: Any, level: Any) -> Iterator[str]:
    if unread := [h.path.name for h in found.headers if h.path.name not in used]:
        yield f"{', '.join(unread[:3])} cannot be read, and is left out"
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
    # Spacing is in millimetres; rounded, as decimal text became binary on the way.
    x, y = (round(float(mm) * 1000, 9) for mm in (spacing.width, spacing.height))
    return (x, y) if x > 0 and y > 0 else None


def _properties(level: Any) -> dict[str, str]:
    """Collect what is known of the scanner; never anything of the patient."""
    dataset, path = level.default_instance.dataset, _optical_path(level)
    stated = {
        "vendor": dataset.get("Manufacturer"),
        "model": dataset.get("ManufacturerModelName"),
        "objective": path.get("ObjectiveLensPower"),
        "compression": level.default_instance.image_data.transfer_syntax.name,
    }
    return {name: str(value) for name, value in stated.items() if value}


def _optical_path(level: Any) -> Any:
    sequence = level.default_instance.dataset.get("OpticalPathSequence")
    return sequence[0] if sequence else {}


def _icc_profile(level: Any) -> bytes | None:
    profile = _optical_path(level).get("ICCProfile")
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
            f"its {name} image cannot be decoded ({said(error)})", path
        ) from error


class FrameTiles:
    """One level, whose tiles are frames.

    Parameters
    ----------
    path : Path
        The file or folder, for messages.
    level : wsidicom level
        Open.

    Raises
    ------
    SlideError
        If it holds other pixels than 8-bit grey or RGB.
    """

    def __init__(self, path: Path, level: Any) -> None:
        image = level.default_instance.image_data
        if image.bits != 8 or image.samples_per_pixel not in (1, 3):
            raise SlideError(
                f"holds {image.samples_per_pixel} channel(s) of {image.bits} bits, "
                "not 8-bit RGB",
                path,
                "Convert it to an RGB pyramid",
            )
        self._path, self._level = path, level
        self.size = (level.size.width, level.size.height)
        self.tile_size = (level.tile_size.width, level.tile_size.height)
        # The table of frames is read with the first one, by one thread.
        self._first = threading.Lock()
        self._begun = False

    def decode(self, row: int, column: int) -> Pixels:
        """Decode one tile; see :class:`TileSource`.

        A tile that a sparse slide leaves out is background.
        """
        if not self._begun:
            with self._first:
                tile = self._decode(row, column)
                self._begun = True
                return tile
        return self._decode(row, column)

    def _decode(self, row: int, column: int) -> Pixels:
        from wsidicom.geometry import Point

        where = f"{self._path} (tile {column}, {row}, level {self.size[0]} px wide)"
        try:
            # Not wsi.read_tile, which makes up a missing frame from another level.
            pixels = np.asarray(self._level.get_tile(Point(column, row)))
        except Exception as error:  # noqa: BLE001
            raise TileError(f"cannot be decoded ({said(error)})", where) from error
        if pixels.ndim == 2:
            return np.repeat(pixels[..., None], 3, axis=2)
        return np.ascontiguousarray(pixels[..., :3])


BACKEND = Backend("DICOM", looks_like_dicom, _open, extra="dicom")
