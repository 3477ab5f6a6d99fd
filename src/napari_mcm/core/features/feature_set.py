"""The noun `FeatureSet`: one vector a patch, and where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.grid import PatchGrid


class Status(IntEnum):
    """What became of a patch. Only `OK` ones have features; the others' are NaN."""

    OK = 0
    DECODE_ERROR = 1
    BLANK = 2
    OUTSIDE = 3
    PENDING = 255


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Features of one slide's patches.

    Attributes
    ----------
    features : ndarray of float32, shape (N, D)
        One row a patch, in the grid's order; NaN where the status is not `OK`.
    grid : PatchGrid
        Where the patches lie.
    status : ndarray of uint8, shape (N,)
        A :class:`Status` a patch.
    encoder : mapping
        The encoder's recipe and fingerprint.
    provenance : mapping
        When and with what it was made; not part of its identity.
    quality : mapping of str to ndarray of float32, shape (N,)
        ``"blur"`` and ``"artefact"`` of each patch, 0 good to 1 bad; see
        :mod:`napari_mcm.core.features.patches`. NaN where the status is not `OK`, and
        in files of before these were measured.
    """

    features: NDArray[np.float32]
    grid: PatchGrid
    status: NDArray[np.uint8]
    encoder: dict[str, Any]
    provenance: dict[str, Any] = field(default_factory=dict)
    quality: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows = len(self.grid)
        if self.features.ndim != 2 or len(self.features) != rows:
            raise FeatureError(
                f"features of shape {self.features.shape} for {rows} patches"
            )
        if self.status.shape != (rows,):
            raise FeatureError(
                f"status of shape {self.status.shape} for {rows} patches"
            )
        for name, values in self.quality.items():
            if values.shape != (rows,):
                raise FeatureError(f"{name} of shape {values.shape} for {rows} patches")

    def __len__(self) -> int:
        return len(self.features)

    @property
    def dim(self) -> int:
        """Length of a feature vector."""
        return int(self.features.shape[1])

    @property
    def ok(self) -> NDArray[np.bool_]:
        """Which patches have features (N,)."""
        return np.asarray(self.status == Status.OK)
