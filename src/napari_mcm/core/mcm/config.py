"""Options of MCM-KD fine-tuning.

The article (arXiv 2403.05325) fixes the method and publishes few of its numbers. What is not
published has our own default here, and every run records all options. `docs/method.md` gives
the reasons.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from napari_mcm.core.encoders.compute import ComputeConfig
from napari_mcm.core.grid import GridConfig
from napari_mcm.core.slides import ReadConfig
from napari_mcm.core.tissue import TissueConfig
from napari_mcm.core.training import options

PresetName = Literal[
    "recommended",
    "mcm-kd",
    "paper",
    "adabn",
    "distill",
    "self",
    "shuffled",
    "head",
    "cosine",
    "neighbours",
    "foreign",
    "mcm-kd-l2",
]


_MASKED = {"context_mode": "masked"}

_OURS = {
    "target": {"target_norm": "layernorm", "start_at_median": True},
    "optimiser": {"batch_norm": "frozen", "head_epochs": 16},
}

# Predictions from context have noisy gradients: at the default rate they do harm.
_SLOW = {"student_lr": 5e-4}

# The article's loss, at a rate that masked prediction bears.
_ARTICLE: Mapping[str, Mapping[str, Any]] = {
    "target": {"loss": "l1"},
    "optimiser": _SLOW,
}

_ENRICHED: Mapping[str, Mapping[str, Any]] = {
    "context": {"context_mode": "neighbours"},
    "target": {**_OURS["target"], "loss": "l2"},
    "optimiser": {**_OURS["optimiser"], "student_lr": 2e-3},
}


PRESETS: Mapping[str, Mapping[str, Any]] = {
    # What our studies support, written out.
    "recommended": _ENRICHED,
    "mcm-kd": {
        "context": _MASKED,
        "target": {**_OURS["target"], "loss": "l1"},
        "optimiser": {**_OURS["optimiser"], **_SLOW},
    },
    # What the article publishes: one epoch, plain l1, and no head warm-up.
    "paper": {
        "context": _MASKED,
        "target": {"target_norm": "none", "start_at_median": False, "loss": "l1"},
        "optimiser": {
            "batch_norm": "train",
            "epochs": 1,
            "placements": 1,
            "head_epochs": 0,
            "student_lr": 1e-4,
        },
    },
    # Control: re-estimated batch-norm statistics may explain a gain without learning.
    "adabn": {
        "context": _MASKED,
        "target": _ARTICLE["target"],
        "optimiser": {"learn": "statistics", "batch_norm": "train", **_SLOW},
    },
    # Control without context: what a small student gains from the teacher alone.
    "distill": {"context": {"context_mode": "none"}, **_ARTICLE},
    # Control without a larger teacher: the student predicts its own frozen copy.
    "self": {"context": _MASKED, "teacher": "student", **_ARTICLE},
    # Control without layout: the same patches, in random places.
    "shuffled": {"context": {"context_mode": "shuffled"}, **_ARTICLE},
    # Control: how far a head gets on a student that does not change.
    "head": {
        "context": _MASKED,
        "target": _ARTICLE["target"],
        "optimiser": {"learn": "head", **_SLOW},
    },
    # GPFM's loss in place of the article's.
    "cosine": {
        "context": _MASKED,
        "target": {"loss": "cosine_smooth_l1"},
        "optimiser": _SLOW,
    },
    # Context in the target in place of the input.
    "neighbours": _ENRICHED,
    # Control without context: all else equal, the visible patches are of another place.
    "foreign": {
        "context": {"context_mode": "foreign"},
        "target": {**_OURS["target"], "loss": "l1"},
        "optimiser": {**_OURS["optimiser"], **_SLOW},
    },
    # A mean's loss: context moves the mean of a target and hardly its median.
    "mcm-kd-l2": {
        "context": _MASKED,
        "target": {**_OURS["target"], "loss": "l2"},
        "optimiser": {**_OURS["optimiser"], **_SLOW},
    },
}
"""Options by preset, nested as in ``FinetuneConfig``."""

PRESET_LABELS: Mapping[str, str] = {
    "recommended": "context-enriched distillation, pinned",
    "distill": "plain distillation",
    "neighbours": "context-enriched distillation",
    "mcm-kd": "MCM-KD (article)",
    "mcm-kd-l2": "MCM-KD, squared loss",
    "cosine": "MCM-KD, cosine loss",
    "paper": "MCM-KD (article), literally",
    "foreign": "control: context from elsewhere",
    "shuffled": "control: random layout",
    "self": "control: no teacher",
    "head": "control: frozen student",
    "adabn": "control: statistics only",
}
"""Names of the presets for people, in forms and in help."""


assert set(PRESETS) == set(PRESET_LABELS) == set(get_args(PresetName))


def preset_overrides(config: BaseModel, preset: str) -> dict[str, tuple[Any, Any]]:
    """Return a preset's options with the values that are in effect.

    Parameters
    ----------
    config : BaseModel
        Configuration in effect, a ``FinetuneConfig``.
    preset : str
        Name of the preset.

    Returns
    -------
    dict
        The preset's value and the value in effect, by option:
        ``{"batch_norm": ("train", "frozen")}`` where the command line overrode it.
    """
    overrides: dict[str, tuple[Any, Any]] = {}
    for name, value in PRESETS[preset].items():
        inner = getattr(config, name)
        pairs = value.items() if isinstance(value, Mapping) else [(name, value)]
        for option, preset_value in pairs:
            actual = getattr(inner, option) if isinstance(value, Mapping) else inner
            overrides[option] = (preset_value, actual)
    return overrides


class ContextConfig(BaseModel):
    """Context window, its masking, and the network that predicts the masked patches."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    context_mode: Literal["masked", "shuffled", "foreign", "neighbours", "none"] = (
        Field(
            "neighbours",
            description="masked: predict masked patches from the visible ones (MCM-KD); "
            "shuffled: likewise, with positions shuffled in each window (a control without "
            "layout); foreign: likewise, with visible patches of another window of the slide "
            "(a control without context); neighbours: predict from each patch the mean of the "
            "teacher's features over the 3 × 3 patches around it, nothing is masked "
            "(context-enriched distillation, the best in our studies); none: predict each "
            "visible patch from itself (plain distillation).",
        )
    )
    s: int = Field(4, ge=2, le=16, description="Patches per side of a context window.")
    window_tissue: float = Field(
        0.5, gt=0, le=1, description="Min. fraction of a window's patches with tissue."
    )
    mask_ratio: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="Fraction of a window's tissue patches to mask; with context mode "
        "none the fraction that is left out of a step, and may be 0. Unused with "
        "neighbours.",
    )
    position: Literal["sincos", "learned"] = Field(
        "sincos", description="Position embedding of the patches in a window."
    )
    depth: int = Field(2, ge=1, le=24, description="Transformer blocks.")
    heads: int = Field(8, ge=1, description="Attention heads.")
    width: int = Field(
        256, ge=8, description="Transformer width; other feature sizes are projected."
    )
    mlp_ratio: float = Field(
        4.0, gt=0, description="Hidden width of the blocks, relative to their width."
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout in the Transformer.")
    predictor_width: int = Field(
        512, ge=8, description="Hidden width of the predictor network."
    )

    @model_validator(mode="after")
    def _something_to_predict(self) -> ContextConfig:
        if not self.mask_ratio and self.context_mode not in ("none", "neighbours"):
            raise ValueError(
                f"mask_ratio 0 leaves nothing to predict in context mode "
                f"{self.context_mode}"
            )
        return self


class TargetConfig(BaseModel):
    """Targets of the predictions, and the loss."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target_norm: Literal["layernorm", "standardise", "whiten", "none"] = Field(
        "layernorm",
        description="Scaling of the teacher's features: each vector to zero mean and "
        "unit variance (layernorm), each dimension over patches (standardise), each "
        "principal direction over patches (whiten), or none (the article's literal l1).",
    )
    target_windows: int = Field(
        16,
        ge=2,
        description="Windows that such statistics and the best constant come from.",
    )
    start_at_median: bool = Field(
        True,
        description="Start the predictions at the best constant: the median of the "
        "targets, and their mean where the loss is l2.",
    )
    loss: Literal["l1", "l2", "cosine_smooth_l1"] = Field(
        "l2",
        description="Mean over dimensions of the absolute difference (l1, the article's) "
        "or of its square (l2), or 0.9 · (1 - cosine) + 0.1 · smooth l1.",
    )


class OptimiserConfig(BaseModel):
    """What is trained, on which windows, and at which rates."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    learn: Literal["all", "head", "statistics"] = Field(
        "all",
        description="What is trained: student and head (all); the head alone, on a frozen "
        "student (head); or only the student's batch-norm statistics, without gradients "
        "(statistics: AdaBN).",
        json_schema_extra={"flag": "train"},
    )
    epochs: int = Field(1, ge=1, description="Passes over all tissue patches.")
    placements: int = Field(
        1, ge=1, description="Random placements of the windows per slide and epoch."
    )
    aligned: bool = Field(
        False,
        description="Place patches where an extraction places them, instead of at a new "
        "random corner in each placement.",
    )
    batch_windows: int = Field(4, ge=1, description="Context windows per step.")
    student_lr: float = Field(
        2e-3,
        ge=0,
        description="Peak learning rate of the student, for 64 windows per step. Presets "
        "of MCM-KD and its controls have 5e-4.",
    )
    head_lr: float = Field(
        1e-3,
        gt=0,
        description="Peak learning rate of Transformer and predictor, for 64 windows per "
        "step.",
    )
    lr_scaling: Literal["sqrt", "linear", "none"] = Field(
        "sqrt",
        description="Rule that scales the learning rates with the windows per step, "
        "relative to 64.",
    )
    weight_decay: float = Field(
        0.05, ge=0, description="Weight decay of AdamW; not applied to 1-D weights."
    )
    warmup: float = Field(
        0.05, ge=0, lt=1, description="Fraction of the steps in which rates warm up."
    )
    head_warmup: float = Field(
        0.0, ge=0, lt=1, description="Fraction of the steps that train the head alone."
    )
    head_epochs: int = Field(
        16,
        ge=0,
        description="Head warm-up: epochs that train Transformer and predictor "
        "beforehand, on features of the unchanged student, which are computed once.",
    )
    head_windows: int = Field(
        512,
        ge=1,
        description="Windows that the head warm-up uses, at most as many as the run has; "
        "they lie elsewhere than those of the run.",
    )
    clip_norm: float = Field(1.0, gt=0, description="Maximum norm of the gradient.")
    batch_norm: Literal["frozen", "train"] = Field(
        "frozen",
        description="Batch-norm statistics of the student: as loaded (frozen), or "
        "re-estimated during training (train).",
    )
    freeze_stages: int = Field(
        0, ge=0, description="Student stages to freeze, counted from the stem."
    )
    flips: bool = Field(
        True, description="Flip whole windows and rotate them by 90° at random."
    )
    jitter: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Random change of brightness and contrast, up to this fraction.",
    )
    seed: int = Field(0, ge=0, description="Random seed.")

    @property
    def moves_student(self) -> bool:
        """Return whether the student's weights are trained at any time.

        Returns
        -------
        bool
            False for AdaBN, for the head alone, and at a student rate of 0.
        """
        return self.learn == "all" and self.student_lr > 0

    @model_validator(mode="after")
    def _statistics_can_move(self) -> OptimiserConfig:
        # AdaBN with frozen statistics would train nothing at all.
        if self.learn == "statistics" and self.batch_norm == "frozen":
            raise ValueError("learn statistics needs batch_norm train")
        return self


