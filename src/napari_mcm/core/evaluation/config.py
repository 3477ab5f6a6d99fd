"""Every option of an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from napari_mcm.core.encoders.compute import ComputeConfig, ExactComputeConfig
from napari_mcm.core.features.config import BatchSize
from napari_mcm.core.grid import GridConfig
from napari_mcm.core.slides import ReadConfig
from napari_mcm.core.tissue import TissueConfig


class ProtocolConfig(BaseModel):
    """The protocol: how classifiers are trained and intervals drawn."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    strength: Annotated[float, Field(gt=0)] | Literal["inner"] = Field(
        "inner",
        description="Inverse strength C of the linear probe's L2 penalty; inner "
        "chooses among 0.1, 1, 10 and 100 in a split of the training groups.",
    )
    folds: int = Field(
        10,
        ge=2,
        le=1000,
        description="Groups are left out one by one, or in this many folds where "
        "there are more.",
    )
    neighbours: int = Field(
        20, ge=1, le=10_000, description="Neighbours that vote, by cosine similarity."
    )
    few_shot: int = Field(
        10, ge=1, le=10_000, description="Labels a class of the few-shot probe."
    )
    draws: int = Field(
        40,
        ge=1,
        le=10_000,
        description="Draws of those labels, of which the mean counts.",
    )
    candidates: Literal["other", "same", "all"] = Field(
        "other",
        description="What a query is compared with: patches of other groups, of its "
        "own, or all.",
    )
    resamples: int = Field(
        2000, ge=100, le=1_000_000, description="Bootstrap resamples of intervals."
    )
    block_um: float = Field(
        1000.0,
        gt=0,
        description="Side in µm of the squares that are resampled where there are "
        "fewer than 5 groups.",
    )
    seed: int = Field(0, ge=0, description="Names the random draws.")


class EvaluateConfig(BaseModel):
    """Encoders side by side on labelled patches."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slides: tuple[Path, ...] = Field(
        (), description="Slides to compute features of; none with --features."
    )
    encoder: tuple[str, ...] = Field(
        (), description="Encoders to compare on the slides; the first is the reference."
    )
    features: tuple[str, ...] = Field(
        (),
        description="Folders of feature files to compare, one an encoder: DIR or "
        "NAME=DIR; the first is the reference.",
    )
    labels: tuple[Path, ...] = Field(
        (),
        description="Labels of the slides: a folder of SLIDE.geojson or SLIDE.csv, or "
        "a file a slide in the slides' order.",
    )
    label_pattern: str | None = Field(
        None,
        description="Which files of that folder hold labels; by default *.geojson, "
        "else *.csv.",
    )
    columns: tuple[str, str, str] = Field(
        ("x", "y", "label"),
        description="Columns of a CSV of points, in level-0 pixels; with a column "
        "radius, patches within it are labelled, else the one that holds the point.",
    )
    classes: tuple[str, ...] = Field(
        (), description="Classes to tell apart; by default all."
    )
    exclude: tuple[str, ...] = Field(
        ("undetermined",), description="Classes to leave out."
    )
    positive: str | None = Field(
        None,
        description="Class whose AUROC against the others counts; by default the mean "
        "over all classes.",
    )
    covered: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Least part of a patch that its class covers, 0 to 1; with 0 the "
        "class at the patch's centre counts.",
    )
    centred: bool = Field(
        False,
        description="Lay a patch centred on each labelled point, and its eight "
        "neighbours, instead of a lattice; for slides with a CSV of points.",
    )
    groups: Path | None = Field(
        None,
        description="CSV with the columns slide and patient: patients are left out "
        "and resampled as a whole; by default slides are.",
    )
    out: Path | None = Field(None, description="Folder of tables, figure and parts.")
    batch_size: BatchSize = Field(
        "auto", description="Patches a batch; auto is 16 on a CPU, 256 on a GPU."
    )
    workers: int = Field(2, ge=0, le=64, description="Threads that read slides ahead.")
    protocol: ProtocolConfig = ProtocolConfig()
    read: ReadConfig = ReadConfig()
    grid: GridConfig = GridConfig()
    tissue: TissueConfig = TissueConfig()
    compute: ExactComputeConfig = ComputeConfig(precision="float32")

    @field_validator("encoder", "features", mode="before")
    @classmethod
    def _one_or_more(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value
