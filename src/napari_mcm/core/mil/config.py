"""Options of slide classification by multiple-instance learning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from napari_mcm.core.encoders.compute import ComputeConfig, ExactComputeConfig
from napari_mcm.core.features.feature_set import NeighbourhoodConfig
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
"""Values of ``auto``: each method's published recipe; see ``docs/mil.md``."""
RECIPES["clam_mb"] = RECIPES["clam_sb"]
# What a recipe does not state: the sizes and the dropout of CLAM.
_COMMON: dict[str, Any] = {"hidden": 512, "width": 256, "dropout": 0.25}


class AggregatorConfig(BaseModel):
    """The aggregator, which turns a slide's patches into class scores."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: ModelName = Field(
        "abmil", description="Aggregator: how patches are combined."
    )
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
        8,
        ge=1,
        le=1024,
        description="CLAM: patches of greatest, and of least, attention per slide.",
    )
    instance_weight: float = Field(
        0.3, ge=0, lt=1, description="CLAM: weight of the instance loss in the total."
    )
    instance_loss: Literal["svm", "ce"] = Field(
        "svm", description="CLAM: smooth top-1 SVM, or cross-entropy."
    )
    subtyping: bool = Field(
        False,
        description="CLAM: classes are mutually exclusive, so that the top patches of "
        "one are negative examples of the others.",
    )
    landmarks: int = Field(
        256, ge=1, le=4096, description="TransMIL: landmarks of Nyström attention."
    )

    @property
    def settled(self) -> AggregatorConfig:
        """Return a copy with every ``auto`` replaced by the method's own value.

        Returns
        -------
        AggregatorConfig
            Sizes and dropout of the published recipe where they were not given.
        """
        known = _COMMON | RECIPES[self.model]
        auto = {n: known[n] for n in _COMMON if getattr(self, n) == "auto"}
        return self.model_copy(update=auto)


class TrainingConfig(BaseModel):
    """How a model is trained on each fold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(100, ge=1, le=100_000, description="Maximum number of epochs.")
    min_epochs: int = Field(
        20, ge=0, description="Epochs before early stopping is possible."
    )
    patience: int = Field(
        10,
        ge=1,
        description="Epochs without a better validation loss before training stops.",
    )
    optimiser: Literal["auto", "adam", "adamw", "radam"] = Field(
        "auto", description="Optimiser; auto is the method's own."
    )
    lr: Rate = Field("auto", description="Learning rate; auto is the method's own.")
    weight_decay: Decay = Field(
        "auto", description="Weight decay; auto is the method's own."
    )
    schedule: Literal["auto", "none", "cosine"] = Field(
        "auto",
        description="Schedule of the learning rate over the epochs; auto is the "
        "method's own.",
    )
    batch_bags: int = Field(1, ge=1, le=1024, description="Slides per step.")
    padded: bool = Field(
        False,
        description="Pad the slides of a step to one batch, instead of accumulating "
        "their gradients one by one: faster for small bags.",
    )
    max_patches: int | None = Field(
        10_000,
        ge=1,
        description="Patches of a slide per epoch, drawn again each time; none for all.",
    )
    patch_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Fraction of a slide's patches to drop, drawn again each time.",
    )
    balanced: bool = Field(
        True, description="Balanced sampling: draw all classes equally often."
    )
    seed: int = Field(
        0, ge=0, lt=2**31, description="Random seed of the first training."
    )

    def settled(self, model: ModelName) -> TrainingConfig:
        """Return a copy with every ``auto`` replaced by the method's own value.

        Parameters
        ----------
        model : str
            Name of the aggregator.

        Returns
        -------
        TrainingConfig
            Optimiser, rate, decay and schedule of the published recipe where they were
            not given.
        """
        names = ("optimiser", "lr", "weight_decay", "schedule")
        recipe = RECIPES[model]
        auto = {n: recipe[n] for n in names if getattr(self, n) == "auto"}
        return self.model_copy(update=auto)


class SplitConfig(BaseModel):
    """Which slides are for training, for early stopping and for testing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folds: int = Field(
        5,
        ge=2,
        le=100,
        description="Number of folds, where the table has no split or fold column.",
    )
    validation: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Fraction of a fold's training slides for early stopping, where the "
        "table has no validation part.",
    )
    split_seed: int = Field(
        0, ge=0, lt=2**31, description="Random seed of folds and parts."
    )


class BagsConfig(BaseModel):
    """How features are read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cache_gib: float = Field(
        4.0, ge=0, description="Memory for cached features, in GiB."
    )
    kept_as: Literal["float32", "float16"] = Field(
        "float32",
        description="Number format of cached features.",
        json_schema_extra={"flag": "cache-dtype"},
    )
    allow_missing: bool = Field(
        False, description="Leave out slides that have no features."
    )


