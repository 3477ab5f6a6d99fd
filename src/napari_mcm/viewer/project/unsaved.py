"""Rows of an earlier session that the user did not save in a project."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from psygnal import Signal

from napari_mcm.core.project import ENDING, Project
from napari_mcm.viewer.app.session import Session
from napari_mcm.viewer.project import disk
from napari_mcm.viewer.project.controller import project_of
from napari_mcm.viewer.project.results import results_of


class UnsavedResults:
    """The last project without a name, whose rows are offered.

    Parameters
    ----------
    session : Session
        Session of the viewer.

    Attributes
    ----------
    changed : Signal
        Emitted when there is something to offer, or no more.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        self._session = session
        self._found: tuple[Path, Project] | None = None
        self._project, self._results = project_of(session), results_of(session)
        self._results.changed.connect(self.changed.emit)
        self._project.changed.connect(self.changed.emit)

    def look(self) -> None:
        """Look for such a project in the background."""
        self._session.disk.submit(
            "unsaved results",
            partial(disk.last_unnamed, self._project.path),
            self._take,
            self._session.report_error,
        )

    @property
    def offer(self) -> str:
        """What is offered, in one line; empty without anything."""
        if self._found is None or not _is_unnamed(self._project.path):
            return ""
        path, project = self._found
        new = sum(row not in self._results.rows for row in project.results)
        rows = f"{new:,} row{'' if new == 1 else 's'}"
        return f"{rows} of {name_of(path)}, not saved in a project" if new else ""

    def bring_back(self) -> None:
        """Add the rows and slides to those of now."""
        if self.offer and self._found is not None:
            path, project = self._found
            self._found = None
            self._project.take_in(project, path)
            self.changed.emit()

    def _take(self, found: tuple[Path, Project] | None) -> None:
        self._found = found
        self.changed.emit()


def unsaved_of(session: Session) -> UnsavedResults:
    """Return the unsaved results of a session, and create it on first use."""
    return session.part(UnsavedResults)


def name_of(path: Path) -> str:
    """Return the day and time in the name of a project without a name.

    Parameters
    ----------
    path : Path
        Its file, such as ``2026-11-29 15.40.12.mcm.json``.
    """
    day, _, time = path.name.removesuffix(ENDING).partition(" ")
    return f"{day} {time[:5].replace('.', ':')}".strip()


def _is_unnamed(path: Path | None) -> bool:
    return path is None or path.parent == disk.unnamed_folder()
