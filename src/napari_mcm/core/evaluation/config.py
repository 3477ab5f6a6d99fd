"""Options of an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from napari_mcm.core.encoders.compute import ComputeConfig, ExactComputeConfig
from napari_mcm.core.features.config import BatchSize
from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.core.grid import GridConfig
from napari_mcm.core.registration.config import RegistrationConfig
from napari_mcm.core.slides import ReadConfig
from napari_mcm.core.tissue import TissueConfig


class ProtocolConfig(BaseModel):
    """How classifiers are trained and intervals are computed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    strength: Annotated[float, Field(gt=0)] | Literal["inner"] = Field(
        "inner",
        description="Inverse strength C of the linear probe's L2 penalty; inner "
        "chooses 0.1, 1, 10 or 100 by an inner split of the training groups.",
    )
    folds: int = Field(
        10,
        ge=2,
        le=1000,
        description="Maximum number of folds; with fewer groups, each group is a fold.",
    )
    neighbours: int = Field(
        20,
        ge=1,
        le=10_000,
        description="Number of nearest neighbours, by cosine similarity.",
    )
    few_shot: int = Field(
        10, ge=1, le=10_000, description="Labels per class of the few-shot probe."
    )
    draws: int = Field(
        40,
        ge=1,
        le=10_000,
        description="Number of few-shot draws averaged.",
    )
    candidates: Literal["other", "same", "all"] = Field(
        "other",
        description="Candidates of a similarity query: patches of other groups, of the "
        "same group, or all.",
    )
    resamples: int = Field(
        2000, ge=100, le=1_000_000, description="Bootstrap resamples per interval."
    )
    block_um: float = Field(
        1000.0,
        gt=0,
        description="Side in µm of the squares that are resampled if there are fewer "
        "than 5 groups.",
    )
    seed: int = Field(0, ge=0, description="Random seed.")


class SerialConfig(BaseModel):
    """The click test on two serial sections."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    queries: int = Field(
        300,
        ge=20,
        le=100_000,
        description="Patches of the first section that are looked for in the second.",
    )
    query_seed: int = Field(0, ge=0, description="Random seed of these patches.")


class EvaluateConfig(BaseModel):
    """Comparison of encoders on labelled patches."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slides: tuple[Path, ...] = Field(
        (),
        description="Slides to compute features of; with --features only for --serial.",
    )
    encoder: tuple[str, ...] = Field(
        (), description="Encoders to compare on the slides; the first is the reference."
    )
    features: tuple[str, ...] = Field(
        (),
        description="Folders of feature files to compare, one per encoder: DIR or "
        "NAME=DIR; the first is the reference.",
    )
    serial: bool = Field(
        False,
        description="Compare encoders without labels on two serial sections: a click on "
        "the first should find its own place in the second.",
    )
    labels: tuple[Path, ...] = Field(
        (),
        description="Labels of the slides: a folder of SLIDE.geojson or SLIDE.csv, one "
        "file per slide in the slides' order, or one label file (.labels.json).",
    )
    label_pattern: str | None = Field(
        None,
        description="Pattern of the label files in that folder; by default *.geojson, "
        "else *.csv.",
    )
    columns: tuple[str, str, str] = Field(
        ("x", "y", "label"),
        description="Columns of a CSV of points, in level-0 pixels. With a column "
        "radius, all patches within it are labelled, else the one around the point.",
    )
    classes: tuple[str, ...] = Field((), description="Classes to use; by default all.")
    exclude: tuple[str, ...] = Field(
        ("undetermined",), description="Classes to leave out."
    )
    positive: str | None = Field(
        None,
        description="Class whose AUROC against the others is measured; by default the "
        "mean over all classes.",
    )
    covered: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Min. fraction of a patch that its class covers, 0 to 1; with 0 the "
        "class at the patch's centre is used.",
        json_schema_extra={"flag": "min-coverage"},
    )
    centred: bool = Field(
        False,
        description="Place a patch centred on each labelled point, and its eight "
        "neighbours, instead of a lattice; for slides with a CSV of points.",
    )
    groups: Path | None = Field(
        None,
        description="CSV with the columns slide and patient: patients are left out "
        "and resampled as a whole; by default slides are.",
    )
    out: Path | None = Field(None, description="Folder for tables, figure and parts.")
    batch_size: BatchSize = Field(
        "auto", description="Patches per batch; auto is 16 on a CPU, 256 on a GPU."
    )
    workers: int = Field(2, ge=0, le=64, description="Threads that read slides ahead.")
    protocol: ProtocolConfig = ProtocolConfig()
    neighbourhood: NeighbourhoodConfig = NeighbourhoodConfig()
    click: SerialConfig = SerialConfig()
    registration: RegistrationConfig = RegistrationConfig()
    read: ReadConfig = ReadConfig()
    grid: GridConfig = GridConfig()
    tissue: TissueConfig = TissueConfig()
    compute: ExactComputeConfig = ComputeConfig(precision="float32")

    @field_validator("encoder", "features", mode="before")
    @classmethod
    def _one_or_more(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value
