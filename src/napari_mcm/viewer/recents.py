"""Encoders and files that were used before, as all widgets of a viewer offer them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from psygnal import Signal

from napari_mcm.viewer.background import Background
from napari_mcm.viewer.remembered import FEATURES, RUNS, recent, remember_recent


class RecentDesk:
    """Reads in the background what is remembered, and keeps what is new.

    Parameters
    ----------
    disk : Background
        The thread that reads and writes files.
    complain : callable
        Told one line when something cannot be kept.

    Attributes
    ----------
    runs, features : tuple of Path
        Fine-tuned runs that have an encoder, and feature files; the newest first.
    changed : Signal
        Others are known.
    """

    changed = Signal()

    def __init__(self, disk: Background, complain: Callable[[str], None]) -> None:
        self._disk, self._complain = disk, complain
        self.runs: tuple[Path, ...] = ()
        self.features: tuple[Path, ...] = ()

    def look(self) -> None:
        """Read again what is remembered."""
        self._disk.submit("recent", _read, self._take, self._complain)

    def keep_features(self, file: Path) -> None:
        """Keep a feature file that was made or opened."""
        self._disk.submit(
            f"recent {file}",
            lambda: remember_recent(FEATURES, str(file)),
            lambda _: self.look(),
            self._complain,
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


def _read() -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    runs = tuple(run for run in recent(RUNS) if (run / "summary.json").is_file())
    return runs, recent(FEATURES)
