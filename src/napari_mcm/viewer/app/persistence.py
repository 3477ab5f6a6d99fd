"""What is kept for next time: resolutions that the user gave, the newest runs and files."""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_mcm.core.errors import McmError
from napari_mcm.core.runtime.files import write_json
from napari_mcm.viewer.app.background import Background

if TYPE_CHECKING:
    from napari_mcm.core.slides import Slide


RUNS, FEATURES = "finetune runs", "features"
"""Kinds of what is remembered: folders of fine-tuned runs, and feature files."""

_FOLDER = "folder of dialogs"

_RECENT = 8

_writing = Lock()

_log = logging.getLogger(__name__)


def known_mpp(fingerprint: str) -> float | None:
    """Return what was given for a slide before.

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
    _update(_file(), lambda kept: {fingerprint: mpp})


def recent(kind: str) -> tuple[Path, ...]:
    """Return the newest runs or files that are still there, the newest first.

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

    def prepend(content: dict[str, Any]) -> dict[str, Any]:
        kept = content.get(kind)
        known = [p for p in kept if p != path] if isinstance(kept, list) else []
        return {kind: [path, *known][:_RECENT]}

    _update(_recent_file(), prepend)


def last_folder() -> Path | None:
    """Return the folder that a file was chosen in last; None where it is gone."""
    kept = _read(_recent_file()).get(_FOLDER)
    folder = Path(kept) if isinstance(kept, str) and kept else None
    return folder if folder is not None and folder.is_dir() else None


def remember_folder(folder: Path) -> None:
    """Keep the folder that a file was chosen in; where that fails, nothing is lost."""
    try:
        _update(_recent_file(), lambda kept: {_FOLDER: str(folder)})
    except (OSError, McmError) as error:
        _log.warning("Cannot save %s: %s", folder, error)


def _update(file: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Write changed entries of a file; another thread reads it before or after.

    Parameters
    ----------
    file : Path
        The settings.
    change : callable
        Called with what is in the file, returns the entries that change.

    Raises
    ------
    McmError
        If the file cannot be written.
    """
    with _writing:
        content = _read(file)
        changed = content | change(content)
        if changed != content:
            write_json(file, changed)


def _read(file: Path) -> dict[str, Any]:
    """Read the settings; a damaged file is as good as none, and is replaced."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        _log.warning("Ignoring %s, which cannot be read: %s", file, error)
        return {}
    return content if isinstance(content, dict) else {}


def _file() -> Path:
    from platformdirs import user_config_path

    folder = user_config_path("napari-mcm", appauthor=False)
    return Path(folder) / "resolutions.json"


def _recent_file() -> Path:
    return _file().with_name("recent.json")


def remembered_mil_folders() -> dict[str, str]:
    """Return what was chosen last, by the name of its field; empty at first."""
    content = _read(_mil_file())
    return {k: v for k, v in content.items() if isinstance(v, str)}


def remember_mil_folders(chosen: dict[str, str]) -> None:
    """Keep what was chosen, by the name of its field.

    Raises
    ------
    McmError
        If the settings cannot be written.
    """
    _update(_mil_file(), lambda kept: chosen)


def _mil_file() -> Path:
    from platformdirs import user_config_path

    return Path(user_config_path("napari-mcm", appauthor=False)) / "mil.json"


FOLDER = "napari-mcm"


def writable_base(slide: Path) -> Path:
    """Find where files of a slide can go: beside it, at home, or for now."""
    beside = slide.absolute().parent
    for folder in (beside, Path.home()):
        made = folder / FOLDER
        if os.access(made if made.exists() else folder, os.W_OK):
            return made
    return Path(tempfile.gettempdir()) / FOLDER


def drawn_mask_path(slide: Slide) -> Path:
    """Return where the tissue mask that was drawn on a slide is kept.

    Slides from several folders share the one at home: there each has its own.
    """
    base = writable_base(slide.path)
    if base.parent != slide.path.absolute().parent:
        base /= slide.fingerprint
    return base / f"{slide.name}.geojson"


class RecentFiles:
    """Reads in the background what is remembered, and keeps what is new.

    Parameters
    ----------
    disk : Background
        The thread that reads and writes files.
    report_error : callable
        Told one line when something cannot be kept.

    Attributes
    ----------
    runs, features : tuple of Path
        Fine-tuned runs that have an encoder, and feature files; the newest first.
    changed : Signal
        Others are known.
    """

    changed = Signal()

    def __init__(self, disk: Background, report_error: Callable[[str], None]) -> None:
        self._disk, self._show_error = disk, report_error
        self.runs: tuple[Path, ...] = ()
        self.features: tuple[Path, ...] = ()

    def look(self) -> None:
        """Read again what is remembered."""
        self._disk.submit("recent", _read_recent, self._take, self._show_error)

    def keep_features(self, file: Path) -> None:
        """Keep a feature file that was made or opened."""
        self._disk.submit(
            f"recent {file}",
            lambda: remember_recent(FEATURES, str(file)),
            lambda _: self.look(),
            self._show_error,
        )

    def _take(self, found: tuple[tuple[Path, ...], tuple[Path, ...]]) -> None:
        if found != (self.runs, self.features):
            self.runs, self.features = found
            self.changed.emit()


def note_opened(path: str) -> None:
    """Have napari's own dialogs begin where a slide was opened."""
    from napari.utils.history import get_open_history, update_open_history

    file = Path(path).absolute()
    # To say the same again would have napari write all its settings.
    if get_open_history()[:1] != [str(file.parent)]:
        update_open_history(str(file))


def _read_recent() -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    runs = tuple(run for run in recent(RUNS) if (run / "summary.json").is_file())
    return runs, recent(FEATURES)
