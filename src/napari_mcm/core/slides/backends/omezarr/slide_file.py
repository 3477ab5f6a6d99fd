"""An OME-Zarr file as a slide: levels, label and macro, warnings and identity."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial

from napari_mcm.core.errors import SlideError
from napari_mcm.core.slides.backend import Place, SlideFile
from napari_mcm.core.slides.backends.omezarr.images import Image, images_of
from napari_mcm.core.slides.backends.omezarr.store import (
    StoreLocation,
    open_location,
)
from napari_mcm.core.slides.backends.omezarr.tiles import sampled_pixels
from napari_mcm.core.slides.tiles import Pixels, assemble

_TOLERANCE = 0.02
_LARGEST_PICTURE = 100_000_000
_RGB = ("FF0000", "00FF00", "0000FF")


def open_omezarr(place: Place) -> SlideFile:
    """Open an OME-Zarr file.

    Parameters
    ----------
    place : Place
        Folder, zip archive or URL.

    Returns
    -------
    SlideFile
        Its levels and what it states.

    Raises
    ------
    SlideError
        If it cannot be opened, or a required library is missing.
    """
    location = open_location(place)
    try:
        return _slide_file(location)
    except BaseException:
        location.close()
        raise


def _slide_file(location: StoreLocation) -> SlideFile:
    images, warnings = images_of(location)
    # The largest image without the name of a label or macro is the slide.
    slide = max(images, key=lambda image: (image.kind is None, image.area))
    others = [image for image in images if image is not slide]
    if more := [image.group for image in others if image.kind is None]:
        warnings.append(
            f"it holds {len(more)} more image(s) ({', '.join(more[:4])}); "
            "the largest one is shown"
        )
    return SlideFile(
        levels=slide.levels,
        mpp=slide.mpp,
        properties={"vendor": "ome-zarr", "compression": slide.levels[0].compression},
        images={
            image.kind: partial(_picture, location, image)
            for image in others
            if image.kind
        },
        identity=partial(_identity, slide),
        warnings=[*slide.warnings, *_oddities(slide), *warnings],
        close=location.close,
    )


def _picture(location: StoreLocation, image: Image) -> Pixels:
    """Read a label or macro image whole.

    Raises
    ------
    SlideError
        If it has too many pixels.
    """
    if image.area > _LARGEST_PICTURE:
        raise SlideError(f"its {image.kind} image is too large to show", location.where)
    return assemble(image.levels[0], 0, 0, *image.levels[0].size)


def _identity(slide: Image) -> bytes:
    """Return bytes that identify a slide, independent of location and packing."""
    described = json.dumps(slide.described.document, sort_keys=True)
    sizes = [level.size for level in slide.levels]
    return f"{described}{sizes}".encode() + sampled_pixels(slide.levels[-1])


def _oddities(slide: Image) -> Iterator[str]:
    """Yield what the user should know about an image."""
    shape = slide.levels[0].shape
    if (planes := shape.get("z", 1)) > 1:
        yield f"it has {planes} focal planes; the middle one ({planes // 2}) is shown"
    if (times := shape.get("t", 1)) > 1:
        yield f"it has {times} points in time; the first one is shown"
    if slide.mpp is None:
        reason = "without a known unit" if slide.scales[0] else "not at all"
        yield f"it states its pixel size {reason}"
    colours = slide.described.colours[:3]
    if len(colours) == 3 and tuple(c.upper()[:6] for c in colours) != _RGB:
        yield (
            f"its metadata colour the channels {', '.join(colours)}; "
            "they are shown as red, green and blue"
        )
    yield from _wrong_scales(slide)


def _wrong_scales(slide: Image) -> Iterator[str]:
    """Yield a warning for each level whose stated scale contradicts its size."""
    size, finest = slide.levels[0].size, slide.scales[0]
    for index, (level, scale) in enumerate(
        zip(slide.levels, slide.scales, strict=True)
    ):
        if scale is None or finest is None:
            continue
        for axis in (0, 1):
            stated = scale[axis] / finest[axis]
            # Sizes are rounded to whole pixels, so that a level may lack up to one.
            slack = _TOLERANCE * size[axis] + stated
            if abs(stated * level.size[axis] - size[axis]) > slack:
                yield (
                    f"the metadata state that level {index} is {stated:.3g} times "
                    f"coarser than the finest; by its size, which is used, it is "
                    f"{size[axis] / level.size[axis]:.3g} times"
                )
                break
