"""What goes in and out: a bag as a file states it, and rows ready to be written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.features.feature_set import FeatureSet

MICRONS_AT_1X = 10.0
"""µm per pixel at a magnification of 1: 0.25 at 40x."""


@dataclass(frozen=True, eq=False)
class ForeignFeatures:
    """One slide's patches, as a file of another tool states them.

    Attributes
    ----------
    kind : str
        The format.
    features : ndarray of float32, shape (N, D)
        As stored; not checked for NaN.
    xy : ndarray of float64, shape (N, 2)
        Upper left corners, or centres, in `unit`.
    name : str
        Of the slide.
    encoder : str
        The name of what computed them.
    centred : bool
        Whether `xy` are the patches' centres.
    unit : {"px", "um"}
        Level-0 pixels or microns.
    size : float or None
        Side of a patch in `unit`.
    patch_px : int or None
        Side of a patch in the pixels that the encoder saw.
    mpp : tuple of float or None
        Microns per level-0 pixel, along x and y.
    magnification : float or None
        Of level 0, where the file states no `mpp`.
    slide_size : tuple of int or None
        Width and height in level-0 pixels.
    precision : str
        Of the features in the file.
    slide_fingerprint : str
        Empty for files that other tools have written.
    """

    kind: str
    features: NDArray[np.float32]
    xy: NDArray[np.float64]
    name: str
    encoder: str
    centred: bool = False
    unit: Literal["px", "um"] = "px"
    size: float | None = None
    patch_px: int | None = None
    mpp: tuple[float, float] | None = None
    magnification: float | None = None
    slide_size: tuple[int, int] | None = None
    precision: str = "float32"
    slide_fingerprint: str = ""


@dataclass(frozen=True, eq=False)
class Rows:
    """Patches with features, ready for a writer.

    Attributes
    ----------
    features : ndarray of float32, shape (N, D)
        All finite.
    xy : ndarray of int64, shape (N, 2)
        Upper left corners in level-0 pixels.
    lattice : ndarray of int32, shape (N, 2)
        Row and column.
    size : tuple of float
        Width and height of a patch in level-0 pixels.
    patch_px, overlap_px : int
        Side of a patch and its overlap with the next, in pixels of `mpp`.
    mpp : float
        Microns per pixel of what the encoder saw.
    slide : mapping
        Name, fingerprint, size (level-0 px) and mpp (x, y).
    encoder : str
        Its name.
    quality : mapping of str to ndarray, shape (N,)
        Measures of the patches that are known.
    """

    features: NDArray[np.float32]
    xy: NDArray[np.int64]
    lattice: NDArray[np.int32]
    size: tuple[float, float]
    patch_px: int
    overlap_px: int
    mpp: float
    slide: Mapping[str, Any]
    encoder: str
    quality: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Written:
    """What was written: files, patches in them, patches left out for want of features."""

    files: tuple[Path, ...]
    patches: int
    left_out: int


def rows_of(features: FeatureSet) -> Rows:
    """Take the patches that have features, where they were read from.

    Overlapping patches of another tool stand on our lattice by their middle; they go
    out as they came in.
    """
    grid, ok = features.grid, features.ok
    ok = ok & np.isfinite(features.features).all(axis=1)
    came = features.provenance.get("imported", {})
    margin = np.asarray(came.get("margin", (0, 0)), np.int64)
    step = grid.patch_size_level0
    width, height = came.get("patch_size_level0", step)
    patch_px = int(came.get("patch_size", grid.patch_size))
    spec = features.encoder.get("spec") or features.encoder.get("architecture")
    quality = {n: v[ok] for n, v in features.quality.items() if np.isfinite(v).any()}
    return Rows(
        features.features[ok],
        grid.xy[ok] - margin,
        grid.lattice[ok],
        (float(width), float(height)),
        patch_px,
        max(round(patch_px * (1 - step[0] / width)), 0),
        grid.mpp,
        grid.slide,
        str(spec or "unknown"),
        quality,
    )
