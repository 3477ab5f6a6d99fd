"""Values remembered between sessions: resolutions, recent runs, files and folders."""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from psygnal import Signal

from napari_mcm.core.errors import McmError
from napari_mcm.core.runtime.files import write_json
from napari_mcm.viewer.app.background import BackgroundWorker

if TYPE_CHECKING:
    from napari_mcm.core.slides import Slide


RUNS, FEATURES, PROJECTS = "finetune runs", "features", "projects"
"""Kinds of recent entries: folders of fine-tuned runs, feature files, and projects."""

_FOLDER = "folder of dialogs"
_SECTIONS = "open sections"

_RECENT = 8

_LONGEST_S = 2.0
"""Longest time in seconds that a write waits for another program's."""

_writing = Lock()

_log = logging.getLogger(__name__)


def known_mpp(fingerprint: str) -> float | None:
    """Return the resolution that the user entered for a slide earlier.

    Parameters
    ----------
    fingerprint : str
        Fingerprint of the slide, which stays the same if the file is moved or renamed.

    Returns
    -------
    float or None
        Microns per level-0 pixel; None if none was entered.
    """
    mpp = _read(_file()).get(fingerprint)
    if not isinstance(mpp, int | float) or not 0 < mpp < math.inf:
        return None
    return float(mpp)


def remember_mpp(fingerprint: str, mpp: float) -> None:
    """Remember the resolution that the user entered for a slide.

    Parameters
    ----------
    fingerprint : str
        Fingerprint of the slide.
    mpp : float
        Microns per level-0 pixel.

    Raises
    ------
    McmError
        If the settings cannot be written.
    """
    _update(_file(), lambda stored: {fingerprint: mpp})


def recent(kind: str) -> tuple[Path, ...]:
    """Return recent runs or files that still exist, the newest first.

    Parameters
    ----------
    kind : str
        :data:`RUNS`, :data:`FEATURES` or :data:`PROJECTS`.
    """
    stored = _read(_recent_file()).get(kind)
    if not isinstance(stored, list):
        return ()
    paths = [Path(path) for path in stored if isinstance(path, str)]
    return tuple(path for path in paths if path.exists())


def remember_recent(kind: str, path: str) -> None:
    """Add a run or file to the recent ones of its kind.

    Parameters
    ----------
    kind : str
        :data:`RUNS`, :data:`FEATURES` or :data:`PROJECTS`.
    path : str
        Folder of the run, or the file.

    Raises
    ------
    McmError
        If the settings cannot be written.
    """

    def prepend(content: dict[str, Any]) -> dict[str, Any]:
        stored = content.get(kind)
        known = [p for p in stored if p != path] if isinstance(stored, list) else []
        return {kind: [path, *known][:_RECENT]}

    _update(_recent_file(), prepend)


def last_folder() -> Path | None:
    """Return the folder of the last file dialog; None if it no longer exists."""
    stored = _read(_recent_file()).get(_FOLDER)
    folder = Path(stored) if isinstance(stored, str) and stored else None
    return folder if folder is not None and folder.is_dir() else None


def remember_folder(folder: Path) -> None:
    """Remember the folder of a file dialog; only log a failure to save it."""
    try:
        _update(_recent_file(), lambda stored: {_FOLDER: str(folder)})
    except (OSError, McmError) as error:
        _log.warning("Cannot save %s: %s", folder, error)


def open_sections() -> dict[str, bool]:
    """Return which sections of the docks the user opened or closed, by their name."""
    stored = _read(_recent_file()).get(_SECTIONS)
    if not isinstance(stored, dict):
        return {}
    return {name: is_open is True for name, is_open in stored.items()}


def remember_section(name: str, is_open: bool) -> None:
    """Remember that the user opened or closed a section of a dock.

    Parameters
    ----------
    name : str
        Name of the section.
    is_open : bool
        Whether it is open.

    Raises
    ------
    McmError
        If the settings cannot be written.
    """
    _update(
        _recent_file(), lambda stored: {_SECTIONS: open_sections() | {name: is_open}}
    )


