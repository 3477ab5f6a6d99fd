"""The records that format modules exchange: `ForeignFeatures` read, `Rows` to write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.feature_set import FeatureSet, NeighbourhoodConfig
from napari_mcm.core.features.interchange.containers import text

MICRONS_AT_1X = 10.0
"""Microns per pixel at a magnification of 1; this gives 0.25 at 40x."""


@dataclass(frozen=True, eq=False)
class ForeignFeatures:
    """The patches of one slide, as a file of another tool states them.

    Attributes
    ----------
    kind : str
        The format.
    features : ndarray of float32, shape (N, D)
        As stored; not checked for NaN.
    xy : ndarray of float64, shape (N, 2)
        Upper left corners, or centres, in `unit`.
    name : str
        Name of the slide.
    encoder : str
        Name of the encoder.
    centred : bool
        Whether `xy` are the centres of patches.
    unit : {"px", "um"}
        Level-0 pixels or microns.
    size : float or None
        Side of a patch in `unit`.
    patch_px : int or None
        Side of a patch in pixels of the encoder's input.
    mpp : tuple of float or None
        Microns per level-0 pixel, along x and y.
    magnification : float or None
        Magnification of level 0, where the file states no `mpp`.
    slide_size : tuple of int or None
        Width and height in level-0 pixels.
    precision : str
        Type of the features in the file.
    slide_fingerprint : str
        Empty for files that other tools have written.
    neighbourhood : NeighbourhoodConfig
        What each row was averaged over, as far as the file states it.
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
    neighbourhood: NeighbourhoodConfig = NeighbourhoodConfig()


@dataclass(frozen=True, eq=False)
class Rows:
    """Patches with features, ready to be written.

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
        Microns per pixel of the encoder's input.
    slide : mapping
        Name, fingerprint, size (level-0 pixels) and mpp (x, y).
    encoder : str
        Name of the encoder.
    quality : mapping of str to ndarray of float32, shape (N,)
        Quality measures, where they are known.
    neighbourhood : NeighbourhoodConfig
        What each row of `features` was averaged over.
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
    neighbourhood: NeighbourhoodConfig = NeighbourhoodConfig()

    @property
    def context(self) -> dict[str, Any]:
        """Return the attributes that say what the features were averaged over.

        Returns
        -------
        dict
            ``neighbourhood_radius`` in patch widths and ``neighbourhood_weights``;
            empty for features of single patches.
        """
        if not self.neighbourhood.radius:
            return {}
        return {
            "neighbourhood_radius": self.neighbourhood.radius,
            "neighbourhood_weights": self.neighbourhood.weights,
        }


@dataclass(frozen=True)
class Written:
    """The result of writing features in another format.

    Attributes
    ----------
    files : tuple of Path
        The files.
    patches : int
        Patches in them.
    left_out : int
        Patches that have no features.
    """

    files: tuple[Path, ...]
    patches: int
    left_out: int


def rows_of(features: FeatureSet) -> Rows:
    """Return the patches that have features, at the positions where they were read.

    Overlapping patches of another tool are stored by their middle; here they get their
    original corner and size again.

    Parameters
    ----------
    features : FeatureSet
        Of one slide.

    Returns
    -------
    Rows
        Patches whose features are finite.
    """
    grid, ok = features.grid, features.ok
    ok = ok & np.isfinite(features.features).all(axis=1)
    imported = features.provenance.get("imported", {})
    margin = np.asarray(imported.get("margin", (0, 0)), np.int64)
    step = grid.patch_size_level0
    width, height = imported.get("patch_size_level0", step)
    patch_px = int(imported.get("patch_size", grid.patch_size))
    spec = features.encoder.get("spec") or features.encoder.get("architecture")
    # Imported features have no measures: columns of NaN would only confuse.
    quality = {n: v[ok] for n, v in features.quality.items() if np.isfinite(v).any()}
    return Rows(
        features.features[ok],
        grid.xy[ok] - margin,
        grid.lattice[ok],
        (float(width), float(height)),
        patch_px,
        # Patches of width w at steps s < w share w - s, in pixels of the patch here.
        max(round(patch_px * (1 - step[0] / width)), 0),
        grid.mpp,
        grid.slide,
        str(spec or "unknown"),
        quality,
        features.neighbourhood,
    )


def stated_neighbourhood(attributes: Mapping[str, Any]) -> NeighbourhoodConfig:
    """Read what features were averaged over from the attributes of a file.

    Parameters
    ----------
    attributes : mapping
        As :attr:`Rows.context` wrote them; files of other tools have none.

    Returns
    -------
    NeighbourhoodConfig
        The patch alone where nothing is stated.

    Raises
    ------
    FeatureError
        If it states one that does not exist.
    """
    if "neighbourhood_radius" not in attributes:
        return NeighbourhoodConfig()
    weights = text(attributes, "neighbourhood_weights", "uniform")
    try:
        radius = float(attributes["neighbourhood_radius"])
        return NeighbourhoodConfig.model_validate(
            {"radius": radius, "weights": weights}
        )
    except (TypeError, ValueError):
        stated = attributes["neighbourhood_radius"]
        raise FeatureError(
            f"states a neighbourhood of radius {stated} ({weights}), which does not exist"
        ) from None
