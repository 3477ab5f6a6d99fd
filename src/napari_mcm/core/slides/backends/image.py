"""Backend for ordinary pictures (PNG, JPEG, WebP, BMP): regions, fields of view and cells."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_mcm.core.errors import SlideError, TileError
from napari_mcm.core.slides.backend import Backend, Place, SlideFile
from napari_mcm.core.slides.backends.openslide.backend import mrxs_folder
from napari_mcm.core.slides.backends.optional import one_line
from napari_mcm.core.slides.paths import shown
from napari_mcm.core.slides.tiles import Pixels

if TYPE_CHECKING:
    from PIL.Image import Image

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)
# Pixels. A picture is decoded as a whole: this many take 1 GB.
_LARGEST = 350_000_000
# Bytes. Scanners' colour profiles are larger than Pillow's default limit for PNG.
_LARGEST_PROFILE = 16 * 2**20
_TILE = 512
_TRANSPARENT = ("RGBA", "LA", "PA")
_READ = ("1", "L", "P", "RGB", "CMYK", "YCbCr", *_TRANSPARENT)


def _claims(place: Place) -> bool:
    head = place.head
    if head.startswith(_JPEG):
        # An MRXS slide begins with a JPEG of its label.
        return mrxs_folder(place.path) is None
    if head.startswith(b"BM"):
        return int.from_bytes(head[14:18], "little") in _BMP_HEADERS
    return head.startswith(_PNG) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def _open(place: Place) -> SlideFile:
    path = place.path
    if place.url is not None or place.is_dir:
        raise SlideError("is not a local file", shown(path))
    try:
        with _picture(path) as image:
            size, mode, kind = image.size, image.mode, str(image.format)
            profile = image.info.get("icc_profile")
    # Each format's reader raises its own errors for damaged headers.
    except Exception as error:  # noqa: BLE001
        raise _refusal(path, error) from error
    if size[0] * size[1] > _LARGEST:
        raise _too_large(path)
    if mode not in _READ:
        raise SlideError(
            f"holds 16-bit or floating-point pixels (mode {mode}), not 8-bit RGB",
            path,
            "Convert it to 8-bit RGB",
        )
    tiles = PictureTiles(path, size)
    # A profile of ink or grey does not apply to the RGB computed from them.
    of_rgb = mode in ("RGB", "RGBA", "P") and profile
    return SlideFile(
        levels=[tiles],
        # Dots per inch describe a screen or a printer, never a microscope.
        mpp=None,
        properties={"compression": kind.lower()},
        icc_profile=lambda: profile if of_rgb else None,
        warnings=_oddities(place.head),
        close=tiles.close,
    )


def _oddities(head: bytes) -> list[str]:
    if head.startswith(_PNG) and head[24] == 16:
        return ["its 16 bits per channel are read as 8"]
    return []


def _refusal(path: Path, error: Exception) -> SlideError:
    from PIL.Image import DecompressionBombError

    if isinstance(error, DecompressionBombError):
        return _too_large(path)
    return SlideError(
        f"is not a readable picture ({one_line(error)})",
        path,
        "Copy the file again from its source",
    )


def _too_large(path: Path) -> SlideError:
    return SlideError(
        f"is a picture of more than {_LARGEST // 10**6} megapixels, which must be "
        "decoded as a whole",
        path,
        "Convert it to a tiled TIFF",
    )


@contextmanager
def _picture(path: Path) -> Iterator[Image]:
    """Open a picture and read its header."""
    from PIL import Image, PngImagePlugin

    limit = max(PngImagePlugin.MAX_TEXT_CHUNK, _LARGEST_PROFILE)
    PngImagePlugin.MAX_TEXT_CHUNK = limit
    with warnings.catch_warnings():
        # Pillow warns from half the size that it refuses.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path, formats=_FORMATS) as image:
            yield image


class PictureTiles:
    """A picture that is decoded as a whole when its first tile is read.

    Parameters
    ----------
    path : Path
        The file.
    size : tuple of int
        Width and height in pixels.

    Attributes
    ----------
    size : tuple of int
        Width and height in pixels.
    tile_size : tuple of int
        Width and height of a tile in pixels.
    """

    tile_size = (_TILE, _TILE)

    def __init__(self, path: Path, size: tuple[int, int]) -> None:
        self.size = size
        self._path = path
        self._lock = threading.Lock()
        self._pixels: Pixels | None = None
        self._problem: str | None = None

    def decode(self, row: int, column: int) -> Pixels:
        """Return one tile; see :class:`TileSource`.

        Parameters
        ----------
        row, column : int
            Index of the tile.

        Returns
        -------
        ndarray of uint8, shape (height, width, 3)
            The tile, cropped to the picture.

        Raises
        ------
        TileError
            If the picture is damaged, has changed or is closed.
        """
        x, y = column * _TILE, row * _TILE
        return self._whole()[y : y + _TILE, x : x + _TILE].copy()

    def close(self) -> None:
        """Drop the pixels; reading after that is an error."""
        with self._lock:
            self._pixels, self._problem = None, "it is closed"

    def _whole(self) -> Pixels:
        with self._lock:
            if self._pixels is None and self._problem is None:
                try:
                    self._pixels = self._decoded()
                # Each format's reader raises its own errors for truncated and damaged data.
                except Exception as error:  # noqa: BLE001
                    self._problem = one_line(error)
            if self._pixels is None:
                raise TileError(f"cannot be decoded ({self._problem})", self._path)
            return self._pixels

    def _decoded(self) -> Pixels:
        # As stored: applying the EXIF orientation would swap x and y against other readers.
        with _picture(self._path) as image:
            pixels = np.asarray(_on_white(image))
        if pixels.shape[1::-1] != self.size:
            raise ValueError(f"it is now {pixels.shape[1]} x {pixels.shape[0]} px")
        return pixels


def _on_white(image: Image) -> Image:
    from PIL import Image as Images

    if image.mode in _TRANSPARENT or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Images.new("RGB", image.size, "white")
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    return image.convert("RGB")


BACKEND = Backend("picture", _claims, _open)