class HeldOutConfig(BaseModel):
    """Tissue that is held out of training, and what is measured on it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    validation: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Fraction of the windows that is held out of training, in whole "
        "blocks of tissue.",
    )
    validate_every: int = Field(
        50, ge=1, description="Steps between measurements on the held-out windows."
    )
    probe_slides: tuple[Path, ...] = Field(
        (),
        description="Labelled slides, none of them in the training set, for a linear "
        "probe of the student during training.",
    )
    probe_labels: tuple[Path, ...] = Field(
        (),
        description="Labels of the probe slides: a folder, or one file per slide in the "
        "same order.",
    )

    @model_validator(mode="after")
    def _slides_with_labels(self) -> HeldOutConfig:
        if bool(self.probe_slides) != bool(self.probe_labels):
            raise ValueError("probe_slides and probe_labels go together")
        return self


class FinetuneConfig(options.TrainingOptions):
    """Masked context modelling with knowledge distillation on a set of slides."""

    presets = PRESETS

    preset: PresetName | None = Field(
        None,
        description="Named set of options; explicit options override it: "
        + "; ".join(f"{name}: {label}" for name, label in PRESET_LABELS.items())
        + ".",
    )
    slides: tuple[Path, ...] = Field((), description="Slides to train on.")
    student: str = Field(
        "offline:efficientnet_lite0", description="Encoder to fine-tune."
    )
    teacher: str = Field(
        "offline:efficientnet_lite2",
        description="Frozen encoder that gives the targets; 'student' means a frozen copy "
        "of the student (a control without a teacher).",
    )
    teacher_features: Path | None = Field(
        None,
        description="Folder of features that the teacher extracted earlier, reused where "
        "the patches are the same. Needs aligned, and neither flips nor jitter.",
    )
    out: options.RunFolder = None
    read: ReadConfig = ReadConfig()
    grid: GridConfig = GridConfig()
    tissue: TissueConfig = TissueConfig()
    context: ContextConfig = ContextConfig()
    target: TargetConfig = TargetConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    held_out: HeldOutConfig = HeldOutConfig()
    compute: ComputeConfig = ComputeConfig()
    workers: options.Workers = 2
    chunk_windows: options.Chunk = "auto"
    checkpoint_seconds: options.CheckpointSeconds = 30.0

    @model_validator(mode="after")
    def _patches_as_extracted(self) -> FinetuneConfig:
        how = self.optimiser
        if self.teacher_features and (not how.aligned or how.flips or how.jitter):
            raise ValueError(
                "teacher_features needs patches as an extraction sees them: aligned, "
                "without flips and jitter (--aligned --no-flips)"
            )
        return self

    @property
    def teacher_spec(self) -> str:
        """Return the name of the encoder that gives the targets.

        Returns
        -------
        str
            Encoder specification, as in ``--teacher``.
        """
        return self.student if self.teacher == "student" else self.teacher
