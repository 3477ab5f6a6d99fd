"""Every option of MCM-KD fine-tuning.

The article fixes the method and publishes few of its numbers; what is not published has
a default of ours here, and every run records all of them. `docs/method.md` gives the
reasons.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from napari_mcm.core.encoders.compute import ComputeConfig
from napari_mcm.core.grid import GridConfig
from napari_mcm.core.slides import ReadConfig
from napari_mcm.core.tissue import TissueConfig

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
]


_MASKED = {"context_mode": "masked"}

_OURS = {
    "target": {"target_norm": "layernorm", "start_at_median": True},
    "optimiser": {"batch_norm": "frozen", "head_epochs": 16},
}


PRESETS: Mapping[str, Mapping[str, Any]] = {
    # The context added nothing that our studies could measure.
    "recommended": {"context": {"context_mode": "none"}, **_OURS},
    "mcm-kd": {"context": _MASKED, **_OURS},
    "paper": {
        "context": _MASKED,
        "target": {"target_norm": "none", "start_at_median": False, "loss": "l1"},
        "optimiser": {
            "batch_norm": "train",
            "epochs": 1,
            "placements": 1,
            "head_epochs": 0,
        },
    },
    "adabn": {
        "context": _MASKED,
        "optimiser": {"learn": "statistics", "batch_norm": "train"},
    },
    "distill": {"context": {"context_mode": "none"}},
    "self": {"context": _MASKED, "teacher": "student"},
    "shuffled": {"context": {"context_mode": "shuffled"}},
    "head": {"context": _MASKED, "optimiser": {"learn": "head"}},
    "cosine": {"context": _MASKED, "target": {"loss": "cosine_smooth_l1"}},
}
"""Options by preset, nested as in ``FinetuneConfig``."""


assert set(PRESETS) == set(get_args(PresetName))


def merge_preset(preset: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Put a preset's options under those that were given.

    Parameters
    ----------
    preset : mapping
        Options by name, groups of them nested.
    given : mapping
        Likewise; a group may be a model, of which only what was set counts.

    Returns
    -------
    dict
        Both together; what was given wins.
    """
    merged = dict(given)
    for name, value in preset.items():
        if not isinstance(value, Mapping):
            merged.setdefault(name, value)
            continue
        group = given.get(name, {})
        if isinstance(group, BaseModel):
            group = {key: getattr(group, key) for key in group.model_fields_set}
        if isinstance(group, Mapping):
            merged[name] = merge_preset(value, group)
    return merged


def preset_overrides(config: BaseModel, preset: str) -> dict[str, tuple[Any, Any]]:
    """Tell a preset's options by their names: what it says, and what is in effect.

    Returns
    -------
    dict
        ``{"batch_norm": ("train", "frozen")}`` where the line overrode it.
    """
    found: dict[str, tuple[Any, Any]] = {}
    for name, value in PRESETS[preset].items():
        inner = getattr(config, name)
        pairs = value.items() if isinstance(value, Mapping) else [(name, value)]
        for option, said in pairs:
            there = getattr(inner, option) if isinstance(value, Mapping) else inner
            found[option] = (said, there)
    return found


class ContextConfig(BaseModel):
    """The context window, its masking, and the network that fills the gaps."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    context_mode: Literal["masked", "shuffled", "none"] = Field(
        "none",
        description="masked: predict masked patches from their surroundings (MCM-KD); "
        "shuffled: from surroundings that are shuffled in each window (a control: no "
        "layout); none: each visible patch from itself (plain distillation, which did as "
        "well or better in our studies).",
    )
    s: int = Field(4, ge=2, le=16, description="Patches along a context window's side.")
    window_tissue: float = Field(
        0.5, gt=0, le=1, description="Least part of a window's patches with tissue."
    )
    mask_ratio: float = Field(
        0.5, gt=0, lt=1, description="Part of a window's tissue patches that is masked."
    )
    position: Literal["sincos", "learned"] = Field(
        "sincos", description="Position embedding of patches in the window."
    )
    depth: int = Field(2, ge=1, le=24, description="Transformer blocks.")
    heads: int = Field(8, ge=1, description="Attention heads.")
    width: int = Field(
        256, ge=8, description="Transformer width; features of another are projected."
    )
    mlp_ratio: float = Field(
        4.0, gt=0, description="Hidden width of blocks, in widths."
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout in the Transformer.")
    predictor_width: int = Field(
        512, ge=8, description="Hidden width of the predictor network."
    )


class TargetConfig(BaseModel):
    """What the predictions are compared with, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target_norm: Literal["layernorm", "standardise", "whiten", "none"] = Field(
        "layernorm",
        description="Scaling of the teacher's features: each vector to zero mean and "
        "unit variance, each dimension over patches, each direction over patches, or "
        "none (the article's literal l1).",
    )
    target_windows: int = Field(
        16, ge=2, description="Windows looked at for such statistics and the median."
    )
    start_at_median: bool = Field(
        True, description="Let predictions begin at the targets' median."
    )
    loss: Literal["l1", "cosine_smooth_l1"] = Field(
        "l1", description="l1, or 0.9 (1 - cosine) + 0.1 smooth l1."
    )


