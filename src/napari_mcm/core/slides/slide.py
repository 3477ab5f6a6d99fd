"""The noun `Slide`: levels, physical resolution, and reads at any resolution."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mcm.core.errors import SlideError
from napari_mcm.core.slides.resample import area_average
from napari_mcm.core.slides.tiles import Pixels, TileSource, assemble

if TYPE_CHECKING:
    import dask.array as da

SAME_RESOLUTION = 0.01
"""Resolutions that differ by less than this part are taken to be the same."""


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution of a slide.

    Attributes
    ----------
    source : TileSource
        Where its pixels come from.
    downsample : tuple of float
        Level-0 pixels per pixel of this level, along x and y; never rounded.
    stored : bool
        False for a level that is made from a finer one on demand.
    """

    source: TileSource
    downsample: tuple[float, float]
    stored: bool = True

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in this level's pixels."""
        return self.source.size


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """How a resolution is read: from which level, and shrunk by how much."""

    level: int
    factor: tuple[float, float]

    @property
    def exact(self) -> bool:
        """Whether the level's pixels serve as they are."""
        return self.factor == (1.0, 1.0)


@dataclass(frozen=True, eq=False)
class Slide:
    """A whole-slide image, open for reading. Made by :func:`open_slide`.

    Coordinates are (x, y) in level-0 pixels, sizes of reads are in pixels of the
    resolution asked for. Reading is thread-safe.

    Attributes
    ----------
    path : Path
        The file.
    backend : str
        What reads it.
    levels : tuple of Level
        From the finest to the coarsest; single-level files get coarser ones made.
    stated_mpp : tuple of float or None
        Microns per level-0 pixel along x and y; None where the file states none.
    properties : mapping
        Vendor, objective power and the like, as text.
    associated : tuple of str
        Names of label, macro and thumbnail images, which are never read here: they may
        show a patient's name.
    mpp_override : float or None
        What the user stated in the file's stead.
    """

    path: Path
    backend: str
    levels: tuple[Level, ...]
    stated_mpp: tuple[float, float] | None
    properties: Mapping[str, str] = field(default_factory=dict)
    associated: tuple[str, ...] = ()
    mpp_override: float | None = None
    on_close: Callable[[], None] = lambda: None

    @property
    def name(self) -> str:
        """The file's name without its endings: the slide's identifier in a cohort."""
        name = self.path.name
        for ending in (".ome.tiff", ".ome.tif"):
            if name.lower().endswith(ending):
                return name[: -len(ending)]
        return self.path.stem

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in level-0 pixels."""
        return self.levels[0].size

    @property
    def mpp(self) -> tuple[float, float]:
        """Microns per level-0 pixel along x and y.

        Raises
        ------
        SlideError
            If neither the file nor the user states it: it is never guessed.
        """
        if self.stated_mpp is None:
            raise SlideError(
                "states no physical resolution (mpp)",
                self.path,
                "Give it in microns per pixel with --mpp-override, e.g. 0.25 for 40x",
            )
        return self.stated_mpp

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the file's length and samples of its content, 16 hex digits.

        It tells another slide of the same name apart, and does not change when a file
        is moved or renamed.
        """
        length = self.path.stat().st_size
        digest = hashlib.blake2b(str(length).encode(), digest_size=8)
        with self.path.open("rb") as file:
            for part in range(16):
                file.seek(part * max(length - 65536, 0) // 15)
                digest.update(file.read(65536))
        return digest.hexdigest()

    def plan(self, mpp: float) -> ReadPlan:
        """Choose the level from which a resolution is read: the next finer one.

        Parameters
        ----------
        mpp : float
            Microns per pixel wanted.
        """
        own = self.mpp
        factors = [
            (mpp / (own[0] * f[0]), mpp / (own[1] * f[1]))
            for f in (level.downsample for level in self.levels)
        ]
        fine = [i for i, f in enumerate(factors) if min(f) >= 1 - SAME_RESOLUTION]
        level = max(fine, default=0)
        close = all(abs(f - 1) < 1e-6 for f in factors[level])
        return ReadPlan(level, (1.0, 1.0) if close else factors[level])

    def read(
        self, xy: tuple[float, float], size: tuple[int, int], mpp: float
    ) -> Pixels:
        """Read a part of the slide at a physical resolution.

        Parameters
        ----------
        xy : tuple of float
            Upper left corner in level-0 pixels.
        size : tuple of int
            Width and height of the result in pixels of `mpp`.
        mpp : float
            Microns per pixel of the result. Where no level has it, the next finer one
            is averaged over each pixel's area; where the slide is coarser, it is
            enlarged (ask :meth:`plan`, or the grid, before you allow that).

        Returns
        -------
        ndarray, shape (height, width, 3), uint8
            White outside the slide.

        Raises
        ------
        TileError
            If a tile under it cannot be decoded.
        """
        plan = self.plan(mpp)
        fx, fy = self.levels[plan.level].downsample
        left, top = xy[0] / fx, xy[1] / fy
        if plan.exact and left == round(left) and top == round(top):
            return self.read_level(plan.level, round(left), round(top), *size)
        right, bottom = left + size[0] * plan.factor[0], top + size[1] * plan.factor[1]
        x, y = int(np.floor(left)), int(np.floor(top))
        # Floats that should be whole may lie a hair above: no further column for those.
        width = int(np.ceil(right - x - 1e-6))
        height = int(np.ceil(bottom - y - 1e-6))
        pixels = self.read_level(plan.level, x, y, width, height)
        return area_average(pixels, (left - x, top - y, right - x, bottom - y), size)

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """Read a rectangle of one level, in that level's own pixels.

        Returns
        -------
        ndarray, shape (height, width, 3), uint8
            White outside the slide.
        """
        return assemble(self.levels[level].source, x, y, width, height)

    def thumbnail(self, mpp: float, longest: int = 4096) -> tuple[Pixels, float]:
        """Read the whole slide at a coarse resolution.

        Parameters
        ----------
        mpp : float
            Microns per pixel wanted.
        longest : int
            Bound in pixels on the longer side; a huge slide is read coarser.

        Returns
        -------
        tuple of ndarray and float
            Pixels (height, width, 3), and the microns per pixel that they have.
        """
        extent = [n * m for n, m in zip(self.size, self.mpp, strict=True)]
        mpp = max(mpp, max(extent) / longest, *self.mpp)
        size = (max(round(extent[0] / mpp), 1), max(round(extent[1] / mpp), 1))
        return self.read((0, 0), size, mpp), mpp

    def as_dask(self, level: int, chunk: int = 512) -> da.Array:
        """Give one level as a lazy array, in square chunks.

        Parameters
        ----------
        level : int
            Index of the level.
        chunk : int
            Side of a chunk in the level's pixels.

        Returns
        -------
        dask.array.Array, shape (height, width, 3), uint8
            Where a tile is damaged it shows grey, with a warning in the log, so that a
            viewer stays usable.
        """
        from napari_mcm.core.slides.lazy import level_as_dask

        return level_as_dask(self, level, chunk)

    def close(self) -> None:
        """Close the file and drop cached tiles. Reading after that is an error."""
        self.on_close()

    def __enter__(self) -> Slide:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        # Handles do not travel between processes; paths do.
        from napari_mcm.core.slides.open import open_slide

        return open_slide, (self.path, self.mpp_override)