class RunNeighbourhoodConfig(BaseModel):
    """How much tissue around a patch the run's models expect in its features."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    radius: Annotated[int, Field(ge=0, le=3)] | None = Field(
        None,
        description="Patch widths around each patch that features are averaged over. "
        "Always as in training: any other value is refused.",
        json_schema_extra={"flag": "context"},
    )
    weights: Literal["uniform", "distance"] | None = Field(
        None,
        description="Weights of the patches around. Always as in training.",
        json_schema_extra={"flag": "context-weights"},
    )


class FiguresConfig(BaseModel):
    """Bootstrap intervals and calibration of the metrics."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    resamples: int = Field(
        1000, ge=20, le=100_000, description="Bootstrap samples per interval."
    )
    bins: int = Field(10, ge=2, le=100, description="Bins of the reliability curve.")


class CrossValidation(BaseModel):
    """How a slide classifier is trained and tested."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cohort: Path | None = Field(
        None,
        description="Table of slides (CSV): slide, label, and optionally patient, and "
        "split or fold.",
    )
    out: Path | None = Field(None, description="Directory of the run.")
    seeds: int = Field(
        1,
        ge=1,
        le=100,
        description="Trainings per fold; the mean of their probabilities is scored.",
    )
    aggregator: AggregatorConfig = AggregatorConfig()
    training: TrainingConfig = TrainingConfig()
    split: SplitConfig = SplitConfig()
    bags: BagsConfig = BagsConfig()
    neighbourhood: NeighbourhoodConfig = NeighbourhoodConfig()
    figures: FiguresConfig = FiguresConfig()
    compute: ExactComputeConfig = ComputeConfig(precision="float32")


class MilConfig(CrossValidation):
    """A cross-validated slide classifier."""

    features: Path | None = Field(
        None, description="Folder of feature files, in any format that convert reads."
    )


class CompareConfig(CrossValidation):
    """Encoders compared by a slide classifier trained on their features."""

    features: tuple[Path, ...] = Field(
        (),
        description="Folders of feature files, one per encoder, or finished runs of mil "
        "train on the same slides; the first is the reference.",
    )


class PredictConfig(BaseModel):
    """Predictions of a trained classifier."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: Path | None = Field(None, description="Directory of a finished mil train.")
    features: Path | None = Field(
        None, description="Folder of feature files of the slides to predict."
    )
    cohort: Path | None = Field(
        None,
        description="Table of slides to predict; if it has labels, metrics are computed.",
    )
    fold: str | None = Field(
        None, description="Use this fold's models only; by default all."
    )
    out: Path | None = Field(None, description="Table to write (CSV).")
    bags: BagsConfig = BagsConfig()
    neighbourhood: RunNeighbourhoodConfig = RunNeighbourhoodConfig()
    figures: FiguresConfig = FiguresConfig()
    compute: ExactComputeConfig = ComputeConfig(precision="float32")


class AttentionConfig(BaseModel):
    """Attention of a trained classifier on a slide."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: Path | None = Field(None, description="Directory of a finished mil train.")
    slide: str | None = Field(
        None,
        description="Name of a slide, or its file, which is then drawn underneath. For a "
        "slide of the cohort, the file is found by the path in the table.",
    )
    features: Path | None = Field(None, description="Folder of feature files.")
    out: Path | None = Field(None, description="Folder to write to.")
    fold: str | None = Field(
        None,
        description="Use this fold's models only; by default those without the slide in "
        "their training set, or else all.",
    )
    class_name: str | None = Field(
        None,
        description="Class whose probability and attention are shown; by default the "
        "predicted one.",
    )
    scaling: Literal["rank", "minmax", "raw"] = Field(
        "rank",
        description="Colours by rank (0 to 1), by value from least to greatest (0 to "
        "1), or by the weights themselves.",
    )
    top: int = Field(16, ge=1, le=400, description="Patches in the gallery.")
    occlude: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="Fraction of the patches that the occlusion check removes.",
    )
    random_draws: int = Field(
        10,
        ge=2,
        le=1000,
        description="Random sets of as many patches, removed for comparison.",
    )
    patch_size_level0: float | None = Field(
        None,
        gt=0,
        description="Side of a patch in level-0 pixels, for files that do not record it.",
    )
    neighbourhood: RunNeighbourhoodConfig = RunNeighbourhoodConfig()
    compute: ExactComputeConfig = ComputeConfig(precision="float32")
    read: ReadConfig = ReadConfig()
