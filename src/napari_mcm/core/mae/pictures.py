"""Picture files become pixels, and damaged ones a reason."""

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
_FORMATS = ("PNG", "JPEG", "JPEG2000", "BMP", "TIFF", "WEBP", "GIF", "PPM", "MPO")
# A picture is decoded as a whole; a file of a few bytes may claim any size.
_LARGEST = 150_000_000
_SMALLEST = 8
_TRANSPARENT = ("RGBA", "LA", "PA")
_DEEP = ("I", "F", "I;16", "I;16B", "I;16L")


def find_pictures(paths: Iterable[Path]) -> list[Path]:
    """List pictures: those that are named, and all below the folders that are named.

    Returns
    -------
    list of Path
        In the order of their names, each once; hidden files are left out.

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
                "holds no pictures", path, f"Known are {' '.join(ENDINGS)}"
            )
        found += inside
    return list(dict.fromkeys(found))


def picture_size(path: Path) -> tuple[int, int]:
    """Read a picture's width and height from its header.

    Raises
    ------
    SlideError
        If it is no picture, too large or too small, or not of 8 bits a channel.
    """
    with _opened(path) as image:
        return image.size


def read_picture(path: Path) -> Pixels:
    """Decode a picture as 8-bit RGB, what is transparent on white.

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
    # Truncated and damaged data, in each format's own way.
    except Exception as error:  # noqa: BLE001
        raise _refusal(path, error) from error


def on_white(pixels: Pixels) -> Pixels:
    """Lay colours (height, width, 3 or 4) on white, where they are transparent."""
    return np.asarray(_on_white(Image.fromarray(pixels)))


class PictureCache:
    """The pictures decoded last, up to some megabytes; for several threads.

    Parameters
    ----------
    megabytes : int
        Memory for pixels.
    """

    def __init__(self, megabytes: int) -> None:
        self._room = megabytes * 2**20
        self._held: OrderedDict[Path, Pixels] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: Path) -> Pixels:
        """Give a picture's pixels; see :func:`read_picture`."""
        with self._lock:
            if path in self._held:
                self._held.move_to_end(path)
                return self._held[path]
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
    try:
        image = Image.open(path, formats=_FORMATS)
    # Damaged headers fail in each format's own way.
    except Exception as error:  # noqa: BLE001
        raise _refusal(path, error) from error
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
    return SlideError(f"is no readable picture ({reason})", path)


def _on_white(image: Picture) -> Picture:
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    return image.convert("RGB")
