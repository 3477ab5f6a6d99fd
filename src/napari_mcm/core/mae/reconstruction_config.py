"""Options of looking at reconstructions."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from napari_mcm.core.encoders.compute import ComputeConfig
from napari_mcm.core.heatmaps.config import Point
from napari_mcm.core.slides import ReadConfig


class ReconstructConfig(BaseModel):
    """What a masked autoencoder makes of pictures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    paths: tuple[Path, ...] = Field(
        min_length=2,
        description="Directory of a pre-training, finished or not; then pictures, or "
        "folders of them, or with --at slides.",
    )
    at: tuple[Point, ...] = Field(
        (),
        description="Place of a slide, in level-0 pixels, around which a patch is filled "
        "in.",
    )
    mask_ratio: tuple[float, ...] = Field(
        (), description="Part of the patches to hide; several are compared."
    )
    tiles: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Cut each picture into this many tiles a side; by default as the "
        "pre-training did.",
    )
    paste: bool = Field(True, description="Show visible patches as they are.")
    limit: int = Field(
        256, ge=1, description="Images to measure, at most; a tile counts as one."
    )
    shown: int = Field(6, ge=1, le=64, description="Images to draw, at most.")
    seed: int = Field(0, ge=0, description="Seed of what is hidden.")
    out: Path | None = Field(None, description="Figure to write: .png.")
    read: ReadConfig = ReadConfig()
    compute: ComputeConfig = ComputeConfig()

    @field_validator("mask_ratio")
    @classmethod
    def _between(cls, ratios: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < ratio < 1 for ratio in ratios):
            raise ValueError("a mask ratio lies between 0 and 1")
        return ratios

    @property
    def run(self) -> Path:
        """Directory of the pre-training."""
        return self.paths[0]

    @property
    def pictures(self) -> tuple[Path, ...]:
        """Pictures, and folders of them; slides where places are given."""
        return self.paths[1:]