class OptimiserConfig(BaseModel):
    """How the weights are learned."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    learn: Literal["all", "head", "statistics"] = Field(
        "all",
        description="What learns: student and head; the head alone, on a frozen student; "
        "or nothing but the student's batch-norm statistics (AdaBN), without gradients.",
    )
    epochs: int = Field(1, ge=1, description="Times that every tissue patch is seen.")
    placements: int = Field(
        1, ge=1, description="Random placements of the windows over a slide, an epoch."
    )
    aligned: bool = Field(
        False,
        description="Lay patches where an extraction lays them, instead of at another "
        "corner in each placement.",
    )
    batch_windows: int = Field(4, ge=1, description="Context windows a step.")
    student_lr: float = Field(
        1e-4,
        ge=0,
        description="Peak learning rate of the student, at 64 windows a step.",
    )
    head_lr: float = Field(
        1e-3, gt=0, description="Peak rate of Transformer and predictor, likewise."
    )
    lr_scaling: Literal["sqrt", "linear", "none"] = Field(
        "sqrt", description="How rates follow the windows a step, from 64 windows."
    )
    weight_decay: float = Field(
        0.05, ge=0, description="AdamW decay, not on 1-D weights."
    )
    warmup: float = Field(
        0.05, ge=0, lt=1, description="Part of the steps that warm up."
    )
    head_warmup: float = Field(
        0.0, ge=0, lt=1, description="Part of the steps that train the head alone."
    )
    head_epochs: int = Field(
        16,
        ge=0,
        description="Epochs that Transformer and predictor learn beforehand, on features "
        "of the student as loaded, which are computed once.",
    )
    head_windows: int = Field(
        512, ge=1, description="Windows from all over the run that are kept for that."
    )
    clip_norm: float = Field(1.0, gt=0, description="Bound on the gradient's norm.")
    batch_norm: Literal["frozen", "train"] = Field(
        "frozen",
        description="Batch-norm statistics of the student: as loaded, or learned anew.",
    )
    freeze_stages: int = Field(
        0, ge=0, description="Student stages, stem first, whose weights stay as loaded."
    )
    flips: bool = Field(
        True, description="Flip and quarter-turn whole windows at random."
    )
    jitter: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Random brightness and contrast, up to this part.",
    )
    seed: int = Field(0, ge=0, description="Seed of everything random.")

    @property
    def moves_student(self) -> bool:
        """Whether the student's weights learn at any time."""
        return self.learn == "all" and self.student_lr > 0

    @model_validator(mode="after")
    def _statistics_can_move(self) -> OptimiserConfig:
        if self.learn == "statistics" and self.batch_norm == "frozen":
            raise ValueError("learn statistics needs batch_norm train")
        return self


class HeldOutConfig(BaseModel):
    """Places kept out of training, and what is measured on them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    validation: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Part of the windows kept out of training, in whole blocks of tissue.",
    )
    validate_every: int = Field(
        50, ge=1, description="Steps between measurements on what is kept out."
    )
    probe_slides: tuple[Path, ...] = Field(
        (),
        description="Labelled slides, none of those learned from, that the student is "
        "probed on while it learns.",
    )
    probe_labels: tuple[Path, ...] = Field(
        (), description="Their labels: a folder, or a file a slide in the same order."
    )

    @model_validator(mode="after")
    def _slides_with_labels(self) -> HeldOutConfig:
        if bool(self.probe_slides) != bool(self.probe_labels):
            raise ValueError("probe_slides and probe_labels go together")
        return self


class FinetuneConfig(BaseModel):
    """Masked context modelling with knowledge distillation on a set of slides."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: PresetName | None = Field(
        None, description="Options by name, under those that are given."
    )
    slides: tuple[Path, ...] = Field((), description="Slides to learn from.")
    student: str = Field(
        "offline:efficientnet_lite0", description="Encoder to fine-tune."
    )
    teacher: str = Field(
        "offline:efficientnet_lite2",
        description="Frozen encoder that gives the targets; student is a frozen copy of "
        "the student (a control: no teacher).",
    )
    teacher_features: Path | None = Field(
        None,
        description="Folder of features that the teacher gave in an extraction, taken "
        "where patches are the same: with aligned, and without flips and jitter.",
    )
    out: Path | None = Field(None, description="Directory of the run; new or empty.")
    read: ReadConfig = ReadConfig()
    grid: GridConfig = GridConfig()
    tissue: TissueConfig = TissueConfig()
    context: ContextConfig = ContextConfig()
    target: TargetConfig = TargetConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    held_out: HeldOutConfig = HeldOutConfig()
    compute: ComputeConfig = ComputeConfig()
    workers: int = Field(2, ge=0, le=64, description="Threads that read slides ahead.")
    chunk_windows: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description="Windows computed at once within a step; auto is what keeps a cancel "
        "under a second on a CPU, and the whole step on a GPU.",
    )
    checkpoint_seconds: float = Field(
        30.0, ge=0, description="Seconds between checkpoints; 0 saves after every step."
    )

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("preset") not in PRESETS:
            return given
        return merge_preset(PRESETS[given["preset"]], given)

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
        """The encoder that gives the targets."""
        return self.student if self.teacher == "student" else self.teacher
