"""Every option of slide classification by multiple-instance learning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from napari_mcm.core.encoders.compute import ComputeConfig, ExactComputeConfig
from napari_mcm.core.slides import ReadConfig

ModelName = Literal["mean", "max", "abmil", "clam_sb", "clam_mb", "transmil", "dsmil"]
Size = Annotated[int, Field(ge=1, le=65_536)] | Literal["auto"]
Rate = Annotated[float, Field(gt=0, le=10)] | Literal["auto"]
Decay = Annotated[float, Field(ge=0, le=10)] | Literal["auto"]

RECIPES: dict[str, dict[str, Any]] = {
    "mean": {"lr": 4e-4, "weight_decay": 1e-5, "optimiser": "adam", "schedule": "none"},
    "max": {"lr": 4e-4, "weight_decay": 1e-5, "optimiser": "adam", "schedule": "none"},
    "abmil": {
        "width": 384,
        "lr": 4e-4,
        "weight_decay": 1e-5,
        "optimiser": "adam",
        "schedule": "none",
    },
    "clam_sb": {
        "width": 256,
        "lr": 2e-4,
        "weight_decay": 1e-5,
        "optimiser": "adam",
        "schedule": "none",
    },
    "transmil": {
        "lr": 2e-4,
        "weight_decay": 1e-5,
        "optimiser": "radam",
        "schedule": "none",
        "dropout": 0.1,
    },
    "dsmil": {
        "width": 128,
        "lr": 1e-4,
        "weight_decay": 1e-3,
        "optimiser": "adam",
        "schedule": "cosine",
        "dropout": 0.0,
    },
}
"""What ``auto`` stands for: each method's published recipe; see ``docs/mil.md``."""
RECIPES["clam_mb"] = RECIPES["clam_sb"]
_COMMON: dict[str, Any] = {"hidden": 512, "width": 256, "dropout": 0.25}


class AggregatorConfig(BaseModel):
    """The aggregator: how patches become a slide."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: ModelName = Field("abmil", description="How patches are put together.")
    hidden: Size = Field(
        "auto", description="Length of projected patch vectors; auto is 512."
    )
    width: Size = Field(
        "auto",
        description="Width of the attention's gate, or of DSMIL's queries; auto is the "
        "method's own.",
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] | Literal["auto"] = Field(
        "auto", description="Dropout; auto is the method's own."
    )
    instances: int = Field(
        8, ge=1, le=1024, description="CLAM: patches taken from each end of attention."
    )
    instance_weight: float = Field(
        0.3, ge=0, lt=1, description="CLAM: part of the instance loss in the whole."
    )
    instance_loss: Literal["svm", "ce"] = Field(
        "svm", description="CLAM: smooth top-1 SVM, or cross-entropy."
    )
    subtyping: bool = Field(
        False,
        description="CLAM: classes exclude each other, so that one's best patches are "
        "evidence against the others.",
    )
    landmarks: int = Field(
        256, ge=1, le=4096, description="TransMIL: landmarks of the attention."
    )

    @property
    def settled(self) -> AggregatorConfig:
        """The same with every ``auto`` replaced by the method's own value."""
        known = _COMMON | RECIPES[self.model]
        auto = {n: known[n] for n in _COMMON if getattr(self, n) == "auto"}
        return self.model_copy(update=auto)


class TrainingConfig(BaseModel):
    """How a model is trained on each fold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(100, ge=1, le=100_000, description="Epochs at most.")
    min_epochs: int = Field(
        20, ge=0, description="Epochs before which training never stops early."
    )
    patience: int = Field(
        10, ge=1, description="Epochs without a better validation loss before it stops."
    )
    optimiser: Literal["auto", "adam", "adamw", "radam"] = Field(
        "auto", description="Optimiser; auto is the method's own."
    )
    lr: Rate = Field("auto", description="Learning rate; auto is the method's own.")
    weight_decay: Decay = Field(
        "auto", description="Weight decay; auto is the method's own."
    )
    schedule: Literal["auto", "none", "cosine"] = Field(
        "auto", description="Of the rate over the epochs; auto is the method's own."
    )
    batch_bags: int = Field(1, ge=1, le=1024, description="Slides a step.")
    padded: bool = Field(
        False,
        description="Pad a step's slides to one batch, rather than take one after the "
        "other and add up their gradients: faster for small bags.",
    )
    max_patches: int | None = Field(
        10_000,
        ge=1,
        description="Patches of a slide in an epoch, drawn anew each time; none for all.",
    )
    patch_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Part of a slide's patches left out, anew each time.",
    )
    balanced: bool = Field(
        True, description="Draw slides so that classes come equally often."
    )
    seed: int = Field(0, ge=0, lt=2**31, description="First seed of the trainings.")

    def settled(self, model: ModelName) -> TrainingConfig:
        """Give the same with every ``auto`` replaced by the method's own value."""
        names = ("optimiser", "lr", "weight_decay", "schedule")
        recipe = RECIPES[model]
        auto = {n: recipe[n] for n in names if getattr(self, n) == "auto"}
        return self.model_copy(update=auto)


