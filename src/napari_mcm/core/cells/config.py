"""Options of classifiers of cells and patches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from napari_mcm.core.encoders.compute import ComputeConfig
from napari_mcm.core.mae.config import AugmentConfig, ModelConfig
from napari_mcm.core.slides import ReadConfig
from napari_mcm.core.training import options

BOX_MARGIN = 0.1
BoxMargin = Annotated[
    float,
    Field(
        ge=0, le=2, description="Margin around a cell's box, as a fraction of its side."
    ),
]


class LabelsConfig(BaseModel):
    """How labelled images are found and split."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    layout: Literal["auto", "csv", "folders", "splits", "bccd"] = Field(
        "auto",
        description="csv: a table of path, label and optionally split and group; folders: "
        "one folder per class; splits: one folder per split (Train, TestA, train/data) "
        "with one folder per class; bccd: BCCD's frames with boxes; auto detects it.",
    )
    classes: tuple[str, ...] = Field(
        (), description="Classes in order; by default all classes of any split."
    )
    validation: float = Field(
        0.15,
        ge=0,
        lt=1,
        description="Held-out fraction of the training images, in whole groups, for "
        "validation; used where the data have no validation split.",
    )
    on_leak: Literal["error", "drop"] = Field(
        "error",
        description="What to do if a group (a field of view) is in two splits: stop "
        "(error), or drop its images from the training split.",
    )
    box_margin: BoxMargin = BOX_MARGIN


class FitConfig(BaseModel):
    """How a classifier is trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    learn: Literal["full", "probe"] = Field(
        "full",
        description="Fine-tune all weights (full), or train a linear layer on frozen "
        "features (probe).",
        json_schema_extra={"flag": "train"},
    )
    steps: int = Field(1000, ge=1, description="Number of optimiser steps.")
    batch_size: int = Field(32, ge=1, description="Images per step.")
    base_lr: float | None = Field(
        None,
        gt=0,
        description="Base learning rate: the peak rate for 256 images per step. The rate "
        "is scaled in proportion to the batch size. Default: 1e-3, and 2e-2 for a "
        "probe.",
    )
    layer_decay: float = Field(
        0.65,
        gt=0,
        le=1,
        description="Factor on the learning rate from each layer to the one before it, "
        "for pre-trained weights; not used from scratch.",
    )
    schedule: Literal["cosine", "linear"] = Field(
        "cosine", description="Decay of the learning rate to 0 after the warm-up."
    )
    warmup: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="Fraction of the steps in which the rate warms up.",
    )
    weight_decay: float = Field(
        0.05,
        ge=0,
        description="Weight decay of AdamW; not applied to 1-D weights, nor to a probe.",
    )
    label_smoothing: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Label smoothing: the fraction of a label that is spread over all "
        "classes.",
    )
    balance: Literal["weights", "sampling", "none"] = Field(
        "weights",
        description="Compensation for rare classes: weights in the loss, balanced "
        "sampling, or none.",
    )
    batch_norm: Literal["auto", "frozen", "train"] = Field(
        "auto",
        description="Batch-norm statistics: as loaded (frozen) or re-estimated during "
        "training (train); auto re-estimates them from scratch only.",
    )
    clip_norm: float = Field(1.0, gt=0, description="Maximum norm of the gradient.")
    seed: int = Field(0, ge=0, description="Random seed.")

    @property
    def peak_lr(self) -> float:
        """Return the learning rate after the warm-up.

        Returns
        -------
        float
            ``base_lr · batch_size / 256``.
        """
        base = self.base_lr or (1e-3 if self.learn == "full" else 2e-2)
        return base * self.batch_size / 256


def tiny_unless_named(given: Any) -> Any:
    """Default the ViT's size to tiny where its other options are given.

    Parameters
    ----------
    given : Any
        Options as given, a dict of which ``"model"`` is read.

    Returns
    -------
    Any
        The options, with the size where it was missing.
    """
    model = given.get("model") if isinstance(given, dict) else None
    if not isinstance(model, dict):
        return given
    return {**given, "model": {"model": "tiny", **model}}


class ClassifyConfig(options.TrainingOptions):
    """Training of a classifier of cells or patches."""

    data: Path | None = Field(None, description="Folder or table of labelled images.")
    out: options.RunFolder = None
    init: str = Field(
        "scratch",
        description="Initial weights: scratch (a ViT by the model options), "
        "scratch:ENCODER (that encoder's network with random weights), mae:RUN, or any "
        "encoder.",
    )
    augment_as_mae: bool = Field(
        True,
        description="Crop, flip and recolour images as in the pre-training of mae:RUN, "
        "except for options that are given explicitly.",
    )
    labels: LabelsConfig = LabelsConfig()
    model: ModelConfig = ModelConfig(model="tiny")
    fit: FitConfig = FitConfig()
    augment: AugmentConfig = AugmentConfig()
    compute: ComputeConfig = ComputeConfig()
    workers: options.Workers = 2
    cache_mb: int = Field(256, ge=0, description="Memory for decoded pictures, in MB.")
    chunk_images: options.Chunk = "auto"
    checkpoint_seconds: options.CheckpointSeconds = 60.0

    @model_validator(mode="before")
    @classmethod
    def _tiny(cls, given: Any) -> Any:
        return tiny_unless_named(given)


class PredictCellsConfig(options.RunPaths):
    """Classification of pictures by a trained classifier."""

    paths: tuple[Path, ...] = Field(
        min_length=2,
        description="Directory of a classifier's run; then pictures or folders.",
    )
    out: Path | None = Field(None, description="Table to write: .csv.")
    compute: ComputeConfig = ComputeConfig()


class MarkedCellsConfig(BaseModel):
    """Classification of cells that are annotated on a slide or a picture."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slide: Path = Field(description="Slide or picture.")
    run: Path = Field(description="Directory of a classifier's run.")
    marks: Path = Field(
        description="Annotated cells in level-0 pixels: .geojson with polygons or "
        "points, as QuPath writes it, or .csv with the columns x,y or "
        "left,top,right,bottom."
    )
    out: Path | None = Field(
        None,
        description="File to write: .geojson with the same objects, classified for "
        "QuPath, or .csv with one row per cell.",
    )
    side: int = Field(
        80,
        ge=4,
        le=2048,
        description="Side of the box around a point, in level-0 pixels. It should show "
        "as much tissue as the images that the classifier was trained on.",
    )
    box_margin: BoxMargin = BOX_MARGIN
    compute: ComputeConfig = ComputeConfig()
    read: ReadConfig = ReadConfig()


class EvaluateCellsConfig(options.RunPaths):
    """Scores of a trained classifier on labelled images."""

    paths: tuple[Path, ...] = Field(
        min_length=2,
        max_length=2,
        description="Directory of a classifier's run; then the folder or table of "
        "labelled images.",
    )
    split: str = Field(
        "",
        description="Split to score, such as val or TestA; by default all but train, or "
        "all images where there are no splits.",
    )
    out: Path | None = Field(
        None, description="Folder for scores, predictions and figures."
    )
    labels: LabelsConfig = LabelsConfig()
    compute: ComputeConfig = ComputeConfig()

    @property
    def data(self) -> Path:
        """Return the folder or table of labelled images.

        Returns
        -------
        Path
            The second path.
        """
        return self.paths[1]
