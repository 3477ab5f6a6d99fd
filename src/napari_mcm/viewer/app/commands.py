"""What the widgets set up, as commands of ``napari-mcm``; and how the window runs them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from napari_mcm.core.cells.config import ClassifyConfig
from napari_mcm.core.features.config import ExtractConfig
from napari_mcm.core.mae.config import PretrainConfig
from napari_mcm.core.mcm.config import FinetuneConfig
from napari_mcm.core.mil.config import MilConfig
from napari_mcm.core.runtime.command import Command
from napari_mcm.core.studies.ablation_config import AblationConfig
from napari_mcm.viewer.app.persistence import writable_base
from napari_mcm.viewer.app.settings import preferences
from napari_mcm.viewer.layers.metadata import SlideMetadata

if TYPE_CHECKING:
    from napari_mcm.viewer.app.session import Session


_Config = TypeVar("_Config", bound=BaseModel)


class Resume(BaseModel):
    """The run that a command resumes."""

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


def reserve_gui_core(config: _Config) -> _Config:
    """Return a task as the window runs it: a core is left to the window itself.

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


@dataclass(frozen=True)
class Commands:
    """Several commands, one after the other."""

    each: tuple[Command, ...]

    @property
    def line(self) -> str:
        """A line for each."""
        return "\n".join(command.line for command in self.each)


def open_slide(session: Session) -> SlideMetadata:
    """Return what is known of the open slide.

    Raises
    ------
    ValueError
        With one line, where no slide is open or its resolution is unknown.
    """
    if (metadata := session.metadata) is None:
        raise ValueError("No slide is open")
    if metadata.mpp is None:
        raise ValueError(f"The resolution of {metadata.name} is unknown: enter it")
    return metadata


def output_folder(metadata: SlideMetadata) -> Path:
    """Return the folder that a command writes to: the preferred one, or the slide's."""
    return preferences().output_folder or writable_base(Path(metadata.path))