class SplitConfig(BaseModel):
    """Which slides are learned from, stopped by and tested on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folds: int = Field(
        5, ge=2, le=100, description="Folds, where the table gives no split or fold."
    )
    validation: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Part of a fold's training slides that tells when to stop, where "
        "the table gives none.",
    )
    split_seed: int = Field(0, ge=0, lt=2**31, description="Seed of folds and parts.")


class BagsConfig(BaseModel):
    """How features are read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cache_gib: float = Field(
        4.0, ge=0, description="Memory for features that are kept, in GiB."
    )
    kept_as: Literal["float32", "float16"] = Field(
        "float32", description="Number format of features that are kept."
    )
    allow_missing: bool = Field(
        False, description="Go on without slides that have no features."
    )


class FiguresConfig(BaseModel):
    """How sure figures are said to be."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    resamples: int = Field(
        1000, ge=20, le=100_000, description="Bootstrap samples of an interval."
    )
    bins: int = Field(10, ge=2, le=100, description="Bins of the reliability curve.")


class CrossValidation(BaseModel):
    """How a classifier of slides is trained and tested."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cohort: Path | None = Field(
        None,
        description="Table of slides (CSV): slide, label, and where there are any "
        "patient, and split or fold.",
    )
    out: Path | None = Field(None, description="Directory of the run.")
    seeds: int = Field(
        1, ge=1, le=100, description="Trainings of each fold; their mean is scored."
    )
    aggregator: AggregatorConfig = AggregatorConfig()
    training: TrainingConfig = TrainingConfig()
    split: SplitConfig = SplitConfig()
    bags: BagsConfig = BagsConfig()
    figures: FiguresConfig = FiguresConfig()
    compute: ExactComputeConfig = ComputeConfig(precision="float32")


class MilConfig(CrossValidation):
    """A cross-validated classifier of slides."""

    features: Path | None = Field(
        None, description="Folder of feature files, in any format that convert reads."
    )


class CompareConfig(CrossValidation):
    """Encoders compared by what a classifier makes of their features."""

    features: tuple[Path, ...] = Field(
        (),
        description="Folders of feature files, one an encoder; the first is what the "
        "others are compared with.",
    )


class PredictConfig(BaseModel):
    """Predictions of a trained classifier."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: Path | None = Field(None, description="Directory of a finished mil train.")
    features: Path | None = Field(
        None, description="Folder of feature files of the slides to predict."
    )
    cohort: Path | None = Field(
        None, description="Table of slides to predict; with labels they are scored too."
    )
    fold: str | None = Field(
        None, description="Predict with this fold's models; by default with all."
    )
    out: Path | None = Field(None, description="Table to write (CSV).")
    bags: BagsConfig = BagsConfig()
    figures: FiguresConfig = FiguresConfig()
    compute: ExactComputeConfig = ComputeConfig(precision="float32")


class AttentionConfig(BaseModel):
    """What a trained classifier looks at on a slide."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: Path | None = Field(None, description="Directory of a finished mil train.")
    slide: str | None = Field(
        None,
        description="Name of a slide, or its file, which is then shown underneath; of "
        "a slide of the cohort the file is found by the table's path.",
    )
    features: Path | None = Field(None, description="Folder of feature files.")
    out: Path | None = Field(None, description="Folder to write to.")
    fold: str | None = Field(
        None,
        description="Look with this fold's models; by default with those that have not "
        "seen the slide, or with all.",
    )
    class_name: str | None = Field(
        None,
        description="Class whose score and attention are looked at; by default the "
        "predicted one.",
    )
    scaling: Literal["rank", "minmax", "raw"] = Field(
        "rank",
        description="Colours by rank (0 to 1), by value from least to greatest (0 to "
        "1), or by the weights themselves.",
    )
    top: int = Field(16, ge=1, le=400, description="Patches in the gallery.")
    occlude: float = Field(
        0.1, gt=0, lt=1, description="Part of the patches removed to check attention."
    )
    random_draws: int = Field(
        10, ge=2, le=1000, description="Random sets of as many patches removed."
    )
    patch_size_level0: float | None = Field(
        None,
        gt=0,
        description="Side of a patch in level-0 pixels, for files that do not say.",
    )
    compute: ExactComputeConfig = ComputeConfig(precision="float32")
    read: ReadConfig = ReadConfig()
