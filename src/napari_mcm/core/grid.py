"""Patches on the tissue, and context windows over the patches.

Patches are squares of a fixed physical size on a regular lattice, so that a patch's row
and column give its neighbours. A patch is kept where its tissue fraction reaches a
minimum. A context window is a block of s×s lattice cells; windows tile the lattice from
an offset, so that each patch lies in at most one window per offset.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from napari_mcm.core.errors import GridError
from napari_mcm.core.slides import ReadConfig, Slide
from napari_mcm.core.slides.slide import SAME_RESOLUTION
from napari_mcm.core.tissue import TissueConfig, TissueMask

# About 20x, the usual resolution of patch encoders.
DEFAULT_MPP = 0.5


class GridConfig(BaseModel):
    """How patches are laid over the tissue."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mpp: Annotated[float, Field(gt=0, lt=1000)] | Literal["auto"] = Field(
        "auto",
        description="Resolution of patches in µm per pixel; auto is 0.5, or the "
        "coarsest native resolution among the slides where that is coarser.",
    )
    patch_size: int = Field(
        224, ge=16, le=4096, description="Side of a patch, in pixels of that mpp."
    )
    min_tissue: float = Field(
        0.5, ge=0, le=1, description="Minimum tissue fraction of a patch, 0 to 1."
    )
    allow_upsampling: bool = Field(
        False, description="Enlarge slides that are coarser than the requested mpp."
    )


