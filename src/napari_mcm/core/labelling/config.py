"""Options of classifiers of patches."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from napari_mcm.core.features.feature_set import PATCH_ALONE, NeighbourhoodConfig


class ClassifierConfig(BaseModel):
    """How a classifier of patches is trained, and when it is unsure."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    regularization: float = Field(
        1.0,
        gt=0,
        le=1e6,
        description="Strength of the L2 penalty on the weights: more for smoother maps.",
    )
    unsure_below: float = Field(
        0.6,
        ge=0,
        le=1,
        description="Smallest probability of the likeliest class for a patch to count as "
        "that class; below, it is unsure.",
    )
    neighbourhood: NeighbourhoodConfig = PATCH_ALONE
