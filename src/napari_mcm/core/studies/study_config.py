"""Options of a study: arms, slides, seeds, folds, radii, serial sections and controls."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.mcm import FinetuneConfig
from napari_mcm.core.mcm.config import PRESETS, PresetName
from napari_mcm.core.training.options import merge_preset

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$")]

_SET_BY_THE_STUDY = ("out", "slides", "preset")


class StudySlide(BaseModel):
    """A slide and its labels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slide: Path = Field(description="The slide.")
    labels: Path | None = Field(
        None,
        description="Its labels: GeoJSON of regions, a CSV of points, or a label file.",
    )
    label: str | None = Field(
        None, description="One class for the whole slide, instead of labels."
    )
    patient: Name | None = Field(
        None,
        description="Patient of the slide; few-shot labels and candidates of a query come "
        "from other patients. By default each slide is of its own.",
    )
    fold: Name | None = Field(
        None,
        description="Name of the fold; slides of a fold are held out together. By "
        "default each slide is a fold.",
    )

    @model_validator(mode="after")
    def _one_kind_of_labels(self) -> StudySlide:
        if self.labels is not None and self.label is not None:
            raise ValueError("a slide has labels, or one label")
        return self


class SerialPair(BaseModel):
    """Two serial sections: places of the first are looked for in the second."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    first: Path = Field(description="The section that is clicked on.")
    second: Path = Field(description="The section that is searched.")

    @property
    def name(self) -> str:
        """Return the pair's name, for display and for files.

        Returns
        -------
        str
            Such as ``"section1-section3"``.
        """
        return "-".join(path.name.split(".")[0] for path in (self.first, self.second))


class Arm(BaseModel):
    """One way to get an encoder: take it as it is, or fine-tune one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: str | None = Field(
        None,
        description="An encoder that is not fine-tuned: student, teacher, or any that "
        "can be loaded. Without it, the arm fine-tunes the student.",
    )
    preset: PresetName | None = Field(
        None, description="Named set of options; it overrides the study's options."
    )
    options: dict[str, Any] = Field(
        {},
        description="Options of finetune, nested as in config.json; they override both.",
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
        (), description="Slides to train on and, in turn, to test on."
    )
    arms: dict[Name, Arm] = Field({}, description="Arms to compare, by name.")
    base: dict[str, Any] = Field(
        {}, description="Options of finetune that all arms share, nested."
    )
    seeds: int = Field(3, ge=1, le=100, description="Runs per arm.")
    first_seed: int = Field(0, ge=0, description="Random seed of the first run.")
    folds: Literal["leave_one_out", "none"] = Field(
        "leave_one_out",
        description="Train on all slides except a fold's and test on those "
        "(leave_one_out); or train and test on all (none).",
    )
    against: dict[Name, Name | tuple[Name, ...]] = Field(
        {}, description="For an arm, the control or controls that it is compared with."
    )
    primary: tuple[str, ...] = Field(
        (), description="Primary measures, chosen before the runs; shown first."
    )
    evaluation: dict[str, Any] = Field({}, description="Options of evaluate, nested.")
    radii: tuple[Annotated[int, Field(ge=0, le=3)], ...] = Field(
        (0,),
        min_length=1,
        description="Context radii at which encoders are measured, in patch widths: "
        "features are averaged over so many patches around.",
    )
    pooled: bool = Field(
        False,
        description="AUROC over all patches of a fold's test slides together, instead of "
        "the mean over slides; needed where a slide has one class.",
    )
    subsets: dict[Name, tuple[str, ...]] = Field(
        {},
        description="Patients (or slides) whose patches are also measured on their own, by "
        "the subset's name.",
    )
    border: float = Field(
        0.0,
        ge=0,
        description="Patches that lie closer than this many patch widths to one of another "
        "class, or of none, are also measured apart from the inner ones; 0 for no.",
    )
    serial: tuple[SerialPair, ...] = Field(
        (), description="Serial sections for the click test, which needs no labels."
    )
    clicks: dict[str, Any] = Field({}, description="Options of the click test, nested.")
    teacher_cache_mb: int = Field(
        512,
        ge=0,
        description="Memory in megabytes for the teacher's features, shared by arms that "
        "see the same windows.",
    )
    keep_features: bool = Field(
        False, description="Keep the features of fine-tuned encoders, which are large."
    )

    @model_validator(mode="after")
    def _named_arms_are_there(self) -> StudyConfig:
        named = {*self.against, *(c for group in self.controls.values() for c in group)}
        for arm in sorted(named):
            if arm not in self.arms:
                raise ValueError(f"against: there is no arm {arm}")
        return self

    @model_validator(mode="after")
    def _names_are_unique(self) -> StudyConfig:
        pairs = [pair.name for pair in self.serial]
        for kind, names in (("serial", pairs), ("radii", list(map(str, self.radii)))):
            if len(set(names)) < len(names):
                raise ValueError(
                    f"{kind}: {max(names, key=names.count)} is there twice"
                )
        return self

    @property
    def controls(self) -> dict[str, tuple[str, ...]]:
        """Return the controls of each arm that has any.

        Returns
        -------
        dict of str to tuple of str
            Names of arms.
        """
        return {
            arm: (found,) if isinstance(found, str) else tuple(found)
            for arm, found in self.against.items()
        }

    @property
    def labelled(self) -> bool:
        """Return whether any slide has labels.

        Returns
        -------
        bool
            Without labels, only serial sections are measured.
        """
        return any(s.labels is not None or s.label is not None for s in self.slides)

    @property
    def student(self) -> str:
        """Return the encoder that arms fine-tune.

        Returns
        -------
        str
            Encoder specification.
        """
        return str(self.base.get("student") or FinetuneConfig().student)

    @property
    def teacher(self) -> str:
        """Return the encoder that gives the targets.

        Returns
        -------
        str
            Encoder specification.
        """
        return str(self.base.get("teacher") or FinetuneConfig().teacher)


