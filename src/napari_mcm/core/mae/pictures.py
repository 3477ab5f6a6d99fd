"""Picture files: finding them, checking their headers, decoding them safely.

Pictures come from anywhere, and a file of a few bytes may claim any size: headers are checked
before anything is decoded, and every decoder's error becomes a :class:`SlideError`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_mcm.core.errors import ConfigError, SlideError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture


Pixels = NDArray[np.uint8]

ENDINGS = (
    ".png", ".jpg", ".jpeg", ".jp2", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm",
)  # fmt: skip

# Only these decoders: Pillow's others are not needed, and some run external programs.
_FORMATS = ("PNG", "JPEG", "JPEG2000", "BMP", "TIFF", "WEBP", "GIF", "PPM", "MPO")

# A picture is decoded as a whole; a file of a few bytes may claim any size.
_LARGEST = 150_000_000

_SMALLEST = 8

_TRANSPARENT = ("RGBA", "LA", "PA")

# Pillow's conversion of these modes to RGB clips values instead of scaling them.
_DEEP = ("I", "F", "I;16", "I;16B", "I;16L")


def find_pictures(paths: Iterable[Path]) -> list[Path]:
    """List picture files: those that are named, and all below the folders that are named.

    Parameters
    ----------
    paths : iterable of Path
        Files and folders.

    Returns
    -------
    list of Path
        Sorted by name within each folder, each file once; hidden files are left out.

    Raises
    ------
    ConfigError
        If a path does not exist, or a folder holds no picture.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise ConfigError("no such file or folder", path, "Check the path")
        inside = sorted(_below(path)) if path.is_dir() else [path]
        if not inside:
            raise ConfigError(
                "holds no pictures", path, f"Supported are {' '.join(ENDINGS)}"
            )
        found += inside
    # A picture that is named and lies in a named folder counts once.
    return list(dict.fromkeys(found))


def picture_size(path: Path) -> tuple[int, int]:
    """Read a picture's size from its header.

    Parameters
    ----------
    path : Path
        The picture.

    Returns
    -------
    tuple of int
        Width and height, in pixels.

    Raises
    ------
    SlideError
        If it is not a picture, is too large or too small, or has not 8 bits per channel.
    """
    with _opened(path) as image:
        return image.size


def read_picture(path: Path) -> Pixels:
    """Decode a picture as 8-bit RGB, with transparent parts on white.

    Parameters
    ----------
    path : Path
        The picture.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)

    Raises
    ------
    SlideError
        If it cannot be decoded.
    """
    try:
        with _opened(path) as image:
            return np.asarray(_on_white(image))
    except SlideError:
        raise
    # Each format's decoder raises its own errors on truncated and damaged data.
    except Exception as error:  # noqa: BLE001
        refusal = _refusal(path, error)
        raise refusal from error


def on_white(pixels: Pixels) -> Pixels:
    """Blend transparent colours with white.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (height, width, 3) or (height, width, 4)
        RGB or RGBA.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        RGB.
    """
    return np.asarray(_on_white(Image.fromarray(pixels)))


class PictureCache:
    """Least-recently-used cache of decoded pictures, safe for several threads.

    Parameters
    ----------
    megabytes : int
        Memory for pixels, in MiB.
    """

    def __init__(self, megabytes: int) -> None:
        self._room = megabytes * 2**20
        self._held: OrderedDict[Path, Pixels] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: Path) -> Pixels:
        """Return a picture's pixels, decoding it if it is not cached.

        Parameters
        ----------
        path : Path
            The picture.

        Returns
        -------
        ndarray of uint8, shape (height, width, 3)

        Raises
        ------
        SlideError
            If it cannot be decoded.
        """
        with self._lock:
            if path in self._held:
                self._held.move_to_end(path)
                return self._held[path]
        # Decoded outside of the lock, so that several threads decode at the same time.
        pixels = read_picture(path)
        with self._lock:
            self._held[path] = pixels
            while sum(p.nbytes for p in self._held.values()) > self._room:
                self._held.popitem(last=False)
        return pixels


def _below(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in ENDINGS and not hidden and path.is_file():
            yield path


def _opened(path: Path) -> Picture:
    """Open a picture whose size and depth can be handled.

    Raises
    ------
    SlideError
        If it is not a picture, is too large or too small, or has not 8 bits per channel.
    """
    try:
        image = Image.open(path, formats=_FORMATS)
    # Each format's decoder raises its own errors on damaged headers.
    except Exception as error:  # noqa: BLE001
        refusal = _refusal(path, error)
        raise refusal from error
    problem = _problem(image)
    if problem:
        image.close()
        raise SlideError(problem, path)
    return image


def _problem(image: Picture) -> str:
    width, height = image.size
    if width * height > _LARGEST:
        return f"is a picture of more than {_LARGEST // 10**6} megapixels"
    if min(width, height) < _SMALLEST:
        return f"is a picture of {width} x {height} pixels"
    if image.mode in _DEEP:
        return f"holds 16-bit or floating-point pixels (mode {image.mode})"
    return ""


def _refusal(path: Path, error: Exception) -> SlideError:
    if isinstance(error, Image.DecompressionBombError):
        return SlideError("is a picture of too many megapixels", path)
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return SlideError(f"is not a readable picture ({reason})", path)


def _on_white(image: Picture) -> Picture:
    # White is the background of slides; convert("RGB") would show what alpha hides.
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    return image.convert("RGB")
