"""Options of pre-training by masked autoencoding."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from napari_mcm.core.encoders.compute import ComputeConfig
from napari_mcm.core.grid import GridConfig
from napari_mcm.core.heatmaps.config import Point
from napari_mcm.core.slides import ReadConfig
from napari_mcm.core.tissue import TissueConfig
from napari_mcm.core.training import options

PresetName = Literal["reference", "experiment1", "experiment2", "experiment3"]


# As the course project's code ran: pictures cut into 4 x 4 tiles, no normalisation.
_AS_RUN: Mapping[str, Any] = {
    "model": {"model": "base", "image_size": 224, "vit_patch": 16},
    "images": {"tiles": 4},
    "augment": {"crop_scale": 0.2, "normalisation": "none"},
}


def _experiment(mask_ratio: float, **recipe: Any) -> dict[str, Any]:
    # The default beta 2 of that project's library; MAE's own is 0.95.
    common = {"warmup": 0.05, "beta2": 0.999, "epochs": 100, "clip_norm": 1.0}
    return {
        **_AS_RUN,
        "masking": {"mask_ratio": mask_ratio},
        "recipe": {**common, **recipe},
    }


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "reference": {},
    # The mask ratio of the run; the report states 0.75.
    "experiment1": _experiment(
        0.5, base_lr=1.5e-4, batch_size=1920, schedule="cosine", weight_decay=0.05
    ),
    # The encoder of this run initialised the project's classifiers.
    "experiment2": _experiment(
        0.75, base_lr=5e-5, batch_size=640, schedule="cosine", weight_decay=0.01
    ),
    "experiment3": _experiment(
        0.25, base_lr=8e-5, batch_size=640, schedule="linear", weight_decay=0.01
    ),
}
"""Options by preset, nested as in ``PretrainConfig``; "reference" has the defaults."""


assert set(PRESETS) == set(get_args(PresetName))


Rgb = tuple[float, float, float]

NORMALISATIONS: dict[str, tuple[Rgb, Rgb]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""Mean and standard deviation by name, of pixels from 0 to 1."""


DECODERS = {
    "tiny": (128, 4, 4),
    "small": (256, 4, 8),
    "base": (512, 8, 16),
    "large": (512, 8, 16),
}
"""Width, depth and heads of the decoder by the size of the ViT."""


class ModelConfig(BaseModel):
    """The Vision Transformer."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: Literal["tiny", "small", "base", "large"] = Field(
        "base", description="Size of the ViT: width 192, 384, 768 or 1024."
    )
    image_size: int = Field(
        224, ge=16, le=2048, description="Side of the input images, in pixels."
    )
    vit_patch: int = Field(
        16, ge=2, le=128, description="Side of the ViT's patches, in pixels."
    )
    depth: int | None = Field(
        None, ge=1, le=48, description="Blocks; by default as the size has."
    )
    pool: Literal["avg", "token"] = Field(
        "avg",
        description="Feature of an image: the mean of its patches' tokens (avg), or the "
        "class token (token).",
    )

    @model_validator(mode="after")
    def _patches_fit(self) -> ModelConfig:
        if self.image_size % self.vit_patch:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of vit_patch "
                f"{self.vit_patch}"
            )
        return self

    @property
    def grid(self) -> int:
        """Return the number of patches per side of an image.

        Returns
        -------
        int
            ``image_size // vit_patch``.
        """
        return self.image_size // self.vit_patch


class MaskingConfig(BaseModel):
    """Masking, targets and decoder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mask_ratio: float = Field(
        0.75, gt=0, lt=1, description="Fraction of an image's patches to hide."
    )
    norm_targets: bool = Field(
        True, description="Scale each target patch to zero mean and unit variance."
    )
    decoder_width: int | None = Field(
        None, ge=8, description="Width of the decoder; by default as the model's size."
    )
    decoder_depth: int | None = Field(
        None, ge=1, description="Blocks of the decoder; by default as the model's size."
    )
    decoder_heads: int | None = Field(
        None,
        ge=1,
        description="Attention heads of the decoder; by default as the model's size.",
    )


