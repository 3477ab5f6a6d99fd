"""What a study compares: arms, on which slides, how often, and against what."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.mcm import FinetuneConfig
from napari_mcm.core.mcm.config import PRESETS, PresetName, merge_preset

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$")]

_SET_BY_THE_STUDY = ("out", "slides", "preset")


class StudySlide(BaseModel):
    """A slide, and where its labels are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slide: Path = Field(description="The slide.")
    labels: Path | None = Field(
        None, description="Its labels: GeoJSON of regions, or a CSV of points."
    )
    fold: Name | None = Field(
        None,
        description="Held out together with the slides of the same name; by default "
        "each slide by itself.",
    )


class Arm(BaseModel):
    """One way to get an encoder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: str | None = Field(
        None,
        description="An encoder that is taken as it is: student, teacher, or any that "
        "can be loaded. Without it one is fine-tuned.",
    )
    preset: PresetName | None = Field(
        None, description="Options by name, over the study's own."
    )
    options: dict[str, Any] = Field(
        {}, description="Options of finetune, nested as in config.json, over both."
    )

    @model_validator(mode="after")
    def _one_way(self) -> Arm:
        if self.encoder is not None and (self.preset or self.options):
            raise ValueError("an arm has an encoder, or options of a fine-tuning")
        return self


class StudyConfig(BaseModel):
    """A grid of arms, seeds and folds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    out: Path | None = Field(None, description="Directory of the study.")
    slides: tuple[StudySlide, ...] = Field(
        (), description="Slides to learn from and, in turn, to test on."
    )
    arms: dict[Name, Arm] = Field({}, description="What is compared, by name.")
    base: dict[str, Any] = Field(
        {}, description="Options of finetune that all arms share, nested."
    )
    seeds: int = Field(3, ge=1, le=100, description="Runs of each arm.")
    first_seed: int = Field(0, ge=0, description="The first run's seed.")
    folds: Literal["leave_one_out", "none"] = Field(
        "leave_one_out",
        description="Learn from all slides but a fold's and test on those; or learn "
        "from all and test on all.",
    )
    against: dict[Name, Name] = Field(
        {}, description="For an arm, the control that it is compared with."
    )
    primary: tuple[str, ...] = Field(
        (), description="Figures that were chosen before the runs; shown first."
    )
    evaluation: dict[str, Any] = Field({}, description="Options of evaluate, nested.")
    teacher_cache_mb: int = Field(
        512,
        ge=0,
        description="Memory in megabytes for the teacher's features, which arms share "
        "that see the same windows.",
    )
    keep_features: bool = Field(
        False, description="Keep the features of fine-tuned encoders, which are large."
    )

    @model_validator(mode="after")
    def _named_arms_are_there(self) -> StudyConfig:
        for arm in {*self.against, *self.against.values()}:
            if arm not in self.arms:
                raise ValueError(f"against: there is no arm {arm}")
        return self

    @property
    def student(self) -> str:
        """The encoder that arms begin with."""
        return str(self.base.get("student") or FinetuneConfig().student)

    @property
    def teacher(self) -> str:
        """The encoder that gives the targets."""
        return str(self.base.get("teacher") or FinetuneConfig().teacher)


@dataclass(frozen=True)
class Fold:
    """Slides to learn from, and slides to test on."""

    name: str
    train: tuple[StudySlide, ...]
    test: tuple[StudySlide, ...]


@dataclass(frozen=True)
class Trial:
    """One run of one arm: what is done in one go."""

    fold: Fold
    seed: int
    arm: str

    @property
    def name(self) -> str:
        """For people: ``fold C2, seed 0, F``."""
        return f"fold {self.fold.name}, seed {self.seed}, {self.arm}"

    def folder(self, out: Path) -> Path:
        """Where its run and its figures are kept."""
        return out / "cells" / self.fold.name / f"seed-{self.seed}" / self.arm


def read_study(path: Path) -> StudyConfig:
    """Read a study from a JSON file; its paths are relative to that file.

    Raises
    ------
    ConfigError
        If it cannot be read, or an option is wrong: all arms are checked.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        config = StudyConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigError(_first(error), path) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"cannot be read as JSON ({error})", path) from None
    folder = path.resolve().parent
    slides = tuple(
        slide.model_copy(
            update={
                "slide": folder / slide.slide,
                "labels": slide.labels and folder / slide.labels,
            }
        )
        for slide in config.slides
    )
    out = config.out and folder / config.out
    return config.model_copy(update={"slides": slides, "out": out})


def make_folds(config: StudyConfig) -> list[Fold]:
    """Tell which slides are learned from and tested on, in the slides' order.

    Raises
    ------
    ConfigError
        If there are too few slides, or two folds' slides have one name.
    """
    if config.folds == "none":
        return [Fold("all", config.slides, config.slides)]
    by_name: dict[str, list[StudySlide]] = {}
    for slide in config.slides:
        name = slide.fold or slide.slide.name.split(".")[0]
        if name in by_name and not (slide.fold and by_name[name][0].fold):
            raise ConfigError(f"two slides are named {name}", slide.slide)
        by_name.setdefault(name, []).append(slide)
    if len(by_name) < 2:
        raise ConfigError(
            "leaving one out takes two slides or more", hint='Or set "folds": "none"'
        )
    return [
        Fold(name, tuple(s for s in config.slides if s not in test), tuple(test))
        for name, test in by_name.items()
    ]


def make_trials(config: StudyConfig, folds: Sequence[Fold]) -> list[Trial]:
    """List all cells, so that each arm's first results come early.

    An encoder that is taken as it is has no seeds: it is done once a fold.
    """
    seeds = range(config.first_seed, config.first_seed + config.seeds)
    return [
        Trial(fold, seed, name)
        for fold in folds
        for seed in seeds
        for name, arm in config.arms.items()
        if arm.encoder is None or seed == config.first_seed
    ]


def arm_config(
    config: StudyConfig, name: str, seed: int, slides: Sequence[Path], out: Path | None
) -> FinetuneConfig:
    """Put an arm's options together: its own, over its preset's, over the study's.

    Raises
    ------
    ConfigError
        If one is wrong, naming the arm.
    """
    arm = config.arms[name]
    forbidden = [
        key for key in _SET_BY_THE_STUDY if key in {*config.base, *arm.options}
    ]
    if forbidden:
        raise ConfigError(
            f"the study itself sets {', '.join(forbidden)}", f"arm {name}"
        )
    own = merge_preset(PRESETS[arm.preset], arm.options) if arm.preset else arm.options
    options = merge_preset(config.base, own)
    options["optimiser"] = {**options.get("optimiser", {}), "seed": seed}
    # Arms are compared with each other, and with what other machines found.
    options["compute"] = {"precision": "float32", **options.get("compute", {})}
    try:
        return FinetuneConfig.model_validate({**options, "slides": slides, "out": out})
    except ValidationError as error:
        raise ConfigError(_first(error), f"arm {name}") from None


def _first(error: ValidationError) -> str:
    first: Mapping[str, Any] = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
