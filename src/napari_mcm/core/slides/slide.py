"""The class `Slide`: levels, physical resolution, and reads at any resolution."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import astuple, dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mcm.core.errors import SlideError, TileError
from napari_mcm.core.slides.backend import Mpp, SlideFile
from napari_mcm.core.slides.colour import profile_problem
from napari_mcm.core.slides.levels import (
    Corners,
    Level,
    Opening,
    ReadPlan,
    read_row,
    rows_of,
    sampled_hash,
)
from napari_mcm.core.slides.paths import slide_name
from napari_mcm.core.slides.tiles import Pixels, TileCache, assemble

if TYPE_CHECKING:
    import dask.array as da

SAME_RESOLUTION = 0.01
"""Resolutions that differ by less than this part are taken to be the same."""


_BAND = 64


@dataclass(frozen=True, eq=False)
class Slide:
    """A whole-slide image, open for reading. Made by :func:`open_slide`.

    Coordinates are (x, y) in level-0 pixels; sizes of reads are in pixels of the requested
    resolution. Reading is thread-safe.

    Attributes
    ----------
    path : Path
        The file or folder; for a remote slide, its URL.
    backend : str
        Name of the backend that reads it.
    file : SlideFile
        What the backend read from the file: levels, resolution, properties.
    levels : tuple of Level
        From the finest to the coarsest. Missing coarser levels are computed on
        demand.
    opened_with : Opening
        The options with which it was opened.
    cache : TileCache
        Decoded tiles of all levels.
    """

    path: Path
    backend: str
    file: SlideFile
    levels: tuple[Level, ...]
    opened_with: Opening
    cache: TileCache

    @property
    def name(self) -> str:
        """The slide's identifier in a cohort: the file's name without endings.

        Returns
        -------
        str
        """
        return slide_name(self.path)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in level-0 pixels.

        Returns
        -------
        tuple of int
        """
        return self.levels[0].size

    @property
    def stated_mpp(self) -> Mpp | None:
        """Microns per level-0 pixel along x and y, as the user or the file states it.

        Returns
        -------
        tuple of float or None
            None where neither states it.
        """
        given = self.opened_with.mpp
        return (given, given) if given else self.file.mpp

    @property
    def mpp_override(self) -> float | None:
        """Microns per level-0 pixel that the user stated, which override the file's.

        Returns
        -------
        float or None
        """
        return self.opened_with.mpp

    @property
    def properties(self) -> Mapping[str, str]:
        """Vendor, objective power and other scan properties, as text; nothing about a patient.

        Returns
        -------
        mapping of str to str
        """
        return self.file.properties

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is unusual about the file: one clause each, in plain words.

        Returns
        -------
        tuple of str
        """
        cut = self.truncation
        short = (f"{cut}; copy the file again",) if cut else ()
        return (*short, *self.file.warnings, *self._profile_warnings)

    @property
    def truncation(self) -> str:
        """How much is missing of a file that ends before its pixels, as a clause.

        Returns
        -------
        str
            Such as ``is truncated: 700 of 1,443 tiles are missing``; "" for a whole file.
        """
        return self.file.truncation

    @cached_property
    def _profile_warnings(self) -> tuple[str, ...]:
        problem = profile_problem(self.file.icc_profile)
        return (f"{problem}; colours are as stored",) if problem else ()

    @property
    def associated(self) -> tuple[str, ...]:
        """Names of label, macro and thumbnail images; see :meth:`associated_image`.

        Returns
        -------
        tuple of str
        """
        return tuple(self.file.images)

    def associated_image(self, name: str) -> Pixels:
        """Read a label, macro or thumbnail image. It may show a patient's name.

        Parameters
        ----------
        name : str
            One of :attr:`associated`.

        Returns
        -------
        ndarray of uint8, shape (height, width, 3)
            RGB pixels.

        Raises
        ------
        SlideError
            If there is no image of that name, or it is damaged.
        """
        if name not in self.file.images:
            has = ", ".join(self.associated) or "none"
            raise SlideError(f"has no {name} image (it has: {has})", self.path)
        # Each library raises its own errors for a damaged image.
        try:
            return self.file.images[name]()
        except SlideError:
            raise
        except Exception as error:  # noqa: BLE001
            raise SlideError(
                f"its {name} image is damaged ({error})", self.path
            ) from error

    @property
    def icc_profile(self) -> bytes | None:
        """The ICC colour profile of the pixels, as stored.

        Returns
        -------
        bytes or None
            None where the file holds none, or none that can be read: then
            :attr:`warnings` says why.
        """
        try:
            return self.file.icc_profile()
        except Exception:  # noqa: BLE001 - as above; a slide is useful without it
            return None

    @property
    def mpp(self) -> tuple[float, float]:
        """Microns per level-0 pixel along x and y.

        Returns
        -------
        tuple of float

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
        """A hash of the file's length and of samples of its content.

        It distinguishes slides of the same name, and does not change when a file is moved or
        renamed.

        Returns
        -------
        str
            16 hexadecimal digits.

        Raises
        ------
        SlideError
            If the file cannot be read.
        """
        return self._identify()

    def check_unchanged(self) -> None:
        """Check that the file is still the one that was opened.

        When a tile cannot be decoded, this separates a damaged file from a replaced one.

        Raises
        ------
        SlideError
            If the file is missing or has changed.
        """
        if self._identify() != self.fingerprint:
            raise SlideError("has changed since it was opened", self.path, "Try again")

    def _identify(self) -> str:
        try:
            if self.file.identity is not None:
                return blake2b(self.file.identity(), digest_size=8).hexdigest()
            files = self.file.files or (self.path,)
            # Sorted: the order in which a folder lists its files is not part of the slide.
            parts = sorted(sampled_hash(file) for file in files)
        except OSError as error:
            raise SlideError(f"cannot be read ({error.strerror})", self.path) from error
        if len(parts) == 1:
            return parts[0]
        return blake2b("".join(parts).encode(), digest_size=8).hexdigest()

    def plan(self, mpp: float) -> ReadPlan:
        """Choose the level from which a resolution is read: the next finer one.

        Parameters
        ----------
        mpp : float
            Requested microns per pixel.

        Returns
        -------
        ReadPlan
            The level, and by how much its pixels are shrunk.

        Raises
        ------
        SlideError
            If the slide's resolution is unknown.
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
        """Read a region of the slide at a physical resolution.

        Parameters
        ----------
        xy : tuple of float
            Upper left corner (x, y) in level-0 pixels.
        size : tuple of int
            Width and height of the result in pixels of `mpp`.
        mpp : float
            Microns per pixel of the result. Where no level has it, the next finer
            one is averaged over each pixel's area; where the slide is coarser, it
            is enlarged (check :meth:`plan`, or the grid, before you allow that).

        Returns
        -------
        ndarray of uint8, shape (height, width, 3)
            RGB pixels, white outside the slide.

        Raises
        ------
        TileError
            If a tile that the region needs cannot be decoded.
        SlideError
            If the slide's resolution is unknown.
        """
        (pixels,) = read_row(self, [xy], size, self.plan(mpp))
        return pixels

    def read_many(
        self, corners: Corners, size: tuple[int, int], mpp: float
    ) -> Iterator[Pixels | TileError]:
        """Read several regions of one size; neighbours in a row are read together.

        Each result equals that of :meth:`read` bit for bit, but pixels that two neighbours
        share are assembled and resampled once.

        Parameters
        ----------
        corners : sequence of tuple of float
            Upper left corners (x, y) in level-0 pixels; neighbours should follow
            each other.
        size : tuple of int
            Width and height of each result in pixels of `mpp`.
        mpp : float
            Microns per pixel of the results.

        Yields
        ------
        ndarray of uint8, shape (height, width, 3), or TileError
            In the order of `corners`; an error in place of each region that lies on
            a damaged tile.

        Raises
        ------
        SlideError
            If the slide's resolution is unknown.
        """
        plan = self.plan(mpp)
        for row in rows_of(corners, size[0] * mpp / self.mpp[0]):
            try:
                yield from read_row(self, row, size, plan)
            except TileError:
                yield from (self._try(xy, size, mpp) for xy in row)

    def _try(
        self, xy: tuple[float, float], size: tuple[int, int], mpp: float
    ) -> Pixels | TileError:
        try:
            return self.read(xy, size, mpp)
        except TileError as error:
            return error

    def read_level(
        self,
        level: int,
        x: int,
        y: int,
        width: int,
        height: int,
        on_damage: Callable[[TileError], None] | None = None,
    ) -> Pixels:
        """Read a rectangle of one level, in that level's own pixels.

        Parameters
        ----------
        level : int
            Index of the level; 0 is the finest.
        x, y : int
            Upper left corner in the level's pixels. The rectangle may reach beyond
            the slide.
        width, height : int
            Size of the rectangle in the level's pixels.
        on_damage : callable, optional
            Called with the error of each damaged tile, which then stays grey
            (:data:`DAMAGED`). Without it, the first one raises.

        Returns
        -------
        ndarray of uint8, shape (height, width, 3)
            RGB pixels, white outside the slide.

        Raises
        ------
        TileError
            If a tile cannot be decoded and `on_damage` is not given.
        """
        return assemble(self.levels[level].source, x, y, width, height, on_damage)

    def thumbnail(self, mpp: float, longest: int = 4096) -> tuple[Pixels, float]:
        """Read the whole slide at a coarse resolution; damaged parts stay grey.

        Parameters
        ----------
        mpp : float
            Requested microns per pixel.
        longest : int, optional
            Largest number of pixels along the longer side; a huge slide is read
            coarser.

        Returns
        -------
        tuple of ndarray of uint8 and float
            Pixels, shape (height, width, 3), and their microns per pixel. Pixels
            that cannot be decoded are grey (:data:`DAMAGED`), a colour that no
            slide has.

        Raises
        ------
        SlideError
            If the slide's resolution is unknown.
        """
        extent = [n * m for n, m in zip(self.size, self.mpp, strict=True)]
        mpp = max(mpp, max(extent) / longest, *self.mpp)
        size = (max(round(extent[0] / mpp), 1), max(round(extent[1] / mpp), 1))
        plan = self.plan(mpp)
        pixels = np.empty((size[1], size[0], 3), np.uint8)
        # In bands: the level that is read may have sixteen times as many pixels.
        for start in range(0, size[1], _BAND):
            rows = min(_BAND, size[1] - start)
            corner = (0.0, start * mpp / self.mpp[1])
            (band,) = read_row(
                self, [corner], (size[0], rows), plan, on_damage=lambda _: None
            )
            pixels[start : start + rows] = band
        return pixels, mpp

    def as_dask(self, level: int, chunk: int = 512) -> da.Array:
        """Return one level as a lazy array, in square chunks.

        Parameters
        ----------
        level : int
            Index of the level; 0 is the finest.
        chunk : int, optional
            Side of a chunk in the level's pixels.

        Returns
        -------
        dask.array.Array of uint8, shape (height, width, 3)
            Damaged tiles are grey, with a warning in the log, so that a viewer
            stays usable.
        """
        from napari_mcm.core.slides.lazy import level_as_dask

        return level_as_dask(self, level, chunk)

    def close(self) -> None:
        """Close the file and drop cached tiles. Reading after that is an error."""
        self.cache.clear()
        self.file.close()

    def __enter__(self) -> Slide:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        # Open handles cannot be sent to another process; paths can.
        from napari_mcm.core.slides.open import open_slide

        return open_slide, (self.path, *astuple(self.opened_with))