class GridOptions(BaseModel):
    """The slide, and where to write the picture and the mask."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slide: Path = Field(description="Slide file.")
    out: Path | None = Field(
        None, description="Picture of tissue and patches to write: .png, .pdf or .svg."
    )
    tissue_out: Path | None = Field(
        None,
        description="Tissue mask to write: .geojson for QuPath, or .png. It can be "
        "edited and given back with --masks.",
    )
    read: ReadConfig = ReadConfig()
    grid: GridConfig = GridConfig()
    tissue: TissueConfig = TissueConfig()


@dataclass(frozen=True, eq=False)
class PatchGrid:
    """Square patches of one slide, on a regular lattice over its tissue.

    Attributes
    ----------
    xy : ndarray of int64, shape (n_patches, 2)
        Upper left corners (x, y) in level-0 pixels, sorted by rows of the lattice
        from top to bottom.
    lattice : ndarray of int32, shape (n_patches, 2)
        Row and column on the lattice.
    patch_size : int
        Side of a patch in pixels of `mpp`.
    mpp : float
        Microns per pixel at which patches are read.
    patch_size_level0 : tuple of float
        Width and height of a patch in level-0 pixels; also the lattice's spacing.
    origin : tuple of float
        Upper left corner of the lattice in level-0 pixels.
    shape : tuple of int
        Rows and columns of the lattice over the whole slide.
    slide : dict
        Identity of the slide: name, fingerprint, size (level-0 pixels), mpp (x, y).
    """

    xy: NDArray[np.int64]
    lattice: NDArray[np.int32]
    patch_size: int
    mpp: float
    patch_size_level0: tuple[float, float]
    origin: tuple[float, float]
    shape: tuple[int, int]
    slide: dict[str, Any]

    def __len__(self) -> int:
        return len(self.xy)

    @property
    def patch_um(self) -> float:
        """Side of a patch in microns.

        Returns
        -------
        float
        """
        return self.patch_size * self.mpp

    @property
    def centres(self) -> NDArray[np.float64]:
        """Centres of the patches in level-0 pixels.

        Returns
        -------
        ndarray of float64, shape (n_patches, 2)
            x and y.
        """
        return self.xy + np.asarray(self.patch_size_level0) / 2

    @property
    def fingerprint(self) -> str:
        """A hash of the slide, the resolution and the patches' positions.

        Returns
        -------
        str
            16 hexadecimal digits.
        """
        digest = hashlib.blake2b(digest_size=8)
        digest.update(json.dumps(self.describe(), sort_keys=True).encode())
        digest.update(np.ascontiguousarray(self.xy).tobytes())
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return everything except the corners and the lattice, ready for JSON.

        Returns
        -------
        dict
            See :meth:`from_description`.
        """
        return {
            "patch_size": self.patch_size,
            "mpp": self.mpp,
            "patch_size_level0": list(self.patch_size_level0),
            "origin": list(self.origin),
            "shape": list(self.shape),
            "slide": dict(self.slide),
        }

    @classmethod
    def from_description(
        cls, described: dict[str, Any], xy: NDArray[Any], lattice: NDArray[Any]
    ) -> PatchGrid:
        """Rebuild a grid from :meth:`describe` and its arrays.

        Parameters
        ----------
        described : dict
            What :meth:`describe` returned.
        xy : ndarray, shape (n_patches, 2)
            Upper left corners (x, y) in level-0 pixels.
        lattice : ndarray, shape (n_patches, 2)
            Row and column on the lattice.

        Returns
        -------
        PatchGrid
            The same grid.

        Raises
        ------
        GridError
            If something is missing, or shapes do not match.
        """
        try:
            grid = cls(
                np.asarray(xy, np.int64),
                np.asarray(lattice, np.int32),
                int(described["patch_size"]),
                float(described["mpp"]),
                _pair(described["patch_size_level0"], float),
                _pair(described["origin"], float),
                _pair(described["shape"], int),
                dict(described["slide"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise GridError(
                f"description of the grid is incomplete ({error})"
            ) from None
        if grid.xy.shape != (len(grid), 2) or grid.lattice.shape != grid.xy.shape:
            raise GridError(
                f"corners of shape {grid.xy.shape} and lattice of shape "
                f"{grid.lattice.shape} do not match"
            )
        # Elementwise, because a slide may be too small for any patch.
        if ((grid.lattice < 0) | (grid.lattice >= grid.shape)).any():
            raise GridError("patches lie outside the lattice")
        return grid

    def index_at(self, x: float, y: float) -> int | None:
        """Return the index of the patch that contains a point.

        Parameters
        ----------
        x, y : float
            The point in level-0 pixels.

        Returns
        -------
        int or None
            None where there is no patch.
        """
        column = int(np.floor((x - self.origin[0]) / self.patch_size_level0[0]))
        row = int(np.floor((y - self.origin[1]) / self.patch_size_level0[1]))
        found = np.flatnonzero((self.lattice == (row, column)).all(axis=1))
        return int(found[0]) if len(found) else None

    def raster(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Arrange one value per patch as a picture of the lattice.

        Parameters
        ----------
        values : ndarray, shape (n_patches,)
            One value per patch.

        Returns
        -------
        ndarray of float32, shape (rows, columns)
            NaN where there is no patch.
        """
        picture = np.full(self.shape, np.nan, np.float32)
        picture[self.lattice[:, 0], self.lattice[:, 1]] = values
        return picture

    def windows(
        self, s: int, offset: tuple[int, int] = (0, 0), min_tissue: float = 0.5
    ) -> ContextWindows:
        """Cover the lattice with context windows of s×s patches.

        Parameters
        ----------
        s : int
            Patches along a window's side.
        offset : tuple of int, optional
            Row and column, 0 to s - 1, by which the windows are shifted.
        min_tissue : float, optional
            Smallest fraction of a window's patches that are on the grid, 0 to 1.

        Returns
        -------
        ContextWindows
            No patch is in two windows.

        Raises
        ------
        GridError
            If `s` or the offset is out of range.
        """
        if s < 1 or not (0 <= offset[0] < s and 0 <= offset[1] < s):
            raise GridError(f"a window offset of {offset} is not within 0 to {s - 1}")
        rows = -(-(self.shape[0] + s) // s)
        columns = -(-(self.shape[1] + s) // s)
        padded = np.full((rows * s, columns * s), -1, np.int64)
        # Padding by up to one window turns the offset into a shift of whole cells.
        at = self.lattice + (s - np.asarray(offset)) % s
        padded[at[:, 0], at[:, 1]] = np.arange(len(self))
        # Blocks of the padded lattice: (rows, s, columns, s) -> (W, s, s).
        index = padded.reshape(rows, s, columns, s).swapaxes(1, 2).reshape(-1, s, s)
        tissue = (index >= 0).mean(axis=(1, 2))
        return ContextWindows(index[(tissue >= min_tissue) & (tissue > 0)])


@dataclass(frozen=True, eq=False)
class ContextWindows:
    """Square context windows over a grid.

    Attributes
    ----------
    index : ndarray of int64, shape (n_windows, s, s)
        Index of each patch in its grid, -1 where there is no tissue.
    """

    index: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.index)


def with_common_mpp(config: GridConfig, mpps: Iterable[float]) -> GridConfig:
    """Resolve the resolution ``auto`` for slides that are compared.

    Parameters
    ----------
    config : GridConfig
        Returned unchanged where it states a resolution.
    mpps : iterable of float
        Microns per pixel of each slide, of its coarser axis.

    Returns
    -------
    GridConfig
        With a number; `config` where there are no slides.
    """
    known = tuple(mpps)
    if config.mpp != "auto" or not known:
        return config
    # The coarsest slide decides, so that none is enlarged.
    return config.model_copy(update={"mpp": max(DEFAULT_MPP, *known)})


def make_grid(
    slide: Slide,
    tissue: TissueMask,
    config: GridConfig | None = None,
    origin: tuple[float, float] = (0.0, 0.0),
) -> PatchGrid:
    """Lay patches over a slide's tissue, at a physical resolution.

    Parameters
    ----------
    slide : Slide
        With a known resolution.
    tissue : TissueMask
        Where its tissue is.
    config : GridConfig, optional
        Resolution, patch size, and minimum tissue fraction of a patch.
    origin : tuple of float, optional
        Upper left corner of the lattice in level-0 pixels.

    Returns
    -------
    PatchGrid
        Patches that lie wholly inside the slide; none where there is no tissue.

    Raises
    ------
    GridError
        If the slide is coarser than requested and upsampling is not allowed.
    SlideError
        If the slide's resolution is unknown.
    """
    config = config or GridConfig()
    mpp = common_mpp([slide], config)
    step = (
        config.patch_size * mpp / slide.mpp[0],
        config.patch_size * mpp / slide.mpp[1],
    )
    # Whole patches only; the small term absorbs rounding in exact fits.
    columns = max(int((slide.size[0] - origin[0]) / step[0] + 1e-9), 0)
    rows = max(int((slide.size[1] - origin[1]) / step[1] + 1e-9), 0)
    lattice = np.indices((rows, columns)).reshape(2, -1).T.astype(np.int32)
    # Rounded from exact multiples: rounding the step instead would drift over a slide.
    xy = np.rint(np.asarray(origin) + lattice[:, ::-1] * np.asarray(step)).astype(
        np.int64
    )
    # A minimum of 0 still requires some tissue.
    keep = tissue.coverage(xy, step) >= max(config.min_tissue, 1e-9)
    identity: dict[str, Any] = {
        "name": slide.name,
        "fingerprint": slide.fingerprint,
        "size": list(slide.size),
        "mpp": list(slide.mpp),
    }
    if slide.opened_with.icc:
        # Colour management changes the pixels, and so the features.
        identity["icc"] = True
    return PatchGrid(
        xy[keep],
        lattice[keep],
        config.patch_size,
        mpp,
        step,
        origin,
        (rows, columns),
        identity,
    )


def common_mpp(slides: Sequence[Slide], config: GridConfig) -> float:
    """Choose the resolution at which several slides are read.

    Parameters
    ----------
    slides : sequence of Slide
        With known resolutions.
    config : GridConfig
        Resolution as configured, a number or ``"auto"``.

    Returns
    -------
    float
        Microns per pixel: as configured; for ``"auto"`` 0.5, or the coarsest of the
        slides' own where that is coarser.

    Raises
    ------
    GridError
        If a slide is coarser than requested and upsampling is not allowed.
    SlideError
        If a slide's resolution is unknown.
    """
    if config.mpp == "auto":
        return max([DEFAULT_MPP, *(max(slide.mpp) for slide in slides)])
    for slide in slides:
        own = max(slide.mpp)
        if own > config.mpp * (1 + SAME_RESOLUTION) and not config.allow_upsampling:
            raise GridError(
                f"has {own:.4g} µm per pixel, coarser than the requested {config.mpp:g}",
                slide.path,
                "Use a coarser --mpp, or allow upsampling with --allow-upsampling",
            )
    return config.mpp


def _pair(values: Any, kind: type) -> tuple[Any, Any]:
    first, second = values
    return kind(first), kind(second)
