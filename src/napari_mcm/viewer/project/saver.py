"""Writes the file of a project, in a thread and in the order of the changes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_mcm.viewer.project import disk

if TYPE_CHECKING:
    from napari_mcm.core.project import Project
    from napari_mcm.core.runtime.files import Stamp
    from napari_mcm.viewer.app.background import BackgroundWorker


class ProjectSaver:
    """Saves a project, unless another program has changed its file.

    Parameters
    ----------
    worker : BackgroundWorker
        Thread that writes.

    Attributes
    ----------
    leftovers : list of Path
        Projects without a name that are removed after the next save, which holds them.
    failed : Signal
        Emitted with the reason why the project is not saved.
    """

    failed = Signal(str)

    def __init__(self, worker: BackgroundWorker) -> None:
        self._disk = worker
        self._stamps: dict[Path, Stamp | None] = {}
        self._held: Path | None = None
        self._has_complained = False
        self.leftovers: list[Path] = []

    def begin(self, path: Path, stamp: Stamp | None = None) -> None:
        """Begin to save in a file.

        Parameters
        ----------
        path : Path
            The project file.
        stamp : tuple of int, optional
            Its stamp as it was read. Without, a file that is there is replaced.
        """
        self._held = None
        self._stamps.pop(path, None)
        if stamp is not None:
            self._stamps[path] = stamp

    def save(self, path: Path, project: Project) -> None:
        """Write a project to its file, unless another program has changed that.

        Parameters
        ----------
        path : Path
            The project file.
        project : Project
            The project.
        """
        if self._held != path:
            self._disk.submit(
                f"project {path}",
                partial(disk.write, path, project, self._stamps),
                partial(self._saved, path),
                self._not_saved,
            )

    def save_at(self, path: Path, project: Project, old: Path | None) -> None:
        """Write a project to another file than before, at once.

        Parameters
        ----------
        path : Path
            The project file.
        project : Project
            The project.
        old : Path or None
            The file that its paths are relative to; None if they are absolute.
        """
        self._disk.submit(
            f"project {path}",
            partial(disk.write_at, path, project, old),
            lambda _: None,
            self._not_saved,
        )

    def _saved(self, path: Path, conflict: str) -> None:
        self._has_complained = False
        if conflict:
            self._held = path
            self.failed.emit(conflict)
            return
        for leftover in self.leftovers:
            key, work = f"project {leftover}", partial(disk.remove, leftover)
            # What could not be removed is only one file too many.
            self._disk.submit(key, work, lambda _: None, lambda _: None)
        self.leftovers = []

    def _not_saved(self, problem: str) -> None:
        # The next change tries again; the same is said once.
        if not self._has_complained:
            self._has_complained = True
            self.failed.emit(f"The project is not saved: {problem}")
