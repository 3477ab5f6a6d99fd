"""The plugin's page in napari's preferences.

The manifest declares the preferences (``contributions.configurations``). napari stores
them in ``napari-mcm.yaml`` beside its own settings. Changes apply from the next use on.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from napari_mcm.core.encoders.compute import ComputeConfig
from napari_mcm.viewer.layers.look import LookValues, MapLook
from napari_mcm.viewer.layers.timers import single_shot

PLUGIN = "napari-mcm"
_SAVE_MS = 400
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
    look : LookValues
        Style, colour map, opacity and smoothness of maps.
    caption : bool
        Whether the canvas says which slide, encoder, context and query are seen.
    overview : bool
        Whether the canvas shows an overview map.
    open_similarity : bool
        Whether a slide that opens brings the dock *Similarity*.
    author : str
        Name that labels are made under; empty for that of the user's account.
    """

    device: str = "auto"
    precision: str = "auto"
    tile_cache_mib: int = 256
    output_folder: Path | None = None
    look: LookValues = LookValues()
    caption: bool = True
    overview: bool = True
    open_similarity: bool = True
    author: str = ""

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
        _look(stored.maps),
        bool(stored.maps.caption),
        bool(stored.canvas.overview),
        bool(stored.slides.open_similarity),
        stored.labels.author.strip(),
    )


class LookSettings:
    """Draws maps as the preferences say, and writes there what the user chooses.

    Parameters
    ----------
    look : MapLook
        The look of one viewer's maps.
    """

    def __init__(self, look: MapLook) -> None:
        from napari.settings import get_plugin_settings

        self._look = look
        self._saving = False
        # A slider gives many values, and each change of a preference writes the file.
        self._timer = single_shot(_SAVE_MS, self._save)
        try:
            self._maps: Any = get_plugin_settings(PLUGIN).maps
        except KeyError:
            return
        look.use(_look(self._maps))
        look.changed.connect(self._changed)
        self._maps.events.connect(self._read)

    def _changed(self) -> None:
        self._timer.start()

    def _save(self) -> None:
        self._saving = True
        for name, value in asdict(self._look.values).items():
            # napari has more colour maps than the preferences offer.
            with suppress(ValueError):
                setattr(self._maps, name, value)
        self._saving = False

    def _read(self, _event: Any = None) -> None:
        if not (self._saving or self._timer.isActive()):
            self._look.use(_look(self._maps))


def _look(maps: Any) -> LookValues:
    """Return the look that preferences describe."""
    return LookValues(
        _plain(maps.style),
        str(_plain(maps.colormap)),
        float(maps.opacity),
        bool(maps.smooth),
        bool(maps.outline_moves),
    )


def set_preference(group: str, name: str, value: Any) -> None:
    """Change a preference, which napari saves; nothing if the plugin is not registered.

    Parameters
    ----------
    group, name : str
        As in the manifest.
    value : object
        The new value.
    """
    from napari.settings import get_plugin_settings

    try:
        stored: Any = get_plugin_settings(PLUGIN)
    except KeyError:
        return
    setattr(getattr(stored, group), name, value)


def _plain(value: Any) -> Any:
    """Return the value of a choice, which napari may wrap in an enum member."""
    return getattr(value, "value", value)
