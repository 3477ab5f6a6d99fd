"""Options of a registration."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class RegistrationConfig(BaseModel):
    """How serial sections are registered, and how the error is measured."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    registration_mpp: float = Field(
        16.0,
        gt=0,
        le=200,
        description="µm per pixel of the last step; small sections are registered finer, "
        "huge ones coarser.",
    )
    error_blocks: int = Field(
        64,
        ge=0,
        le=10_000,
        description="Squares of tissue, left out of the fit in turns, on which the error "
        "is measured.",
    )
    registration_seed: int = Field(0, ge=0, description="Random seed of those squares.")