@dataclass(frozen=True)
class Fold:
    """Slides to train on, and slides to test on.

    Attributes
    ----------
    name : str
        Name of the fold.
    train, test : tuple of StudySlide
        The slides.
    """

    name: str
    train: tuple[StudySlide, ...]
    test: tuple[StudySlide, ...]


@dataclass(frozen=True)
class Trial:
    """One run of one arm on one fold.

    Attributes
    ----------
    fold : Fold
        Slides to train and to test on.
    seed : int
        Random seed of the fine-tuning.
    arm : str
        Name of the arm.
    """

    fold: Fold
    seed: int
    arm: str

    @property
    def name(self) -> str:
        """Return the trial's name for display.

        Returns
        -------
        str
            Such as ``"fold C2, seed 0, F"``.
        """
        return f"fold {self.fold.name}, seed {self.seed}, {self.arm}"

    def folder(self, out: Path) -> Path:
        """Return the folder of the trial's run and metrics.

        Parameters
        ----------
        out : Path
            Directory of the study.

        Returns
        -------
        Path
            Such as ``out/cells/C2/seed-0/F``.
        """
        return out / "cells" / self.fold.name / f"seed-{self.seed}" / self.arm


def read_study(path: Path) -> StudyConfig:
    """Read a study from a JSON file; its paths are relative to that file.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    StudyConfig
        With absolute paths.

    Raises
    ------
    ConfigError
        If it cannot be read, or an option is wrong.
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
    serial = tuple(
        SerialPair(first=folder / pair.first, second=folder / pair.second)
        for pair in config.serial
    )
    out = config.out and folder / config.out
    return config.model_copy(update={"slides": slides, "serial": serial, "out": out})


def make_folds(config: StudyConfig) -> list[Fold]:
    """Divide the slides into folds, in the slides' order.

    Parameters
    ----------
    config : StudyConfig
        Slides, and how they are held out.

    Returns
    -------
    list of Fold
        One per held-out slide or group of slides; a single one for ``"none"``.

    Raises
    ------
    ConfigError
        If there are too few slides, or two folds have the same name.
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
            "leave_one_out needs two slides or more", hint='Or set "folds": "none"'
        )
    return [
        Fold(name, tuple(s for s in config.slides if s not in test), tuple(test))
        for name, test in by_name.items()
    ]


def make_trials(config: StudyConfig, folds: Sequence[Fold]) -> list[Trial]:
    """List all trials, in an order that gives each arm's first results early.

    An encoder that is not fine-tuned has no seeds: it has one trial per fold.

    Parameters
    ----------
    config : StudyConfig
        Arms and seeds.
    folds : sequence of Fold
        The folds.

    Returns
    -------
    list of Trial
        In the order in which they run.
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
    """Return an arm's fine-tuning options: its own, over its preset's, over the study's.

    Parameters
    ----------
    config : StudyConfig
        The study.
    name : str
        Name of the arm.
    seed : int
        Random seed.
    slides : sequence of Path
        Slides to train on.
    out : Path or None
        Directory of the run.

    Returns
    -------
    FinetuneConfig
        Valid options.

    Raises
    ------
    ConfigError
        If an option is wrong; the message names the arm.
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
    # The same precision on every machine keeps arms comparable.
    options["compute"] = {"precision": "float32", **options.get("compute", {})}
    try:
        return FinetuneConfig.model_validate({**options, "slides": slides, "out": out})
    except ValidationError as error:
        raise ConfigError(_first(error), f"arm {name}") from None


def _first(error: ValidationError) -> str:
    first: Mapping[str, Any] = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
