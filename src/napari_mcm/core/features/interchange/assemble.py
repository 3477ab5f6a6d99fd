"""Conversion of another tool's features to a FeatureSet: units, slide, lattice, checks.

Positions become level-0 pixels of the slide. The distances of neighbours give the step
of the lattice, and every patch gets its nearest row and column. Overlapping patches are
placed by their middle, so that a heatmap shows each value around the centre of its patch.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm import __version__
from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.feature_set import OF_VECTORS, FeatureSet, Status
from napari_mcm.core.features.interchange.record import MICRONS_AT_1X, ForeignFeatures
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.slides import Slide

# Level-0 pixels of any slide fit; larger numbers are damage or another unit.
LARGEST_COORDINATE = 2**31

Pair = tuple[float, float]


def assemble(
    foreign: ForeignFeatures,
    path: Path,
    slide: Slide | None,
    patch_size_level0: float | None,
    mpp: float | None,
) -> FeatureSet:
    """Place another tool's features on a grid; see :func:`.formats.read_foreign`.

    Parameters
    ----------
    foreign : ForeignFeatures
        The content of the file.
    path : Path
        The file, for messages.
    slide : Slide or None
        The slide; without one, the file's own statements are used.
    patch_size_level0 : float or None
        Side of a patch in level-0 pixels, which overrides the file.
    mpp : float or None
        Microns per level-0 pixel, which overrides the file and the slide.

    Returns
    -------
    FeatureSet
        Its provenance has ``"notes"`` for the user.

    Raises
    ------
    FeatureError
        If something is missing that an option supplies, or is not plausible.
    """
    try:
        return _Assembly(foreign, path, slide).run(patch_size_level0, mpp)
    except FeatureError as error:
        raise FeatureError(error.what, error.where or path, error.hint) from error


@dataclass
class _Assembly:
    foreign: ForeignFeatures
    path: Path
    slide: Slide | None
    notes: list[str] = field(default_factory=list)

    def run(self, patch_size_level0: float | None, mpp: float | None) -> FeatureSet:
        _check_rows(self.foreign)
        level0 = self._mpp(mpp)
        size = self._size(patch_size_level0, level0)
        xy = self._corners(level0)
        if self.foreign.centred:
            xy = xy - np.asarray(size) / 2
        extent = self._extent(xy, size)
        _check_inside(xy, extent, of_slide=self.slide is not None)
        lattice = find_lattice(xy, size)
        self._add_notes(lattice, size)
        patch_px = self.foreign.patch_px or max(round(size[0]), 1)
        margin = _margin(size, lattice.step)
        grid = _grid(
            xy, lattice, size, patch_px, margin, self._identity(extent, level0)
        )
        features, status = self._rows()
        provenance = {
            "software": f"napari-mcm {__version__}",
            "imported": {
                "format": self.foreign.kind,
                "file": self.path.name,
                "patch_size": patch_px,
                "patch_size_level0": list(size),
                "margin": list(margin),
            },
            "notes": self.notes,
        }
        return FeatureSet(
            features,
            grid,
            status,
            self._encoder(),
            provenance,
            neighbourhood=self.foreign.neighbourhood,
        )

    def _mpp(self, given: float | None) -> Pair:
        """Choose the microns per level-0 pixel; a nominal value adds a note.

        Raises
        ------
        FeatureError
            If nothing states it.
        """
        if given is not None:
            return given, given
        if self.slide is not None:
            return self.slide.mpp
        if self.foreign.mpp is not None:
            return self.foreign.mpp
        if self.foreign.magnification is None:
            raise FeatureError(
                "does not state the slide's resolution",
                hint="Give the slide with --slide, or µm per level-0 pixel with --mpp",
            )
        nominal = MICRONS_AT_1X / self.foreign.magnification
        self.notes.append(
            f"took {nominal:g} µm per pixel from a magnification of "
            f"{self.foreign.magnification:g}x; --slide or --mpp gives the true value"
        )
        return nominal, nominal

    def _size(self, given: float | None, mpp: Pair) -> Pair:
        """Choose the width and height of a patch in level-0 pixels.

        Raises
        ------
        FeatureError
            If nothing states it.
        """
        stated = self.foreign.size
        scale = mpp if self.foreign.unit == "um" else (1.0, 1.0)
        size = None if stated is None else (stated / scale[0], stated / scale[1])
        if given is None and size is None:
            raise FeatureError(
                "does not state how large its patches are on level 0",
                hint="Give their side in level-0 pixels with --patch-size-level0",
            )
        if given is None:
            assert size is not None
            return size
        if size is not None and abs(size[0] - given) > ROUNDING:
            self.notes.append(
                f"states patches of {size[0]:g} level-0 px; {given:g} were given"
            )
        return given, given

    def _corners(self, mpp: Pair) -> Floats:
        """Return upper left corners (N, 2) in level-0 pixels of our slides."""
        xy = (
            self.foreign.xy / np.asarray(mpp)
            if self.foreign.unit == "um"
            else self.foreign.xy
        )
        bounds = self.slide.properties.get("bounds") if self.slide else None
        if bounds is None:
            return np.asarray(xy, np.float64)
        # Other tools count from the stage's corner, this package from the scan's.
        words = bounds.replace(",", "").split()
        return np.asarray(xy - (float(words[1]), float(words[3])), np.float64)

    def _extent(self, xy: Floats, size: Pair) -> tuple[int, int]:
        """Choose the slide's size; without any statement, as far as patches reach."""
        if self.slide is not None:
            return self.slide.size
        if self.foreign.slide_size is not None:
            return self.foreign.slide_size
        reach = np.ceil(xy.max(axis=0, initial=0.0) + np.asarray(size))
        return int(reach[0]), int(reach[1])

    def _identity(self, extent: tuple[int, int], mpp: Pair) -> dict[str, Any]:
        slide = self.slide
        identity: dict[str, Any] = {
            "name": slide.name if slide else self.foreign.name,
            "fingerprint": slide.fingerprint
            if slide
            else self.foreign.slide_fingerprint,
            "size": list(extent),
            "mpp": list(mpp),
        }
        if not identity["fingerprint"]:
            self.notes.append(
                "no slide was given: napari shows features with their own slide only; "
                "--slide names the slide"
            )
        return identity

    def _add_notes(self, lattice: Lattice, size: Pair) -> None:
        if lattice.misfit > ROUNDING:
            shared = f", {lattice.crowded} share a position" if lattice.crowded else ""
            self.notes.append(
                "patches lie on several lattices: heatmaps show some up to "
                f"{lattice.misfit:.0f} level-0 px from their position{shared}"
            )
        if any(_margin(size, lattice.step)):
            self.notes.append(
                f"patches of {size[0]:g} level-0 px overlap: heatmaps show the middle "
                f"{lattice.step[0]:g} px of each"
            )

    def _rows(self) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Return features and status; a row that is not finite has no features.

        Raises
        ------
        FeatureError
            If no row is finite.
        """
        features = self.foreign.features
        bad = np.asarray(~np.isfinite(features).all(axis=1))
        if not bad.any():
            return features, np.zeros(len(features), np.uint8)
        if bad.all():
            raise FeatureError("has no patch whose features are finite numbers")
        self.notes.append(
            f"{int(bad.sum())} of {len(features)} patches have features that are not "
            "finite; they count as not decoded"
        )
        features = np.where(bad[:, None], np.float32(np.nan), features)
        return features, np.where(bad, Status.DECODE_ERROR, Status.OK).astype(np.uint8)

    def _encoder(self) -> dict[str, Any]:
        """Describe an encoder of which only the name and the output are known."""
        content = np.ascontiguousarray(self.foreign.features)
        numbers = content.reshape(-1).view(np.uint8).data
        digest = hashlib.blake2b(numbers, digest_size=8)
        return {
            "spec": self.foreign.encoder,
            "dim": int(content.shape[1]),
            # The weights are unknown: different vectors count as another encoder.
            "fingerprint": f"{OF_VECTORS}{digest.hexdigest()}",
            "precision": self.foreign.precision,
        }


def _check_rows(foreign: ForeignFeatures) -> None:
    if len(foreign.features) != len(foreign.xy):
        raise FeatureError(
            f"has {len(foreign.features)} rows of features for {len(foreign.xy)} coordinates"
        )
    if foreign.features.shape[1] < 1:
        raise FeatureError("its features have no columns")
    if (
        not np.isfinite(foreign.xy).all()
        or (np.abs(foreign.xy) > LARGEST_COORDINATE).any()
    ):
        raise FeatureError("has coordinates that cannot be on a slide")


def _check_inside(xy: Floats, extent: tuple[int, int], of_slide: bool) -> None:
    rounded = np.rint(xy)
    beyond = (rounded < 0) | (rounded >= np.asarray(extent))
    outside: NDArray[np.bool_] = np.any(beyond, axis=1)
    if outside.any():
        first = xy[outside][0]
        raise FeatureError(
            f"{int(outside.sum())} of {len(xy)} patches lie outside the slide of "
            f"{extent[0]}x{extent[1]} px, the first at {first[0]:g},{first[1]:g}",
            hint="Check that the features were made from this slide"
            if of_slide
            else "Give the slide with --slide, if the file states a wrong size",
        )


def _margin(size: Pair, step: Pair) -> tuple[int, int]:
    """Return the pixels of an overlapping patch before its middle, along x and y."""
    x, y = (max(int((size[i] - step[i]) // 2), 0) for i in (0, 1))
    return x, y


def _grid(
    xy: Floats,
    lattice: Lattice,
    size: Pair,
    patch_px: int,
    margin: tuple[int, int],
    slide: dict[str, Any],
) -> PatchGrid:
    """Lay a grid on which each patch fills one cell of the lattice.

    An overlapping patch is represented by its middle, which is as large as the step.
    """
    origin = (lattice.origin[0] + margin[0], lattice.origin[1] + margin[1])
    width, height = slide["size"]
    return PatchGrid(
        np.rint(xy).astype(np.int64) + margin,
        lattice.index,
        max(round(patch_px * lattice.step[0] / size[0]), 1),
        slide["mpp"][0] * size[0] / patch_px,
        lattice.step,
        origin,
        lattice.shape((int(width), int(height))),
        slide,
    )


Floats = NDArray[np.float64]

ROUNDING = 1.0
"""Largest distance of a rounded corner from its lattice, in level-0 pixels."""


# Joined lattices share few positions; many shared ones mean that there is none.
MOST_CROWDED = 0.1

# A raster of the lattice must fit into memory.
MOST_CELLS = 10**8


@dataclass(frozen=True, eq=False)
class Lattice:
    """Rows and columns of patches.

    Attributes
    ----------
    index : ndarray of int32, shape (N, 2)
        Row and column of each patch.
    step : tuple of float
        Distance of neighbours along x and y, in level-0 pixels.
    origin : tuple of float
        Upper left corner of row 0, column 0, in level-0 pixels.
    misfit : float
        Largest distance of a patch from the lattice, in level-0 pixels.
    crowded : int
        Patches that share a position with another one.
    """

    index: NDArray[np.int32]
    step: tuple[float, float]
    origin: tuple[float, float]
    misfit: float
    crowded: int

    def shape(self, size: tuple[int, int]) -> tuple[int, int]:
        """Count the rows and columns on a slide.

        Parameters
        ----------
        size : tuple of int
            Width and height of the slide in level-0 pixels.

        Returns
        -------
        tuple of int
            Rows and columns.
        """
        fit = [int((size[i] - self.origin[i]) / self.step[i] + 1e-9) for i in (1, 0)]
        least = self.index.max(axis=0) + 1 if len(self.index) else (0, 0)
        return max(fit[0], int(least[0])), max(fit[1], int(least[1]))


def find_lattice(xy: Floats, size: tuple[float, float]) -> Lattice:
    """Find the rows and columns of patches from their corners.

    Tools that lay patches over each piece of tissue from its own corner (CLAM) have one
    lattice per piece. All patches are assigned to the lattice of the largest group, at
    the nearest position.

    Parameters
    ----------
    xy : ndarray of float64, shape (N, 2)
        Upper left corners in level-0 pixels.
    size : tuple of float
        Width and height of a patch in level-0 pixels.

    Returns
    -------
    Lattice
        With how far patches deviate from it.

    Raises
    ------
    FeatureError
        If there is none: one patch in ten would share a position, or there would be
        more rows and columns than on any slide.
    """
    if not len(xy):
        return Lattice(np.empty((0, 2), np.int32), size, (0.0, 0.0), 0.0, 0)
    along = [_fit(xy[:, i], _step(xy[:, i], xy[:, 1 - i], size[i])) for i in (0, 1)]
    (columns, x_step, left), (rows, y_step, top) = along
    index = np.stack([rows, columns], axis=1)
    if (index.max(axis=0) + 1).prod(dtype=float) > MOST_CELLS:
        raise FeatureError(
            "its patches are too small for the distances between them",
            hint="Check --patch-size-level0",
        )
    crowded = len(index) - len(np.unique(index, axis=0))
    if crowded > MOST_CROWDED * len(index):
        raise FeatureError(
            f"its patches lie on no lattice: {crowded} of {len(index)} would share a "
            "position with another",
            hint="Check --patch-size-level0",
        )
    placed = np.asarray((left, top)) + index[:, ::-1] * (x_step, y_step)
    misfit = float(np.abs(placed - xy).max())
    return Lattice(
        index.astype(np.int32), (x_step, y_step), (left, top), misfit, crowded
    )


def _step(along: Floats, across: Floats, size: float) -> float:
    """Return the most frequent distance of neighbours in a line.

    It is less than a patch where patches overlap, and exactly a patch where that fits.
    """
    # Rounded corners of one line agree only after rounding.
    across = np.rint(across)
    order = np.lexsort((along, across))
    gaps = np.diff(along[order])[np.diff(across[order]) == 0]
    gaps = gaps[gaps > ROUNDING]
    if not len(gaps):
        return size
    lengths, counts = np.unique(np.rint(gaps), return_counts=True)
    # The most frequent, because gaps in the tissue are several steps wide.
    commonest = lengths[counts.argmax()]
    step = float(gaps[np.abs(gaps - commonest) <= ROUNDING].mean())
    patches = max(round(step / size), 1)
    return size if abs(step - patches * size) <= patches * ROUNDING else step


def _fit(values: Floats, step: float) -> tuple[NDArray[np.int64], float, float]:
    """Return each value's index along one axis, the step and the origin."""
    distinct = np.unique(values)
    steps = np.concatenate([[0], np.cumsum(np.rint(np.diff(distinct) / step))])
    # The least-squares step only where the given one drifts, see `_slope`.
    for trial in (step, _slope(steps, distinct)):
        # The median: one corner that is rounded differently does not move the lattice.
        origin = float(np.median(distinct - steps * trial))
        off = np.abs(distinct - origin - steps * trial).max()
        if trial > 0 and off <= ROUNDING:
            index = steps[np.searchsorted(distinct, values)].astype(np.int64)
            return _from_edge(index, trial, origin)
    # Several lattices: the phase that most patches share gives the origin.
    phases, counts = np.unique(np.rint(values % step), return_counts=True)
    origin = float(phases[counts.argmax()])
    index = np.rint((values - origin) / step).astype(np.int64)
    return _from_edge(index, step, origin)


def _slope(steps: Floats, values: Floats) -> float:
    """Return the least-squares step: a stated one is rounded, and errors add up."""
    if steps[-1] == 0:
        return 0.0
    centred = steps - steps.mean()
    return float((centred * values).sum() / (centred**2).sum())


def _from_edge(
    index: NDArray[np.int64], step: float, origin: float
) -> tuple[NDArray[np.int64], float, float]:
    """Count from the slide's edge, so that lattices of several files compare."""
    first = int(np.floor((origin + ROUNDING) / step))
    index, origin = index + first, origin - first * step
    # Where lattices were joined, an index may be negative.
    least = min(int(index.min()), 0)
    return index - least, step, origin + least * step
