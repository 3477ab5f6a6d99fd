"""Resolutions that the user gave for slides which state none, kept for next time."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

from napari_mcm.core.files import write_json

_log = logging.getLogger(__name__)


def known_mpp(fingerprint: str) -> float | None:
    """Tell what was given for a slide before.

    Parameters
    ----------
    fingerprint : str
        Of the slide; a file that was moved or renamed is known again.

    Returns
    -------
    float or None
        Microns per level-0 pixel.
    """
    mpp = _read(_file()).get(fingerprint)
    if not isinstance(mpp, int | float) or not 0 < mpp < math.inf:
        return None
    return float(mpp)


def remember_mpp(fingerprint: str, mpp: float) -> None:
    """Keep what the user gave for a slide.

    Raises
    ------
    McmError
        If the settings cannot be written.
    """
    file = _file()
    write_json(file, _read(file) | {fingerprint: mpp})


def _read(file: Path) -> dict[str, Any]:
    """Read the settings; a damaged file is as good as none, and is replaced."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        _log.warning("%s cannot be read and is left out: %s", file, error)
        return {}
    return content if isinstance(content, dict) else {}


def _file() -> Path:
    from platformdirs import user_config_path

    folder = user_config_path("napari-mcm", appauthor=False)
    return Path(folder) / "resolutions.json"
