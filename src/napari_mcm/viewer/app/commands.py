"""Commands of ``napari-mcm`` that do the same as the widgets' buttons."""

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
    from napari_mcm.core.encoders.compute import ComputeConfig
    from napari_mcm.viewer.app.session import Session


_Config = TypeVar("_Config", bound=BaseModel)


class Resume(BaseModel):
    """The options of a command that resumes a run.

    Attributes
    ----------
    resume : Path or None
        Folder of the run.
    """

    resume: Path | None = None


def extract_command(config: ExtractConfig) -> Command:
    """Return the command that computes features."""
    return Command("extract", config, "slides")


def finetune_command(config: FinetuneConfig) -> Command:
    """Return the command that fine-tunes an encoder."""
    return Command("finetune", config, "slides")


def mil_command(config: MilConfig) -> Command:
    """Return the command that trains a slide classifier."""
    return Command("mil train", config, "cohort")


def pretrain_command(config: PretrainConfig) -> Command:
    """Return the command that pre-trains a masked autoencoder."""
    return Command("mae pretrain", config, "pictures")


def classify_command(config: ClassifyConfig) -> Command:
    """Return the command that trains a cell classifier."""
    return Command("classify train", config, "data")


def ablate_command(config: AblationConfig) -> Command:
    """Return the command that runs an ablation."""
    return Command("ablate", config, "data")


def resume_command(verb: str, folder: Path) -> Command:
    """Return the command that resumes a run.

    Parameters
    ----------
    verb : str
        Verb that started the run, such as ``"mil train"``.
    folder : Path
        Folder of the run.
    """
    return Command(verb, Resume(resume=folder))


def reserve_gui_core(config: _Config) -> _Config:
    """Return a configuration that leaves one CPU core to the GUI.

    Commands and saved configurations keep the original: the reserve is needed only while
    a window is open.

    Parameters
    ----------
    config : BaseModel
        A configuration with a group ``compute``; its ``threads`` are set unless the user
        set them.
    """
    compute: Any = getattr(config, "compute")  # noqa: B009 - of several models
    return config.model_copy(update={"compute": leave_gui_core(compute)})


def leave_gui_core(compute: ComputeConfig) -> ComputeConfig:
    """Return where to compute, so that one CPU core is left to the GUI.

    Parameters
    ----------
    compute : ComputeConfig
        Its ``threads`` are set unless the user set them.
    """
    if compute.threads is not None:
        return compute
    threads = max((os.cpu_count() or 1) - 1, 1)
    return compute.model_copy(update={"threads": threads})


@dataclass(frozen=True)
class Commands:
    """Several commands that run one after another.

    Attributes
    ----------
    each : tuple of Command
        The commands, in their order.
    """

    each: tuple[Command, ...]

    @property
    def line(self) -> str:
        """The commands as text, one per line."""
        return "\n".join(command.line for command in self.each)


def open_slide(session: Session) -> SlideMetadata:
    """Return the metadata of the active slide, whose resolution is known.

    Raises
    ------
    ValueError
        If no slide is open or its resolution is unknown; the message is one line.
    """
    if (metadata := session.metadata) is None:
        raise ValueError("No slide is open")
    if metadata.mpp is None:
        raise ValueError(f"The resolution of {metadata.name} is unknown: enter it")
    return metadata


def output_folder(metadata: SlideMetadata) -> Path:
    """Return the output folder of commands: the preferred one, or one beside the slide."""
    return preferences().output_folder or writable_base(Path(metadata.path))
