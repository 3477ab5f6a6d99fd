"""From what a file states to a FeatureSet: units, slide, lattice, checks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm import __version__
from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.feature_set import FeatureSet, Status
from napari_mcm.core.features.interchange.record import MICRONS_AT_1X, ForeignFeatures
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.slides import Slide

LARGEST_COORDINATE = 2**31

Pair = tuple[float, float]


def assemble(
    bag: ForeignFeatures,
    path: Path,
    slide: Slide | None,
    patch_size_level0: float | None,
    mpp: float | None,
) -> FeatureSet:
    """Turn a bag into features on a grid; see :func:`.formats.read_foreign`.

    Raises
    ------
    FeatureError
        If something is missing that an option supplies, or is not plausible.
    """
    try:
        return _Assembly(bag, path, slide).run(patch_size_level0, mpp)
    except FeatureError as error:
        raise FeatureError(error.what, error.where or path, error.hint) from error


@dataclass
class _Assembly:
    bag: ForeignFeatures
    path: Path
    slide: Slide | None
    notes: list[str] = field(default_factory=list)

    def run(self, patch_size_level0: float | None, mpp: float | None) -> FeatureSet:
        _check_rows(self.bag)
        level0 = self._mpp(mpp)
        size = self._size(patch_size_level0, level0)
        xy = self._corners(level0)
        if self.bag.centred:
            xy = xy - np.asarray(size) / 2
        extent = self._extent(xy, size)
        _check_inside(xy, extent, of_slide=self.slide is not None)
        lattice = find_lattice(xy, size)
        self._tell(lattice, size)
        patch_px = self.bag.patch_px or max(round(size[0]), 1)
        margin = _margin(size, lattice.step)
        grid = _grid(
            xy, lattice, size, patch_px, margin, self._identity(extent, level0)
        )
        features, status = self._rows()
        provenance = {
            "software": f"napari-mcm {__version__}",
            "imported": {
                "format": self.bag.kind,
                "file": self.path.name,
                "patch_size": patch_px,
                "patch_size_level0": list(size),
                "margin": list(margin),
            },
            "notes": self.notes,
        }
        return FeatureSet(features, grid, status, self._encoder(), provenance)

    def _mpp(self, given: float | None) -> Pair:
        """Settle the microns per level-0 pixel: never guessed, but told if nominal."""
        if given is not None:
            return given, given
        if self.slide is not None:
            return self.slide.mpp
        if self.bag.mpp is not None:
            return self.bag.mpp
        if self.bag.magnification is None:
            raise FeatureError(
                "does not state the slide's resolution",
                hint="Give the slide with --slide, or µm per level-0 pixel with --mpp",
            )
        nominal = MICRONS_AT_1X / self.bag.magnification
        self.notes.append(
            f"took {nominal:g} µm per pixel from a magnification of "
            f"{self.bag.magnification:g}x; --slide or --mpp gives the true value"
        )
        return nominal, nominal

    def _size(self, given: float | None, mpp: Pair) -> Pair:
        """Settle width and height of a patch in level-0 pixels."""
        stated = self.bag.size
        scale = mpp if self.bag.unit == "um" else (1.0, 1.0)
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
                f"states patches of {size[0]:g} level-0 px; {given:g} were asked for"
            )
        return given, given

    def _corners(self, mpp: Pair) -> Floats:
        """Give upper left corners in level-0 pixels of our slides."""
        xy = self.bag.xy / np.asarray(mpp) if self.bag.unit == "um" else self.bag.xy
        bounds = self.slide.properties.get("bounds") if self.slide else None
        if bounds is None:
            return np.asarray(xy, np.float64)
        # Other tools count from the corner of the stage, we from that of the scan.
        words = bounds.replace(",", "").split()
        return np.asarray(xy - (float(words[1]), float(words[3])), np.float64)

    def _extent(self, xy: Floats, size: Pair) -> tuple[int, int]:
        """Settle the slide's size; without any statement, as far as patches reach."""
        if self.slide is not None:
            return self.slide.size
        if self.bag.slide_size is not None:
            return self.bag.slide_size
        reach = np.ceil(xy.max(axis=0, initial=0.0) + np.asarray(size))
        return int(reach[0]), int(reach[1])

    def _identity(self, extent: tuple[int, int], mpp: Pair) -> dict[str, Any]:
        slide = self.slide
        found: dict[str, Any] = {
            "name": slide.name if slide else self.bag.name,
            "fingerprint": slide.fingerprint if slide else self.bag.slide_fingerprint,
            "size": list(extent),
            "mpp": list(mpp),
        }
        if not found["fingerprint"]:
            self.notes.append(
                "no slide was given: napari shows features with their own slide only; "
                "--slide ties them to it"
            )
        return found

    def _tell(self, lattice: Lattice, size: Pair) -> None:
        if lattice.misfit > ROUNDING:
            shared = f", {lattice.crowded} share a place" if lattice.crowded else ""
            self.notes.append(
                "patches lie on several lattices: heatmaps show some up to "
                f"{lattice.misfit:.0f} level-0 px from where they are{shared}"
            )
        if any(_margin(size, lattice.step)):
            self.notes.append(
                f"patches of {size[0]:g} level-0 px overlap: each is shown by its "
                f"middle {lattice.step[0]:g} px"
            )

    def _rows(self) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Give features and status; a row that is not finite has no features."""
        features = self.bag.features
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
        content = np.ascontiguousarray(self.bag.features)
        numbers = content.reshape(-1).view(np.uint8).data
        digest = hashlib.blake2b(numbers, digest_size=8)
        return {
            "spec": self.bag.encoder,
            "dim": int(content.shape[1]),
            # Its weights are unknown: other vectors mean another encoder.
            "fingerprint": f"features-{digest.hexdigest()}",
            "precision": self.bag.precision,
        }


def _check_rows(bag: ForeignFeatures) -> None:
    if len(bag.features) != len(bag.xy):
        raise FeatureError(
            f"has {len(bag.features)} rows of features for {len(bag.xy)} coordinates"
        )
    if bag.features.shape[1] < 1:
        raise FeatureError("its features have no columns")
    if not np.isfinite(bag.xy).all() or (np.abs(bag.xy) > LARGEST_COORDINATE).any():
        raise FeatureError("has coordinates that are no places on a slide")


def _check_inside(xy: Floats, extent: tuple[int, int], of_slide: bool) -> None:
    there = np.rint(xy)
    beyond = (there < 0) | (there >= np.asarray(extent))
    outside: NDArray[np.bool_] = np.any(beyond, axis=1)
    if outside.any():
        first = xy[outside][0]
        raise FeatureError(
            f"{int(outside.sum())} of {len(xy)} patches lie outside the slide of "
            f"{extent[0]}x{extent[1]} px, the first at {first[0]:g},{first[1]:g}",
            hint="Check that it is the slide that they were made from"
            if of_slide
            else "Give the slide with --slide, if the file states another's size",
        )


def _margin(size: Pair, step: Pair) -> tuple[int, int]:
    """Tell how far into an overlapping patch its middle begins."""
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

    An overlapping patch stands there by its middle, as large as the step: a picture of
    the lattice then shows each value around the centre of its patch.
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
"""Level-0 pixels by which rounding may move a corner off its lattice."""


MOST_CROWDED = 0.1

MOST_CELLS = 10**8


@dataclass(frozen=True, eq=False)
class Lattice:
    """Rows and columns of patches.

    Attributes
    ----------
    index : ndarray of int32, shape (N, 2)
        Row and column of each patch.
    step : tuple of float
        Level-0 pixels from one to the next, along x and y.
    origin : tuple of float
        Upper left corner of row 0, column 0, in level-0 pixels.
    misfit : float
        Level-0 pixels by which the worst patch lies off the lattice.
    crowded : int
        Patches that share a place with another one.
    """

    index: NDArray[np.int32]
    step: tuple[float, float]
    origin: tuple[float, float]
    misfit: float
    crowded: int

    def shape(self, size: tuple[int, int]) -> tuple[int, int]:
        """Count rows and columns over a slide of this width and height."""
        fit = [int((size[i] - self.origin[i]) / self.step[i] + 1e-9) for i in (1, 0)]
        least = self.index.max(axis=0) + 1 if len(self.index) else (0, 0)
        return max(fit[0], int(least[0])), max(fit[1], int(least[1]))


def find_lattice(xy: Floats, size: tuple[float, float]) -> Lattice:
    """Find rows and columns.

    Tools that lay patches over each piece of tissue from its own corner (CLAM) have
    one lattice a piece. All are put on that of the most patches, at the nearest place.

    Parameters
    ----------
    xy : ndarray of float64, shape (N, 2)
        Upper left corners in level-0 pixels.
    size : tuple of float
        Width and height of a patch in level-0 pixels.

    Raises
    ------
    FeatureError
        If there is none: one patch in ten would share a place, or it would have more
        rows and columns than any slide.
    """
    if not len(xy):
        return Lattice(np.empty((0, 2), np.int32), size, (0.0, 0.0), 0.0, 0)
    along = [_fit(xy[:, i], _step(xy[:, i], xy[:, 1 - i], size[i])) for i in (0, 1)]
    (columns, x_step, left), (rows, y_step, top) = along
    index = np.stack([rows, columns], axis=1)
    if (index.max(axis=0) + 1).prod(dtype=float) > MOST_CELLS:
        raise FeatureError("its patches are too small for where they lie")
    crowded = len(index) - len(np.unique(index, axis=0))
    if crowded > MOST_CROWDED * len(index):
        raise FeatureError(
            f"its patches lie on no lattice: {crowded} of {len(index)} would share a "
            "place with another",
            hint="Check --patch-size-level0",
        )
    placed = np.asarray((left, top)) + index[:, ::-1] * (x_step, y_step)
    misfit = float(np.abs(placed - xy).max())
    return Lattice(
        index.astype(np.int32), (x_step, y_step), (left, top), misfit, crowded
    )


def _step(along: Floats, across: Floats, size: float) -> float:
    """Give the commonest distance of neighbours in a line.

    That is less than a patch where they overlap, and exactly one where that explains it.
    """
    across = np.rint(across)
    order = np.lexsort((along, across))
    gaps = np.diff(along[order])[np.diff(across[order]) == 0]
    gaps = gaps[gaps > ROUNDING]
    if not len(gaps):
        return size
    lengths, counts = np.unique(np.rint(gaps), return_counts=True)
    commonest = lengths[counts.argmax()]
    step = float(gaps[np.abs(gaps - commonest) <= ROUNDING].mean())
    patches = max(round(step / size), 1)
    return size if abs(step - patches * size) <= patches * ROUNDING else step


def _fit(values: Floats, step: float) -> tuple[NDArray[np.int64], float, float]:
    """Give each value its place along one axis, the step and the origin."""
    there = np.unique(values)
    places = np.concatenate([[0], np.cumsum(np.rint(np.diff(there) / step))])
    for trial in (step, _slope(places, there)):
        origin = float(np.median(there - places * trial))
        off = np.abs(there - origin - places * trial).max()
        if trial > 0 and off <= ROUNDING:
            index = places[np.searchsorted(there, values)].astype(np.int64)
            return _from_edge(index, trial, origin)
    phases, counts = np.unique(np.rint(values % step), return_counts=True)
    origin = float(phases[counts.argmax()])
    index = np.rint((values - origin) / step).astype(np.int64)
    return _from_edge(index, step, origin)


def _slope(places: Floats, there: Floats) -> float:
    """Give the step that fits best: stated ones are rounded, and errors add up."""
    if places[-1] == 0:
        return 0.0
    centred = places - places.mean()
    return float((centred * there).sum() / (centred**2).sum())


def _from_edge(
    index: NDArray[np.int64], step: float, origin: float
) -> tuple[NDArray[np.int64], float, float]:
    """Count from the slide's edge, so that lattices of several files compare."""
    first = int(np.floor((origin + ROUNDING) / step))
    index, origin = index + first, origin - first * step
    # Where lattices were joined, one may begin before the other's edge.
    least = min(int(index.min()), 0)
    return index - least, step, origin + least * step
