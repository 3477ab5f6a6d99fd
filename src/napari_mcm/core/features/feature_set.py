"""The `FeatureSet`: one feature vector per patch of a slide, with its origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.grid import PatchGrid


class NeighbourhoodConfig(BaseModel):
    """How much of the surrounding tissue the features of a patch include."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    radius: int = Field(
        0,
        ge=0,
        le=3,
        description="Average features over the tissue patches around each patch, up to "
        "this many patch widths away (0: the patch alone, 1: 3 × 3 patches).",
        json_schema_extra={"flag": "context"},
    )
    weights: Literal["uniform", "distance"] = Field(
        "uniform",
        description="Whether all patches around count alike, or nearer ones count more: "
        "1 / (1 + distance in patch widths).",
        json_schema_extra={"flag": "context-weights"},
    )

    def describe(self) -> str:
        """Return what one feature vector covers, in patches.

        Returns
        -------
        str
            ``"patch"``, ``"3 × 3"``, ``"5 × 5"`` or ``"7 × 7"``; with
            ``", distance-weighted"`` where nearer patches count more.
        """
        if not self.radius:
            return "patch"
        side = 2 * self.radius + 1
        weighted = ", distance-weighted" if self.weights == "distance" else ""
        return f"{side} × {side}{weighted}"


def known_fingerprint(encoder: Mapping[str, Any]) -> str:
    """Return the fingerprint of the encoder that made features, if it is known.

    Parameters
    ----------
    encoder : mapping
        An encoder, as a feature file describes it.

    Returns
    -------
    str
        Empty where the weights are unknown: other tools' files state a name at most, and
        get a hash of their own vectors.
    """
    fingerprint = str(encoder.get("fingerprint") or "")
    return "" if fingerprint.startswith(OF_VECTORS) else fingerprint


OF_VECTORS = "features-"
"""How the fingerprint of an encoder begins whose weights are unknown."""

PATCH_ALONE = NeighbourhoodConfig()
"""Features of single patches, as they are stored."""


class Status(IntEnum):
    """Whether a patch has features, and why not.

    Attributes
    ----------
    OK
        It has features. All others have NaN.
    DECODE_ERROR
        Its pixels could not be decoded.
    BLANK
        It shows one colour only.
    OUTSIDE
        It reaches beyond the slide.
    PENDING
        It is not computed yet.
    """

    OK = 0
    DECODE_ERROR = 1
    BLANK = 2
    OUTSIDE = 3
    # The fill value of the array: rows that were never written read as pending.
    PENDING = 255


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Features of one slide's patches.

    Attributes
    ----------
    features : ndarray of float32, shape (N, D)
        One row per patch, in the grid's order; NaN where the status is not `OK`.
    grid : PatchGrid
        Positions of the patches.
    status : ndarray of uint8, shape (N,)
        A :class:`Status` per patch.
    encoder : dict
        The encoder's recipe and fingerprint.
    provenance : dict
        When and with what it was made; not part of its identity.
    quality : mapping of str to ndarray of float32, shape (N,)
        ``"blur"`` and ``"artefact"`` of each patch, 0 good to 1 bad; see
        :mod:`napari_mcm.core.features.patches`. NaN where the status is not `OK`, and
        in files of versions that did not measure them.
    neighbourhood : NeighbourhoodConfig
        Which patches each row was averaged over; by default the patch alone. See
        :mod:`napari_mcm.core.features.neighbourhood`.

    Raises
    ------
    FeatureError
        If the arrays do not match the grid.
    """

    features: NDArray[np.float32]
    grid: PatchGrid
    status: NDArray[np.uint8]
    encoder: dict[str, Any]
    provenance: dict[str, Any] = field(default_factory=dict)
    quality: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    neighbourhood: NeighbourhoodConfig = PATCH_ALONE

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
        """Return the length of a feature vector.

        Returns
        -------
        int
            The number of columns, D.
        """
        return int(self.features.shape[1])

    @property
    def ok(self) -> NDArray[np.bool_]:
        """Return which patches have features.

        Returns
        -------
        ndarray of bool, shape (N,)
            True where the status is `OK`.
        """
        return np.asarray(self.status == Status.OK)
