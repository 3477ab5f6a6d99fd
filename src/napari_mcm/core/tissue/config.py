"""Every option of the search for tissue."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class TissueConfig(BaseModel):
    """How tissue is told from background."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tissue_mpp: float = Field(
        8.0, gt=0, description="Resolution of the tissue mask, in µm per pixel."
    )
    min_object_um: float = Field(
        100.0, ge=0, description="Smaller pieces are dropped: side of a square, in µm."
    )
    max_hole_um: float = Field(
        150.0, ge=0, description="Smaller holes are filled: side of a square, in µm."
    )
    masks: Path | None = Field(
        None,
        description="Folder of masks drawn by hand, NAME.geojson or NAME.png for each "
        "slide NAME, or one such file; slides without one are searched for tissue.",
    )