def _update(file: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change entries of a settings file while no other thread or program does.

    Parameters
    ----------
    file : Path
        The settings file.
    change : callable
        Called with the content of the file; returns the changed entries.

    Raises
    ------
    McmError
        If the file cannot be written.
    """
    with _writing, _exclusive(file):
        content = _read(file)
        changed = content | change(content)
        if changed != content:
            write_json(file, changed)


@contextmanager
def _exclusive(file: Path) -> Iterator[None]:
    """Keep other programs of this user from changing a settings file meanwhile.

    The system releases the lock of a program that was killed.

    Raises
    ------
    McmError
        If another program does not release it in time.
    """
    lock = FileLock(file.with_name(f".{file.name}.lock"), timeout=_LONGEST_S)
    with ExitStack() as held:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(lock)
        except Timeout:
            raise McmError(
                "is being written by another program", file, "Close it, and try again"
            ) from None
        except (OSError, NotImplementedError) as error:
            # Some network folders have no locks; a folder that cannot be written to
            # is reported by the write itself.
            _log.debug("No lock for %s: %s", file, error)
        yield


def _read(file: Path) -> dict[str, Any]:
    """Read a settings file; treat a missing or damaged file as empty."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        _log.warning("Ignoring %s, which cannot be read: %s", file, error)
        return {}
    return content if isinstance(content, dict) else {}


def settings_folder() -> Path:
    """Return the folder of the plugin's remembered values; it may not exist yet."""
    return _file().parent


def _file() -> Path:
    from platformdirs import user_config_path

    folder = user_config_path("napari-mcm", appauthor=False)
    return Path(folder) / "resolutions.json"


def settings_file(name: str) -> Path:
    """Return a file in the folder of what the plugin remembers.

    Parameters
    ----------
    name : str
        Name of the file.
    """
    return _file().with_name(name)


def _recent_file() -> Path:
    return _file().with_name("recent.json")


def remembered_mil_folders() -> dict[str, str]:
    """Return the paths chosen last in the MIL widget, by the name of their field."""
    content = _read(_mil_file())
    return {k: v for k, v in content.items() if isinstance(v, str)}


def remember_mil_folders(chosen: dict[str, str]) -> None:
    """Remember the paths chosen in the MIL widget.

    Parameters
    ----------
    chosen : dict
        Name of a field to its path.

    Raises
    ------
    McmError
        If the settings cannot be written.
    """
    _update(_mil_file(), lambda stored: chosen)


def _mil_file() -> Path:
    from platformdirs import user_config_path

    return Path(user_config_path("napari-mcm", appauthor=False)) / "mil.json"


FOLDER = "napari-mcm"
"""Name of the folder for output."""


def writable_base(slide: Path) -> Path:
    """Return a writable output folder for a slide.

    It is in the folder of the slide; if that is not writable, in the home directory, or
    else among temporary files.

    Parameters
    ----------
    slide : Path
        File or folder of the slide.
    """
    beside = slide.absolute().parent
    for folder in (beside, Path.home()):
        made = folder / FOLDER
        if os.access(made if made.exists() else folder, os.W_OK):
            return made
    return Path(tempfile.gettempdir()) / FOLDER


def drawn_mask_path(slide: Slide) -> Path:
    """Return the file of the tissue mask that the user drew on a slide.

    In the home directory, where slides of several folders meet, each slide has a
    subfolder.
    """
    base = writable_base(slide.path)
    if base.parent != slide.path.absolute().parent:
        base /= slide.fingerprint
    return base / f"{slide.name}.geojson"


class RecentFiles:
    """Recent runs and feature files, read and written in the background.

    Parameters
    ----------
    disk : BackgroundWorker
        Thread that reads and writes files.
    report_error : callable
        Called with a one-line message if an entry cannot be saved.

    Attributes
    ----------
    runs, features, projects : tuple of Path
        Fine-tuned runs that have an encoder, feature files, and projects; newest first.
    changed : Signal
        Emitted when either changes.
    """

    changed = Signal()

    def __init__(
        self, disk: BackgroundWorker, report_error: Callable[[str], None]
    ) -> None:
        self._disk, self._show_error = disk, report_error
        self.runs: tuple[Path, ...] = ()
        self.features: tuple[Path, ...] = ()
        self.projects: tuple[Path, ...] = ()

    def reload(self) -> None:
        """Read the recent runs and files again."""
        self._disk.submit("recent", _read_recent, self._take, self._show_error)

    def add_features(self, file: Path) -> None:
        """Remember a feature file that was computed or opened."""
        self._disk.submit(
            f"recent {file}",
            lambda: remember_recent(FEATURES, str(file)),
            lambda _: self.reload(),
            self._show_error,
        )

    def _take(self, found: tuple[tuple[Path, ...], ...]) -> None:
        if found != (self.runs, self.features, self.projects):
            self.runs, self.features, self.projects = found
            self.changed.emit()


def note_opened(path: str) -> None:
    """Let napari's file dialogs start in the folder of a slide that was opened.

    Parameters
    ----------
    path : str
        File or folder of the slide.
    """
    from napari.utils.history import get_open_history, update_open_history

    file = Path(path).absolute()
    # Each update makes napari write all its settings.
    if get_open_history()[:1] != [str(file.parent)]:
        update_open_history(str(file))


def _read_recent() -> tuple[tuple[Path, ...], ...]:
    runs = tuple(run for run in recent(RUNS) if (run / "summary.json").is_file())
    return runs, recent(FEATURES), recent(PROJECTS)
