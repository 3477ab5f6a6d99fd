"""The plugin's page in napari's preferences, read in one place.

They are declared in the manifest (``contributions.configurations``), kept by napari in
``napari-mcm.yaml`` beside its own settings, and hold from the next use on.
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
    """What the user prefers.

    Attributes
    ----------
    device, precision : str
        Where and in which number format encoders compute.
    tile_cache_mib : int
        Memory for decoded tiles of a slide.
    output_folder : Path or None
        Where features and runs go; None for beside the slide.
    colormap : str
        Of similarity maps.
    """

    device: str = "auto"
    precision: str = "auto"
    tile_cache_mib: int = 256
    output_folder: Path | None = None
    colormap: str = "coolwarm"

    @property
    def compute(self) -> ComputeConfig:
        """Device and precision as tasks take them; the usual ones if they are none."""
        try:
            return ComputeConfig.model_validate(
                {"device": self.device, "precision": self.precision}
            )
        except ValueError as error:
            _log.warning("Ignoring napari-mcm preferences: %s", error)
            return ComputeConfig()


def preferences() -> Preferences:
    """Read what the user prefers now; the defaults where napari knows no plugin."""
    from napari.settings import get_plugin_settings

    try:
        kept: Any = get_plugin_settings(PLUGIN)
    except KeyError:
        return Preferences()
    folder = kept.slides.output_folder.strip()
    return Preferences(
        str(kept.computing.device),
        str(_word(kept.computing.precision)),
        int(kept.slides.tile_cache_mib),
        Path(folder).expanduser() if folder else None,
        str(_word(kept.maps.colormap)),
    )


def _word(value: Any) -> Any:
    """Return a choice itself, which napari may hand over as a member of an enum."""
    return getattr(value, "value", value)
