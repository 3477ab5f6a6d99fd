"""Every option of feature extraction."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from napari_mcm.core.encoders.compute import ComputeConfig
from napari_mcm.core.grid import GridConfig
from napari_mcm.core.slides import ReadConfig
from napari_mcm.core.tissue import TissueConfig

BatchSize = Annotated[int, Field(ge=1, le=65_536)] | Literal["auto"]


class ExtractConfig(BaseModel):
    """Features of all patches of a set of slides."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slides: tuple[Path, ...] = Field((), description="Slides to compute features of.")
    encoder: tuple[str, ...] = Field(
        ("offline:efficientnet_lite0",),
        min_length=1,
        description="A timm name, offline:NAME, a run or a safetensors file; several "
        "read each patch once and write to a folder each.",
    )
    out: Path | None = Field(None, description="Folder of the feature files.")
    batch_size: BatchSize = Field(
        "auto", description="Patches a batch; auto is 16 on a CPU, 256 on a GPU."
    )
    workers: int = Field(2, ge=0, le=64, description="Threads that read slides ahead.")
    block: int = Field(
        256, ge=1, le=65_536, description="Patches written at a time: lost by a kill."
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Compile encoders, which takes seconds and makes them faster; auto "
        "compiles for slides of 3,000 patches or more.",
    )
    scheduler: str | None = Field(
        None,
        description="Address of a dask.distributed scheduler to hand slides to.",
    )
    local_cluster: int = Field(
        0, ge=0, le=256, description="Worker processes to start here; 0 for none."
    )
    publish: str | None = Field(
        None,
        description="URL of a folder that each finished feature file is copied to, such "
        "as s3://bucket/features; what is there already is not extracted again.",
    )
    overwrite: bool = Field(
        False, description="Replace feature files that were made in another way."
    )
    beside: bool = Field(
        False,
        description="Where a feature file was made in another way, write the new one "
        "beside it.",
    )
    read: ReadConfig = ReadConfig()
    grid: GridConfig = GridConfig()
    tissue: TissueConfig = TissueConfig()
    compute: ComputeConfig = ComputeConfig()

    @field_validator("beside")
    @classmethod
    def _not_both(cls, value: bool, others: ValidationInfo) -> bool:
        if value and others.data.get("overwrite"):
            raise ValueError("cannot be asked together with --overwrite")
        return value

    @field_validator("encoder", mode="before")
    @classmethod
    def _one_or_more(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value
