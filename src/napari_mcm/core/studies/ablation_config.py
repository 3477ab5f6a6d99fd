"""Options of the data-set-size ablation, and its cells."""

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
from napari_mcm.core.mae.config import AugmentConfig, Chunk, ModelConfig

_SUBSETS = 29


class AblationConfig(BaseModel):
    """What more labelled data buys, by what a classifier starts from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Path | None = Field(None, description="Folder or table of labelled images.")
    out: Path | None = Field(
        None, description="Directory of the ablation; what is done there is kept."
    )
    arms: tuple[str, ...] = Field(
        ("scratch",),
        min_length=1,
        description="What classifiers start from: scratch, mae:RUN, or an encoder. With a "
        "mae:RUN, scratch is the same network without its weights.",
    )
    percent: tuple[float, ...] = Field(
        (1.0, 10.0, 50.0, 100.0),
        min_length=1,
        description="Parts of the training images, in percent; each holds the smaller "
        "ones, and one image of each class at least.",
    )
    seeds: int = Field(
        3, ge=1, le=100, description="Repetitions: other subsets, order and weights."
    )
    test_split: str = Field(
        "",
        description="Split to score on; by default a test split where there is one, else "
        "the validation split, which is used for nothing else.",
    )
    keep_weights: bool = Field(
        False, description="Keep each cell's classifier, not only its predictions."
    )
    labels: LabelsConfig = LabelsConfig()
    model: ModelConfig = ModelConfig(model="tiny")
    fit: FitConfig = FitConfig()
    augment: AugmentConfig = AugmentConfig()
    compute: ExactComputeConfig = ComputeConfig(precision="float32")
    workers: int = Field(2, ge=0, le=64, description="Threads that read images ahead.")
    cache_mb: int = Field(
        256, ge=0, description="Decoded pictures kept in memory, in MB."
    )
    chunk_images: Chunk = Field(
        "auto",
        description="Images computed at once within a step; auto keeps a cancel under a "
        "second on a CPU.",
    )
    scheduler: str | None = Field(
        None, description="Address of a dask.distributed scheduler to hand cells to."
    )

    @model_validator(mode="before")
    @classmethod
    def _tiny(cls, given: Any) -> Any:
        return tiny_unless_named(given)

    @field_validator("percent")
    @classmethod
    def _parts(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < value <= 100 for value in values):
            raise ValueError("a percentage lies above 0 and at most at 100")
        return tuple(sorted(set(values)))

    @field_validator("arms")
    @classmethod
    def _once(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(values))

    def same_study(self) -> dict[str, object]:
        """Give the options that results depend on, ready for JSON."""
        how = {"out", "compute", "workers", "cache_mb", "chunk_images", "scheduler"}
        return self.model_dump(mode="json", exclude=how)


def arm_names(arms: Sequence[str]) -> dict[str, str]:
    """Name arms for tables and figures: a run by its folder, where that tells it."""
    short = {arm: re.sub(r"^mae:.*[/\\]", "mae:", arm.rstrip("/\\")) for arm in arms}
    taken = list(short.values())
    return {arm: s if taken.count(s) == 1 else arm for arm, s in short.items()}


class AblationTrial(BaseModel):
    """One classifier of the ablation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    arm: str
    percent: float
    seed: int

    @property
    def folder(self) -> Path:
        """Where it lies in the ablation's directory."""
        arm = re.sub(r"[^A-Za-z0-9_.-]+", "_", self.arm).strip("_.")[-60:]
        return Path("cells") / arm / f"{self.percent:g}pc" / f"seed{self.seed}"

    def describe(self) -> str:
        """Name it for people."""
        return f"{self.arm}, {self.percent:g} %, seed {self.seed}"


def ablation_trials(config: AblationConfig) -> list[AblationTrial]:
    """List all cells: small subsets first, all arms of a subset after each other."""
    return [
        AblationTrial(arm=arm, percent=percent, seed=seed)
        for percent in config.percent
        for seed in range(config.seeds)
        for arm in config.arms
    ]


def arm_start(arm: str, arms: Sequence[str]) -> str:
    """Tell what an arm starts from; scratch has the network of the first mae:RUN."""
    runs = [other for other in arms if other.startswith("mae:")]
    if arm == "scratch" and runs:
        return f"scratch:{runs[0].removeprefix('mae:')}"
    return arm


def nested_subset(
    targets: NDArray[np.int64], percent: float, seed: int
) -> NDArray[np.int64]:
    """Choose a part of the images, class by class.

    Parameters
    ----------
    targets : ndarray of int64, shape (N,)
        Their classes.
    percent : float
        Part of each class; one image at least where it has any.
    seed : int
        Of the choice; subsets of one seed hold each other.

    Returns
    -------
    ndarray of int64
        Numbers of the images, in order.
    """
    chosen = []
    for name in np.unique(targets):
        rows = np.flatnonzero(targets == name)
        order = np.random.default_rng((seed, _SUBSETS, int(name))).permutation(rows)
        count = max(round(len(rows) * percent / 100), 1)
        chosen.append(order[:count])
    return np.sort(np.concatenate(chosen))
