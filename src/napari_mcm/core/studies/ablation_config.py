"""Options of the data-set-size ablation, and its trials."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from napari_mcm.core.cells.config import FitConfig, LabelsConfig, tiny_unless_named
from napari_mcm.core.encoders.compute import ComputeConfig, ExactComputeConfig
from napari_mcm.core.mae.config import AugmentConfig, ModelConfig
from napari_mcm.core.training.options import Chunk, Workers

_SUBSETS = 29


class AblationConfig(BaseModel):
    """Classifiers from several starts, trained on fractions of the labelled images."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Path | None = Field(None, description="Folder or table of labelled images.")
    out: Path | None = Field(
        None, description="Directory of the ablation; finished trials in it are kept."
    )
    arms: tuple[str, ...] = Field(
        ("scratch",),
        min_length=1,
        description="Starts to compare: scratch, mae:RUN, or an encoder. With a mae:RUN, "
        "scratch is the same network with random weights.",
    )
    percent: tuple[float, ...] = Field(
        (1.0, 10.0, 50.0, 100.0),
        min_length=1,
        description="Label fractions: percentages of the training images. Each subset "
        "contains the smaller ones, and at least one image of each class.",
    )
    seeds: int = Field(
        3,
        ge=1,
        le=100,
        description="Repetitions with other subsets, order and random weights.",
    )
    test_split: str = Field(
        "",
        description="Split to score on; by default a test split if there is one, else "
        "the validation split, which is used for nothing else.",
    )
    keep_weights: bool = Field(
        False, description="Keep each trial's classifier, not only its predictions."
    )
    labels: LabelsConfig = LabelsConfig()
    model: ModelConfig = ModelConfig(model="tiny")
    fit: FitConfig = FitConfig()
    augment: AugmentConfig = AugmentConfig()
    compute: ExactComputeConfig = ComputeConfig(precision="float32")
    workers: Workers = 2
    cache_mb: int = Field(256, ge=0, description="Memory for decoded pictures, in MB.")
    chunk_images: Chunk = "auto"
    scheduler: str | None = Field(
        None,
        description="Address of a dask.distributed scheduler that runs the trials.",
    )

    @model_validator(mode="before")
    @classmethod
    def _tiny(cls, given: Any) -> Any:
        return tiny_unless_named(given)

    @field_validator("percent")
    @classmethod
    def _parts(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < value <= 100 for value in values):
            raise ValueError("a percentage must lie above 0 and be at most 100")
        return tuple(sorted(set(values)))

    @field_validator("arms")
    @classmethod
    def _once(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(values))

    def same_study(self) -> dict[str, object]:
        """Return the options that results depend on, ready for JSON.

        Returns
        -------
        dict of str to object
            Without paths, machine and speed options.
        """
        how = {"out", "compute", "workers", "cache_mb", "chunk_images", "scheduler"}
        return self.model_dump(mode="json", exclude=how)


def arm_names(arms: Sequence[str]) -> dict[str, str]:
    """Return short names of arms for tables and figures.

    Parameters
    ----------
    arms : sequence of str
        Arms as given: ``scratch``, ``mae:RUN`` or an encoder.

    Returns
    -------
    dict of str to str
        By arm; a run by its folder's name, where that is unique.
    """
    short = {arm: re.sub(r"^mae:.*[/\\]", "mae:", arm.rstrip("/\\")) for arm in arms}
    taken = list(short.values())
    return {arm: s if taken.count(s) == 1 else arm for arm, s in short.items()}


class AblationTrial(BaseModel):
    """One classifier of the ablation.

    Attributes
    ----------
    arm : str
        What it starts from.
    percent : float
        Percentage of the training images.
    seed : int
        Random seed of subset, order and weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    arm: str
    percent: float
    seed: int

    @property
    def folder(self) -> Path:
        """Return the trial's folder, relative to the ablation's directory.

        Returns
        -------
        Path
            Such as ``cells/scratch/10pc/seed0``.
        """
        arm = re.sub(r"[^A-Za-z0-9_.-]+", "_", self.arm).strip("_.")[-60:]
        return Path("cells") / arm / f"{self.percent:g}pc" / f"seed{self.seed}"

    def describe(self) -> str:
        """Return the trial's name for display.

        Returns
        -------
        str
            Such as ``"scratch, 10 %, seed 0"``.
        """
        return f"{self.arm}, {self.percent:g} %, seed {self.seed}"


def ablation_trials(config: AblationConfig) -> list[AblationTrial]:
    """List all trials: small subsets first, all arms of a subset after each other.

    Parameters
    ----------
    config : AblationConfig
        Fractions, seeds and arms.

    Returns
    -------
    list of AblationTrial
        In the order in which they run.
    """
    return [
        AblationTrial(arm=arm, percent=percent, seed=seed)
        for percent in config.percent
        for seed in range(config.seeds)
        for arm in config.arms
    ]


def arm_start(arm: str, arms: Sequence[str]) -> str:
    """Return what an arm starts from.

    Parameters
    ----------
    arm : str
        The arm.
    arms : sequence of str
        All arms.

    Returns
    -------
    str
        As ``--init``; ``scratch`` has the network of the first ``mae:`` run.
    """
    runs = [other for other in arms if other.startswith("mae:")]
    if arm == "scratch" and runs:
        return f"scratch:{runs[0].removeprefix('mae:')}"
    return arm


def nested_subset(
    targets: NDArray[np.int64], percent: float, seed: int
) -> NDArray[np.int64]:
    """Choose a percentage of the images, class by class.

    Parameters
    ----------
    targets : ndarray of int64, shape (N,)
        Class of each image.
    percent : float
        Percentage of each class; at least one image where it has any.
    seed : int
        Random seed; of two subsets with the same seed, the larger contains the smaller.

    Returns
    -------
    ndarray of int64
        Indices of the chosen images, sorted.
    """
    chosen = []
    for name in np.unique(targets):
        rows = np.flatnonzero(targets == name)
        order = np.random.default_rng((seed, _SUBSETS, int(name))).permutation(rows)
        count = max(round(len(rows) * percent / 100), 1)
        chosen.append(order[:count])
    return np.sort(np.concatenate(chosen))
