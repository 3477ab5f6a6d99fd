"""Every option of classifiers of cells and patches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from napari_mcm.core.encoders.compute import ComputeConfig
from napari_mcm.core.mae.config import AugmentConfig, Chunk, ModelConfig
from napari_mcm.core.slides import ReadConfig

BOX_MARGIN = 0.1
BoxMargin = Annotated[
    float,
    Field(ge=0, le=2, description="Rim around a cell's box, in parts of its side."),
]


class LabelsConfig(BaseModel):
    """How labelled images are found and split."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    layout: Literal["auto", "csv", "folders", "splits", "bccd"] = Field(
        "auto",
        description="A table of path, label and maybe split and group; a folder a class; "
        "a folder a split (Train, TestA, train/data) of folders a class; or BCCD's frames "
        "with boxes. auto looks what is there.",
    )
    classes: tuple[str, ...] = Field(
        (), description="Classes in their order; by default all that any split has."
    )
    validation: float = Field(
        0.15,
        ge=0,
        lt=1,
        description="Part of the training images to validate on, in whole groups, where "
        "the data have no validation split of their own.",
    )
    on_leak: Literal["error", "drop"] = Field(
        "error",
        description="What to do where a group (a field of view) stands in two splits: "
        "stop, or drop its images from the training split.",
    )
    box_margin: BoxMargin = BOX_MARGIN


class FitConfig(BaseModel):
    """How a classifier learns."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    learn: Literal["full", "probe"] = Field(
        "full",
        description="Fine-tune all weights, or a linear layer on frozen features.",
    )
    steps: int = Field(
        1000, ge=1, description="Optimiser steps, whatever the number of images."
    )
    batch_size: int = Field(32, ge=1, description="Images a step.")
    base_lr: float | None = Field(
        None,
        gt=0,
        description="Peak rate at 256 images a step, which it follows; by default 1e-3, "
        "and 2e-2 for a probe.",
    )
    layer_decay: float = Field(
        0.65,
        gt=0,
        le=1,
        description="Factor on the rate from each layer to the one before it, for "
        "weights that have learned already; from scratch all learn alike.",
    )
    schedule: Literal["cosine", "linear"] = Field(
        "cosine", description="How the rate falls to 0 after the warm-up."
    )
    warmup: float = Field(
        0.05, ge=0, lt=1, description="Part of the steps that warm up."
    )
    weight_decay: float = Field(
        0.05, ge=0, description="AdamW decay, not on 1-D weights; none for a probe."
    )
    label_smoothing: float = Field(
        0.1, ge=0, lt=1, description="Part of each label that is spread over all."
    )
    balance: Literal["weights", "sampling", "none"] = Field(
        "weights",
        description="What makes up for rare classes: weights in the loss, drawing each "
        "class as often, or nothing.",
    )
    batch_norm: Literal["auto", "frozen", "train"] = Field(
        "auto",
        description="Batch-norm statistics: as loaded or learned anew; auto learns them "
        "from scratch only.",
    )
    clip_norm: float = Field(1.0, gt=0, description="Bound on the gradient's norm.")
    seed: int = Field(0, ge=0, description="Seed of everything random.")

    @property
    def peak_lr(self) -> float:
        """The rate after the warm-up, ``base_lr * batch_size / 256``."""
        base = self.base_lr or (1e-3 if self.learn == "full" else 2e-2)
        return base * self.batch_size / 256


def tiny_unless_named(given: Any) -> Any:
    """Have the ViT be tiny where options of it are given, but not which one it is."""
    model = given.get("model") if isinstance(given, dict) else None
    if not isinstance(model, dict):
        return given
    return {**given, "model": {"model": "tiny", **model}}


class ClassifyConfig(BaseModel):
    """Training of a classifier of cells or patches."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Path | None = Field(None, description="Folder or table of labelled images.")
    out: Path | None = Field(None, description="Directory of the run; new or empty.")
    init: str = Field(
        "scratch",
        description="What it starts from: scratch (the ViT below), scratch:ENCODER (that "
        "encoder's network without its weights), mae:RUN, or any encoder.",
    )
    augment_as_mae: bool = Field(
        True,
        description="Crop, flip and colour images as the pre-training of mae:RUN did, "
        "but for options that are given otherwise.",
    )
    labels: LabelsConfig = LabelsConfig()
    model: ModelConfig = ModelConfig(model="tiny")
    fit: FitConfig = FitConfig()
    augment: AugmentConfig = AugmentConfig()
    compute: ComputeConfig = ComputeConfig()
    workers: int = Field(2, ge=0, le=64, description="Threads that read images ahead.")
    cache_mb: int = Field(
        256, ge=0, description="Decoded pictures kept in memory, in MB."
    )
    chunk_images: Chunk = Field(
        "auto",
        description="Images computed at once within a step; auto keeps a cancel under a "
        "second on a CPU.",
    )
    checkpoint_seconds: float = Field(
        60.0, ge=0, description="Seconds between checkpoints; 0 saves after every step."
    )

    @model_validator(mode="before")
    @classmethod
    def _tiny(cls, given: Any) -> Any:
        return tiny_unless_named(given)


class PredictCellsConfig(BaseModel):
    """Classes of pictures by a trained classifier."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    paths: tuple[Path, ...] = Field(
        min_length=2,
        description="Directory of a classifier's run; then pictures, or folders of them.",
    )
    out: Path | None = Field(None, description="Table to write: .csv.")
    compute: ComputeConfig = ComputeConfig()

    @property
    def run(self) -> Path:
        """Directory of the classifier's run."""
        return self.paths[0]

    @property
    def pictures(self) -> tuple[Path, ...]:
        """Pictures, and folders of them."""
        return self.paths[1:]


class MarkedCellsConfig(BaseModel):
    """Classes of cells that are marked on a slide or a picture."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slide: Path = Field(description="Slide or picture.")
    run: Path = Field(description="Directory of a classifier's run.")
    marks: Path = Field(
        description="Where cells are, in pixels of the finest level: .geojson with "
        "polygons or points, as QuPath writes it, or .csv with the columns x,y or "
        "left,top,right,bottom."
    )
    out: Path | None = Field(
        None,
        description="File to write: .geojson with the same objects, classified for "
        "QuPath, or .csv with a row a cell.",
    )
    side: int = Field(
        80,
        ge=4,
        le=2048,
        description="Side of the box around a point, in pixels of the finest level: as "
        "large as the pictures that the classifier was trained on show.",
    )
    box_margin: BoxMargin = BOX_MARGIN
    compute: ComputeConfig = ComputeConfig()
    read: ReadConfig = ReadConfig()


class EvaluateCellsConfig(BaseModel):
    """Scores of a trained classifier on labelled images."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    paths: tuple[Path, ...] = Field(
        min_length=2,
        max_length=2,
        description="Directory of a classifier's run; then the folder or table of "
        "labelled images.",
    )
    split: str = Field(
        "",
        description="Which split to score, as val or TestA; by default all but train, or "
        "everything where nothing is split.",
    )
    out: Path | None = Field(
        None, description="Folder for scores, predictions and figures."
    )
    labels: LabelsConfig = LabelsConfig()
    compute: ComputeConfig = ComputeConfig()

    @property
    def run(self) -> Path:
        """Directory of the classifier's run."""
        return self.paths[0]

    @property
    def data(self) -> Path:
        """Folder or table of labelled images."""
        return self.paths[1]
