"""The images of a pre-training: pictures, tiles of pictures, and patches of slides."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import McmError, TrainingError
from napari_mcm.core.grid import PatchGrid, common_mpp, make_grid
from napari_mcm.core.jobs import Job, Note, Progress
from napari_mcm.core.mae.config import PretrainConfig
from napari_mcm.core.mae.pictures import PictureCache, find_pictures, picture_size
from napari_mcm.core.slides import Slide
from napari_mcm.core.tissue import find_tissue

Pixels = NDArray[np.uint8]
_TOLD = 20


@dataclass(frozen=True, eq=False)
class Tile:
    """A tile of a picture: its row and column of so many a side."""

    path: Path
    row: int
    column: int
    tiles: int

    @property
    def name(self) -> str:
        """The file that it is read from."""
        return str(self.path)

    def read(self, cache: PictureCache) -> Pixels:
        """Give its pixels (height, width, 3).

        Raises
        ------
        SlideError
            If the picture cannot be decoded.
        """
        pixels = cache.read(self.path)
        height, width = pixels.shape[:2]
        y = [height * n // self.tiles for n in (self.row, self.row + 1)]
        x = [width * n // self.tiles for n in (self.column, self.column + 1)]
        return pixels[y[0] : y[1], x[0] : x[1]]


@dataclass(frozen=True, eq=False)
class SlidePatch:
    """A patch on the tissue of an open slide."""

    slide: Slide
    grid: PatchGrid
    row: int

    @property
    def name(self) -> str:
        """The slide and the place that it is read from."""
        x, y = self.grid.xy[self.row]
        return f"{self.slide.path} at {x},{y}"

    def read(self, cache: PictureCache) -> Pixels:
        """Give its pixels (side, side, 3).

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
    """All images to learn from.

    Attributes
    ----------
    images : sequence of ImageRef
        In a fixed order.
    fingerprint : str
        Tells other pictures or slides apart, 16 hex digits.
    refused : int
        Files that are no readable pictures.
    pictures, patches : int
        Readable pictures, and patches of slides.
    """

    images: Sequence[ImageRef]
    fingerprint: str
    refused: int
    pictures: int
    patches: int

    def __len__(self) -> int:
        return len(self.images)


def gather(config: PretrainConfig, slides: Sequence[Slide]) -> Job[ImageSet]:
    """List the images of a configuration.

    Parameters
    ----------
    config : PretrainConfig
        Pictures, tiles a side, and how slides are covered.
    slides : sequence of Slide
        The configured ones, open.

    Yields
    ------
    Event
        Progress; a note for each file that is no readable picture.

    Raises
    ------
    TrainingError
        If there is none.
    """
    digest = hashlib.blake2b(digest_size=8)
    tiles, refused, pictures = yield from _tiles(config, digest)
    patches = yield from _patches(config, slides, digest)
    if not tiles and not patches:
        raise TrainingError(
            "there is no image to learn from",
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
        if number % 100 == 1:
            yield Progress("Looking at pictures", number - 1, len(files), "pictures")
        try:
            width, height = picture_size(file)
            if min(width, height) < 8 * count:
                raise TrainingError(f"is too small for {count} tiles a side", file)
        except McmError as error:
            refused += 1
            if refused <= _TOLD:
                yield Note(f"skipped: {error}", "warning")
            continue
        digest.update(f"{file.name}:{width}x{height}:{file.stat().st_size};".encode())
        found += [
            Tile(file, row, column, count)
            for row in range(count)
            for column in range(count)
        ]
    if refused > _TOLD:
        yield Note(f"skipped {refused} files in all", "warning")
    return found, refused, len(files) - refused


def _patches(
    config: PretrainConfig, slides: Sequence[Slide], digest: hashlib.blake2b
) -> Job[list[SlidePatch]]:
    if not slides:
        return []
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
