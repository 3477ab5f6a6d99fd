"""The images of a pre-training: pictures, tiles of pictures, and patches of slides."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import McmError, TrainingError
from napari_mcm.core.grid import GridConfig, PatchGrid, common_mpp, make_grid
from napari_mcm.core.mae.config import PretrainConfig
from napari_mcm.core.mae.pictures import (
    PictureCache,
    Pixels,
    find_pictures,
    picture_size,
)
from napari_mcm.core.runtime.jobs import Job, Note, Progress
from napari_mcm.core.slides import Slide
from napari_mcm.core.tissue import find_tissue

_MAX_WARNINGS = 20

GATHERING = {"Checking pictures": 1.0, "Finding tissue": 1.0}
"""Stages of :func:`gather`, and how their durations compare."""


@dataclass(frozen=True, eq=False)
class Tile:
    """A tile of a picture.

    Attributes
    ----------
    path : Path
        File of the picture.
    row, column : int
        Its place in the picture.
    tiles : int
        Tiles per side of the picture.
    """

    path: Path
    row: int
    column: int
    tiles: int

    @property
    def name(self) -> str:
        """Return the file of the picture.

        Returns
        -------
        str
        """
        return str(self.path)

    def read(self, cache: PictureCache) -> Pixels:
        """Return the pixels of the tile.

        Parameters
        ----------
        cache : PictureCache
            Decodes the picture.

        Returns
        -------
        ndarray of uint8, shape (height, width, 3)

        Raises
        ------
        SlideError
            If the picture cannot be decoded.
        """
        pixels = cache.read(self.path)
        height, width = pixels.shape[:2]
        # Tiles share their borders, so that every pixel is in exactly one of them.
        y = [height * n // self.tiles for n in (self.row, self.row + 1)]
        x = [width * n // self.tiles for n in (self.column, self.column + 1)]
        return pixels[y[0] : y[1], x[0] : x[1]]


@dataclass(frozen=True, eq=False)
class SlidePatch:
    """A tissue patch of an open slide.

    Attributes
    ----------
    slide : Slide
        The slide, open.
    grid : PatchGrid
        Grid of its patches.
    row : int
        Row of the patch in the grid.
    """

    slide: Slide
    grid: PatchGrid
    row: int

    @property
    def name(self) -> str:
        """Return the slide and the place of the patch.

        Returns
        -------
        str
            For messages; x and y in level-0 pixels.
        """
        x, y = self.grid.xy[self.row]
        return f"{self.slide.path} at {x},{y}"

    def read(self, cache: PictureCache) -> Pixels:
        """Return the pixels of the patch.

        Parameters
        ----------
        cache : PictureCache
            Unused; the slide has its own cache.

        Returns
        -------
        ndarray of uint8, shape (side, side, 3)

        Raises
        ------
        TileError
            If a tile under it cannot be decoded.
        """
        x, y = (int(value) for value in self.grid.xy[self.row])
        side = self.grid.patch_size
        return self.slide.read((x, y), (side, side), self.grid.mpp)


ImageRef = Tile | SlidePatch


@dataclass(frozen=True, eq=False)
class ImageSet:
    """All images of a training set.

    Attributes
    ----------
    images : sequence of ImageRef
        In a fixed order.
    fingerprint : str
        Changes with the pictures or slides; 16 hex digits.
    refused : int
        Number of files that are not readable pictures.
    pictures, patches : int
        Number of readable pictures, and of slide patches.
    """

    images: Sequence[ImageRef]
    fingerprint: str
    refused: int
    pictures: int
    patches: int

    def __len__(self) -> int:
        return len(self.images)


def gather(config: PretrainConfig, slides: Sequence[Slide]) -> Job[ImageSet]:
    """List the images of a configuration, as a job.

    Parameters
    ----------
    config : PretrainConfig
        Pictures, tiles per side, and how patches are placed on slides.
    slides : sequence of Slide
        The configured slides, open.

    Yields
    ------
    Event
        Progress; a note for each file that is not a readable picture.

    Returns
    -------
    ImageSet

    Raises
    ------
    TrainingError
        If there is no image.
    """
    digest = hashlib.blake2b(digest_size=8)
    tiles, refused, pictures = yield from _tiles(config, digest)
    patches = yield from _patches(config, slides, digest)
    if not tiles and not patches:
        raise TrainingError(
            "there are no images to train on",
            hint="Name pictures, folders of pictures, or --slides with tissue",
        )
    yield Note(
        f"{len(tiles):,} images from {pictures:,} pictures, {len(patches):,} patches "
        f"from {len(slides)} slide(s)"
    )
    return ImageSet(
        [*tiles, *patches], digest.hexdigest(), refused, pictures, len(patches)
    )


def _tiles(
    config: PretrainConfig, digest: hashlib.blake2b
) -> Job[tuple[list[Tile], int, int]]:
    files = find_pictures(config.pictures) if config.pictures else []
    count, found, refused = config.images.tiles, [], 0
    for number, file in enumerate(files, 1):
        # A header is read in no time: one report per hundred is enough.
        if number % 100 == 1:
            yield Progress("Checking pictures", number - 1, len(files), "pictures")
        try:
            width, height = picture_size(file)
            # Tiles under 8 px hold nothing but interpolation once they are resized.
            if min(width, height) < 8 * count:
                raise TrainingError(f"is too small for {count} tiles per side", file)
        except McmError as error:
            refused += 1
            if refused <= _MAX_WARNINGS:
                yield Note(f"skipped: {error}", "warning")
            continue
        # Names and sizes, not contents: those would take long to read at each resume.
        digest.update(f"{file.name}:{width}x{height}:{file.stat().st_size};".encode())
        found += [
            Tile(file, row, column, count)
            for row in range(count)
            for column in range(count)
        ]
    if refused > _MAX_WARNINGS:
        yield Note(f"skipped {refused} files in total", "warning")
    return found, refused, len(files) - refused


def _patches(
    config: PretrainConfig, slides: Sequence[Slide], digest: hashlib.blake2b
) -> Job[list[SlidePatch]]:
    if not slides:
        return []
    # One resolution for all slides: a token covers the same tissue in each.
    mpp = common_mpp(slides, config.grid)
    grid_config = config.grid.model_copy(update={"mpp": mpp})
    found: list[SlidePatch] = []
    for number, slide in enumerate(slides, 1):
        yield Progress("Finding tissue", number, len(slides), "slides")
        grid = make_grid(slide, find_tissue(slide, config.tissue), grid_config)
        if not len(grid):
            yield Note(f"{slide.name} holds no tissue", "warning")
        digest.update(grid.fingerprint.encode())
        found += [SlidePatch(slide, grid, row) for row in range(len(grid))]
    return found


@dataclass(frozen=True, eq=False)
class SlideCrop:
    """The pixels around a place of a slide.

    Attributes
    ----------
    pixels : ndarray of uint8, shape (side, side, 3)
        RGB pixels.
    name : str
        Slide, place and width, for display.
    corner, extent : tuple of float
        Upper left corner (x, y) and size, in level-0 pixels.
    """

    pixels: NDArray[np.uint8]
    name: str
    corner: tuple[float, float]
    extent: tuple[float, float]


def read_around(
    slide: Slide, place: tuple[float, float], grid: GridConfig
) -> SlideCrop:
    """Read the patch around a place of a slide.

    Parameters
    ----------
    slide : Slide
        A slide of known resolution, open.
    place : tuple of float
        x and y of the centre, in level-0 pixels.
    grid : GridConfig
        Size and resolution of patches.

    Returns
    -------
    SlideCrop

    Raises
    ------
    SlideError
        If the slide's resolution is unknown.
    TileError
        If a tile under it cannot be decoded.
    """
    mpp, side = common_mpp([slide], grid), grid.patch_size
    width, height = (side * mpp / own for own in slide.mpp)
    x, y = place
    corner = x - width / 2, y - height / 2
    return SlideCrop(
        slide.read(corner, (side, side), mpp),
        f"{slide.name} at {x:,.0f}, {y:,.0f}, {side * mpp:.4g}\u00a0µm wide",
        corner,
        (width, height),
    )
