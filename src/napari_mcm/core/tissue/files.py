"""Tissue masks in files: GeoJSON as QuPath reads and writes it, and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import ConfigError, GridError
from napari_mcm.core.runtime.files import atomic_path
from napari_mcm.core.slides import Slide
from napari_mcm.core.tissue.geojson import read_geojson, write_geojson
from napari_mcm.core.tissue.mask import TissueMask

if TYPE_CHECKING:
    from PIL.Image import Image

MASK_MPP = 8.0
LARGEST_PICTURE = 100_000_000
"""Largest number of pixels of a mask's picture; larger files are not read."""

GEOJSON, PICTURES = (".geojson", ".json"), (".png", ".tif", ".tiff")
ENDINGS = (*GEOJSON, *PICTURES)
WRITABLE = (".geojson", ".png")

_MODES = ("1", "L", "P")


def read_mask(path: str | Path, slide: Slide, mpp: float = MASK_MPP) -> TissueMask:
    """Read a tissue mask that was drawn by hand.

    Parameters
    ----------
    path : str or Path
        GeoJSON with polygons in level-0 pixels, as QuPath writes it: annotations of
        classes named Ignore, Background, Artefact, Pen or Hole are cut out,
        detections are ignored. Or a picture of the whole slide, PNG or TIFF of 1 or
        8 bit: tissue where it is not 0.
    slide : Slide
        The slide that the mask belongs to.
    mpp : float, optional
        Resolution in µm per pixel at which polygons are rasterised.

    Returns
    -------
    TissueMask
        Its source is the file's name.

    Raises
    ------
    GridError
        If the file is missing, damaged, holds no mask, or one of another slide.
    """
    path = Path(path)
    if path.suffix.lower() in GEOJSON:
        mask = read_geojson(path, slide, mpp)
    elif path.suffix.lower() in PICTURES:
        mask = _read_picture(path)
    else:
        raise GridError("is not a mask", path, f"Use {', '.join(ENDINGS)}")
    try:
        return TissueMask.from_array(mask, slide.size, path.name)
    except GridError as error:
        raise GridError(error.what, path, error.hint) from None


def write_mask(path: str | Path, mask: TissueMask, slide: Slide) -> None:
    """Write a tissue mask for other programs, or to edit it.

    Parameters
    ----------
    path : str or Path
        ``.geojson``: annotations of the class Tissue, polygons with holes in
        level-0 pixels. ``.png``: a picture of the mask, 0 and 255.
    mask : TissueMask
        Mask of this slide.
    slide : Slide
        Open slide, which names the annotations.

    Raises
    ------
    ConfigError
        If the file has another ending.
    McmError
        If it cannot be written.
    """
    path = Path(path)
    check_writable(path)
    if path.suffix.lower() == ".geojson":
        write_geojson(path, mask, slide.name)
        return
    from PIL import Image

    with atomic_path(path) as part:
        Image.fromarray(mask.mask.astype(np.uint8) * 255).save(part)


def check_writable(path: Path) -> None:
    """Check a mask's file ending before any long computation.

    Parameters
    ----------
    path : Path
        File to write.

    Raises
    ------
    ConfigError
        If masks cannot be written with this ending.
    """
    if path.suffix.lower() not in WRITABLE:
        raise ConfigError(
            "is not a mask file that can be written",
            path,
            f"Use {' or '.join(WRITABLE)}",
        )


def _read_picture(path: Path) -> NDArray[Any]:
    """Read a picture after checking its size.

    Raises
    ------
    GridError
        If it is missing, damaged, too large or not a picture.
    """
    import warnings

    from PIL import Image, UnidentifiedImageError

    bombs = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    try:
        with warnings.catch_warnings():
            # Pillow only warns about pictures that would take gigabytes.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                _check_picture(picture, path)
                return np.asarray(picture)
    except bombs:
        too_large = _too_large(path)
        raise too_large from None
    except FileNotFoundError:
        raise GridError("no such mask", path, "Check the path") from None
    except UnidentifiedImageError:
        raise GridError(
            "is not a picture", path, f"Use {', '.join(PICTURES)}"
        ) from None
    # Pillow's readers raise errors of several kinds for damaged files.
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise GridError(f"is damaged ({error})", path, "Save it again") from error


def _check_picture(picture: Image, path: Path) -> None:
    if picture.width * picture.height > LARGEST_PICTURE:
        raise _too_large(path)
    # A picture in colour is more likely a photograph of the slide than a mask.
    if picture.mode not in _MODES:
        raise GridError(
            f"is not a picture of 1 or 8 bit (Pillow's mode {picture.mode})",
            path,
            "Save it in black and white, tissue white",
        )


def _too_large(path: Path) -> GridError:
    return GridError(
        f"has more than {LARGEST_PICTURE // 1_000_000} million pixels",
        path,
        "Save the mask at a coarser resolution, about 8 µm per pixel",
    )
