"""Options of the verb ``register``."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from napari_mcm.core.registration import RegistrationConfig
from napari_mcm.core.slides import ReadConfig
from napari_mcm.core.tissue import TissueConfig


class RegisterConfig(BaseModel):
    """Register two serial sections, and carry annotations from the first to the second."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slides: tuple[Path, ...] = Field(
        (), description="Two slides: neighbouring sections of one block."
    )
    out: Path | None = Field(
        None, description="Folder for the registration and what is carried over."
    )
    carry: tuple[Path, ...] = Field(
        (),
        description="File of the first slide to carry over to the second: regions "
        "(.geojson), labels of patches (.labels.json), or a mask (.png, .tif).",
    )
    use: Path | None = Field(
        None,
        description="Registration file of these two slides, in either direction, to use "
        "in place of a new registration.",
    )
    read: ReadConfig = ReadConfig()
    registration: RegistrationConfig = RegistrationConfig()
    tissue: TissueConfig = TissueConfig()