class AugmentConfig(BaseModel):
    """Random augmentation of images, and their normalisation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    crop_scale: float = Field(
        0.2,
        gt=0,
        le=1,
        description="Min. fraction of the image that a random crop keeps; 1 never crops.",
    )
    flips: bool = Field(
        True, description="Flip at random, left to right and top to bottom."
    )
    colour_jitter: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Random change of brightness, contrast and saturation, up to this "
        "fraction.",
    )
    normalisation: Literal["imagenet", "half", "none"] = Field(
        "imagenet",
        description="Mean and standard deviation that pixels are normalised by: "
        "ImageNet's, 0.5 and 0.5 (half), or none (0 to 1).",
    )

    @property
    def mean(self) -> Rgb:
        """Return the mean of each channel that pixels are normalised by.

        Returns
        -------
        tuple of float
            Red, green, blue, for pixels from 0 to 1.
        """
        return NORMALISATIONS[self.normalisation][0]

    @property
    def std(self) -> Rgb:
        """Return the standard deviation of each channel that pixels are normalised by.

        Returns
        -------
        tuple of float
            Red, green, blue, for pixels from 0 to 1.
        """
        return NORMALISATIONS[self.normalisation][1]


class ImagesConfig(BaseModel):
    """Where images come from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slides: tuple[Path, ...] = Field(
        (), description="Slides whose tissue patches are images, too."
    )
    tiles: int = Field(
        1,
        ge=1,
        le=64,
        description="Tiles per side that each picture is divided into; 4 gives 16 tiles.",
    )
    cache_mb: int = Field(256, ge=0, description="Memory for decoded pictures, in MB.")


class RecipeConfig(BaseModel):
    """Optimiser, learning rate and duration of the training."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(800, ge=1, description="Passes over all images.")
    steps: int | None = Field(
        None, ge=1, description="Number of optimiser steps, instead of epochs."
    )
    batch_size: int = Field(256, ge=1, description="Images per step.")
    base_lr: float = Field(
        1.5e-4,
        gt=0,
        description="Base learning rate: the peak rate for 256 images per step. The rate "
        "is scaled in proportion to the batch size.",
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
        0.05, ge=0, description="Weight decay of AdamW; not applied to 1-D weights."
    )
    beta1: float = Field(0.9, ge=0, lt=1, description="Beta 1 of AdamW.")
    beta2: float = Field(0.95, ge=0, lt=1, description="Beta 2 of AdamW.")
    clip_norm: float | None = Field(
        None, gt=0, description="Maximum norm of the gradient."
    )
    seed: int = Field(0, ge=0, description="Random seed.")

    @property
    def peak_lr(self) -> float:
        """Return the learning rate after the warm-up.

        Returns
        -------
        float
            ``base_lr · batch_size / 256``.
        """
        # The rule of Goyal et al. (2017) with the base of MAE, 256 images.
        return self.base_lr * self.batch_size / 256


class PretrainConfig(options.TrainingOptions):
    """Masked autoencoding on unlabelled images."""

    presets = PRESETS

    preset: PresetName = Field(
        "reference", description="Named set of options; explicit options override it."
    )
    pictures: tuple[Path, ...] = Field(
        (), description="Pictures, or folders that are searched with all subfolders."
    )
    out: options.RunFolder = None
    start: str | None = Field(
        None,
        description="Encoder of the same ViT to start from, such as timm's "
        "vit_base_patch16_224.mae.",
    )
    model: ModelConfig = ModelConfig()
    masking: MaskingConfig = MaskingConfig()
    images: ImagesConfig = ImagesConfig()
    augment: AugmentConfig = AugmentConfig()
    recipe: RecipeConfig = RecipeConfig()
    read: ReadConfig = ReadConfig()
    grid: GridConfig = GridConfig()
    tissue: TissueConfig = TissueConfig()
    compute: ComputeConfig = ComputeConfig()
    workers: options.Workers = 2
    chunk_images: options.Chunk = "auto"
    checkpoint_seconds: options.CheckpointSeconds = 60.0


class ReconstructConfig(options.RunPaths):
    """Reconstructions of images by a masked autoencoder."""

    paths: tuple[Path, ...] = Field(
        min_length=2,
        description="Directory of a pre-training, finished or not; then pictures or "
        "folders, or slides with --at.",
    )
    at: tuple[Point, ...] = Field(
        (),
        description="Centre of a slide's patch to reconstruct, in level-0 pixels.",
    )
    mask_ratio: tuple[float, ...] = Field(
        (), description="Fraction of the patches to hide; several are compared."
    )
    tiles: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Tiles per side that each picture is divided into; by default as in "
        "the pre-training.",
    )
    paste: bool = Field(True, description="Show visible patches unchanged.")
    limit: int = Field(
        256, ge=1, description="Maximum number of images to measure; a tile is one."
    )
    shown: int = Field(
        6,
        ge=1,
        le=64,
        description="Maximum number of images to draw.",
        json_schema_extra={"flag": "max-images"},
    )
    seed: int = Field(0, ge=0, description="Random seed of the hidden patches.")
    out: Path | None = Field(None, description="Figure to write: .png.")
    read: ReadConfig = ReadConfig()
    compute: ComputeConfig = ComputeConfig()

    @field_validator("mask_ratio")
    @classmethod
    def _between(cls, ratios: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < ratio < 1 for ratio in ratios):
            raise ValueError("a mask ratio must lie between 0 and 1")
        return ratios
