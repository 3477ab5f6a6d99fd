"""The noun `Slide`: levels, physical resolution, and reads at any resolution."""

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
from napari_mcm.core.slides.levels import (
    Corners,
    Level,
    Opening,
    ReadPlan,
    read_row,
    rows_of,
    sampled_hash,
)
from napari_mcm.core.slides.tiles import Pixels, TileCache, assemble

if TYPE_CHECKING:
    import dask.array as da

SAME_RESOLUTION = 0.01
"""Resolutions that differ by less than this part are taken to be the same."""


_BAND = 64

_DOUBLE_ENDINGS = (".ome.tiff", ".ome.tif", ".ome.zarr.zip", ".ome.zarr", ".zarr.zip")


@dataclass(frozen=True, eq=False)
class Slide:
    """A whole-slide image, open for reading. Made by :func:`open_slide`.

    Coordinates are (x, y) in level-0 pixels, sizes of reads are in pixels of the
    resolution asked for. Reading is thread-safe.

    Attributes
    ----------
    path : Path
        The file or folder; of a remote slide, its URL.
    backend : str
        What reads it.
    file : SlideFile
        What the backend found.
    levels : tuple of Level
        From the finest to the coarsest; single-level files get coarser ones made.
    asked : Opening
        How it was opened: what the user stated in the file's stead, and the like.
    cache : TileCache
        Decoded tiles of all levels.
    """

    path: Path
    backend: str
    file: SlideFile
    levels: tuple[Level, ...]
    asked: Opening
    cache: TileCache

    @property
    def name(self) -> str:
        """The slide's identifier in a cohort, which is the file's name without endings."""
        return slide_name(self.path)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in level-0 pixels."""
        return self.levels[0].size

    @property
    def stated_mpp(self) -> Mpp | None:
        """What the user or the file states; None where neither does."""
        given = self.asked.mpp
        return (given, given) if given else self.file.mpp

    @property
    def mpp_override(self) -> float | None:
        """What the user stated in the file's stead."""
        return self.asked.mpp

    @property
    def properties(self) -> Mapping[str, str]:
        """Vendor, objective power and the like, as text; nothing about a patient."""
        return self.file.properties

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd about the file, in plain words."""
        return tuple(self.file.warnings)

    @property
    def associated(self) -> tuple[str, ...]:
        """Names of label, macro and thumbnail images; see :meth:`associated_image`."""
        return tuple(self.file.images)

    def associated_image(self, name: str) -> Pixels:
        """Read a label, macro or thumbnail image. It may show a patient's name.

        Raises
        ------
        SlideError
            If there is none of that name, or it is damaged.
        """
        if name not in self.file.images:
            has = ", ".join(self.associated) or "none"
            raise SlideError(f"has no {name} image (it has: {has})", self.path)
        # Each library fails in its own way at what is damaged.
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
        """The colour profile of the pixels, as stored.

        None where there is none, or none that can be read.
        """
        try:
            return self.file.icc_profile()
        except Exception:  # noqa: BLE001 - as above; a slide is of use without it
            return None

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
        return self._identify()

    def check_unchanged(self) -> None:
        """See that the slide still lies where it was opened.

        Raises
        ------
        SlideError
            If it is gone, or another: what cannot be decoded is no damage then.
        """
        if self._identify() != self.fingerprint:
            raise SlideError("has changed since it was opened", self.path, "Try again")

    def _identify(self) -> str:
        try:
            if self.file.identity is not None:
                return blake2b(self.file.identity(), digest_size=8).hexdigest()
            files = self.file.files or (self.path,)
            # In what order a folder lists them, or their names, says nothing.
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
        (pixels,) = read_row(self, [xy], size, self.plan(mpp))
        return pixels

    def read_many(
        self, corners: Corners, size: tuple[int, int], mpp: float
    ) -> Iterator[Pixels | TileError]:
        """Read several parts of one size, neighbours in a row together.

        Each comes out as :meth:`read` gives it, to the bit; but what lies under two
        neighbours is put together and resampled once.

        Parameters
        ----------
        corners : sequence of tuple of float
            Upper left corners in level-0 pixels; neighbours should follow each other.
        size, mpp
            As for :meth:`read`.

        Yields
        ------
        ndarray or TileError
            In the order of `corners`; an error in the place of each part that lies on
            a damaged tile.
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
        level, x, y, width, height : int
            Which level, and the rectangle in it; it may reach beyond the slide.
        on_damage : callable, optional
            Hears of each damaged tile, which is then left grey (:data:`DAMAGED`).
            Without it, the first one raises.

        Returns
        -------
        ndarray, shape (height, width, 3), uint8
            White outside the slide.

        Raises
        ------
        TileError
            If a tile under it cannot be decoded and nobody wants to hear of it.
        """
        return assemble(self.levels[level].source, x, y, width, height, on_damage)

    def thumbnail(self, mpp: float, longest: int = 4096) -> tuple[Pixels, float]:
        """Read the whole slide at a coarse resolution, damaged or not.

        Parameters
        ----------
        mpp : float
            Microns per pixel wanted.
        longest : int
            Bound in pixels on the longer side; a huge slide is read coarser.

        Returns
        -------
        tuple of ndarray and float
            Pixels (height, width, 3), and the microns per pixel that they have. What
            cannot be decoded is grey (:data:`DAMAGED`), as nothing on a slide is.
        """
        extent = [n * m for n, m in zip(self.size, self.mpp, strict=True)]
        mpp = max(mpp, max(extent) / longest, *self.mpp)
        size = (max(round(extent[0] / mpp), 1), max(round(extent[1] / mpp), 1))
        plan = self.plan(mpp)
        pixels = np.empty((size[1], size[0], 3), np.uint8)
        # In bands: the level under it may be sixteen times as large.
        for start in range(0, size[1], _BAND):
            rows = min(_BAND, size[1] - start)
            corner = (0.0, start * mpp / self.mpp[1])
            (band,) = read_row(
                self, [corner], (size[0], rows), plan, on_damage=lambda _: None
            )
            pixels[start : start + rows] = band
        return pixels, mpp

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
        self.cache.clear()
        self.file.close()

    def __enter__(self) -> Slide:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        # Handles do not travel between processes; paths do.
        from napari_mcm.core.slides.open import open_slide

        return open_slide, (self.path, *astuple(self.asked))


def slide_name(path: Path) -> str:
    """Give the name by which a slide is known: its file's, without endings."""
    name = path.name
    for ending in _DOUBLE_ENDINGS:
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    # A folder's name may hold a full stop that begins no ending.
    return name if path.is_dir() else path.stem
