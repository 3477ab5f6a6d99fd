"""What is kept for next time: resolutions that the user gave, the newest runs and files."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from threading import Lock
from typing import Any

from napari_mcm.core.errors import McmError
from napari_mcm.core.files import write_json

RUNS, FEATURES = "finetune runs", "features"
"""Kinds of what is remembered: folders of fine-tuned runs, and feature files."""
_FOLDER = "folder of dialogs"
_RECENT = 8
_writing = Lock()
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


def recent(kind: str) -> tuple[Path, ...]:
    """Give the newest runs or files that are still there, the newest first.

    Parameters
    ----------
    kind : str
        What they are, as it was remembered.
    """
    kept = _read(_recent_file()).get(kind)
    if not isinstance(kept, list):
        return ()
    paths = [Path(path) for path in kept if isinstance(path, str)]
    return tuple(path for path in paths if path.exists())


def remember_recent(kind: str, path: str) -> None:
    """Keep a run or file as the newest one of its kind.

    Raises
    ------
    McmError
        If the settings cannot be written.
    """
    file = _recent_file()
    with _writing:
        content = _read(file)
        kept = content.get(kind)
        known = [p for p in kept if p != path] if isinstance(kept, list) else []
        write_json(file, content | {kind: [path, *known][:_RECENT]})


def last_folder() -> Path | None:
    """Give the folder that a file was chosen in last; None where it is gone."""
    kept = _read(_recent_file()).get(_FOLDER)
    folder = Path(kept) if isinstance(kept, str) and kept else None
    return folder if folder is not None and folder.is_dir() else None


def remember_folder(folder: Path) -> None:
    """Keep the folder that a file was chosen in; where that fails, nothing is lost."""
    file = _recent_file()
    try:
        with _writing:
            content = _read(file)
            if content.get(_FOLDER) != str(folder):
                write_json(file, content | {_FOLDER: str(folder)})
    except (OSError, McmError) as error:
        _log.warning("%s is not kept: %s", folder, error)


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


def _recent_file() -> Path:
    return _file().with_name("recent.json")
