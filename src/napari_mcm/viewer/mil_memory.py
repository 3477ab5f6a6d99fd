"""Folders that were chosen in the *MIL* widget, kept for next time."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from napari_mcm.core.files import write_json

_log = logging.getLogger(__name__)


def remembered_mil_folders() -> dict[str, str]:
    """Give what was chosen last, by the name of its field; empty at first."""
    file = _file()
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        _log.warning("%s cannot be read and is left out: %s", file, error)
        return {}
    if not isinstance(content, dict):
        return {}
    return {k: v for k, v in content.items() if isinstance(v, str)}


def remember_mil_folders(chosen: dict[str, str]) -> None:
    """Keep what was chosen, by the name of its field.

    Raises
    ------
    OSError
        If the settings cannot be written.
    """
    known = remembered_mil_folders()
    if known | chosen != known:
        write_json(_file(), known | chosen)


def _file() -> Path:
    from platformdirs import user_config_path

    return Path(user_config_path("napari-mcm", appauthor=False)) / "mil.json"
