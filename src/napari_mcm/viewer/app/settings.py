"""The plugin's page in napari's preferences.

The manifest declares the preferences (``contributions.configurations``). napari stores
them in ``napari-mcm.yaml`` beside its own settings. Changes apply from the next use on.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_mcm.core.encoders.compute import ComputeConfig

PLUGIN = "napari-mcm"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Preferences:
    """The preferences of the user.

    Attributes
    ----------
    device, precision : str
        Device and number format of encoders.
    tile_cache_mib : int
        Memory for decoded tiles per slide, in MiB.
    output_folder : Path or None
        Folder for features and runs; None for one beside the slide.
    colormap : str
        Colormap of similarity maps.
    """

    device: str = "auto"
    precision: str = "auto"
    tile_cache_mib: int = 256
    output_folder: Path | None = None
    colormap: str = "coolwarm"

    @property
    def compute(self) -> ComputeConfig:
        """Device and precision as an engine option; defaults if they are invalid."""
        try:
            return ComputeConfig.model_validate(
                {"device": self.device, "precision": self.precision}
            )
        except ValueError as error:
            _log.warning("Ignoring napari-mcm preferences: %s", error)
            return ComputeConfig()


def preferences() -> Preferences:
    """Return the current preferences; the defaults if the plugin is not registered."""
    from napari.settings import get_plugin_settings

    try:
        stored: Any = get_plugin_settings(PLUGIN)
    except KeyError:
        return Preferences()
    folder = stored.slides.output_folder.strip()
    return Preferences(
        str(stored.computing.device),
        str(_plain(stored.computing.precision)),
        int(stored.slides.tile_cache_mib),
        Path(folder).expanduser() if folder else None,
        str(_plain(stored.maps.colormap)),
    )


def _plain(value: Any) -> Any:
    """Return the value of a choice, which napari may wrap in an enum member."""
    return getattr(value, "value", value)
