"""What the widgets set up, as commands of ``napari-mcm``; and how the window runs them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from napari_mcm.core.command import Command
from napari_mcm.core.features.config import ExtractConfig
from napari_mcm.core.mae.classifier.config import ClassifyConfig
from napari_mcm.core.mae.config import PretrainConfig
from napari_mcm.core.mcm.config import FinetuneConfig
from napari_mcm.core.mil.config import MilConfig
from napari_mcm.core.studies.ablation_config import AblationConfig

_Config = TypeVar("_Config", bound=BaseModel)


class Resume(BaseModel):
    """A run to go on with."""

    resume: Path | None = None


def extract_command(config: ExtractConfig) -> Command:
    """Name the verb that computes features."""
    return Command("extract", config, "slides")


def finetune_command(config: FinetuneConfig) -> Command:
    """Name the verb that fine-tunes."""
    return Command("finetune", config, "slides")


def mil_command(config: MilConfig) -> Command:
    """Name the verb that trains a classifier of slides."""
    return Command("mil train", config, "cohort")


def pretrain_command(config: PretrainConfig) -> Command:
    """Name the verb that pre-trains a masked autoencoder."""
    return Command("mae pretrain", config, "pictures")


def classify_command(config: ClassifyConfig) -> Command:
    """Name the verb that trains a classifier of cells."""
    return Command("classify train", config, "data")


def ablate_command(config: AblationConfig) -> Command:
    """Name the verb that runs an ablation."""
    return Command("ablate", config, "data")


def resume_command(verb: str, folder: Path) -> Command:
    """Name the verb with which a run goes on."""
    return Command(verb, Resume(resume=folder))


def beside_window(config: _Config) -> _Config:
    """Give a task as the window runs it: a core is left to the window itself.

    That is no part of what is asked for, so it is neither copied nor saved.

    Parameters
    ----------
    config : BaseModel
        With a group ``compute``.
    """
    compute: Any = getattr(config, "compute")  # noqa: B009 - of several models
    if compute.threads is not None:
        return config
    threads = max((os.cpu_count() or 1) - 1, 1)
    return config.model_copy(
        update={"compute": compute.model_copy(update={"threads": threads})}
    )
