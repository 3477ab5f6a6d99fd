"""The results table of one viewer: areas that the user measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_mcm.core.project import ResultRow, write_results

if TYPE_CHECKING:
    from napari_mcm.viewer.app.session import Session


class ResultsTable:
    """The rows of the results table, in the order in which they were added.

    Parameters
    ----------
    session : Session
        Session of the viewer.

    Attributes
    ----------
    rows : tuple of ResultRow
        The rows; replaced as a whole, never changed.
    changed : Signal
        Emitted when `rows` changed.
    added : Signal
        Emitted when a row was added at the end.
    note : str
        Whether the last row was added, in one line.
    noted : Signal
        Emitted when `note` says so of a row.
    """

    changed = Signal()
    added = Signal()
    noted = Signal()

    def __init__(self, session: Session) -> None:
        self._session = session
        self.rows: tuple[ResultRow, ...] = ()
        self.note = ""

    def add(self, row: ResultRow) -> None:
        """Add a row at the end, unless the table has the same one, and say so."""
        same = [_without_time(one) for one in self.rows]
        if (new := _without_time(row)) in same:
            self._say(f"Nothing added: row {same.index(new) + 1:,} is the same")
            return
        self.replace((*self.rows, row))
        self._say(f"Row {len(self.rows):,} added to the results table")
        self.added.emit()

    def _say(self, note: str) -> None:
        # In the status bar, too: the dock may be behind another one.
        self.note = self._session.viewer.status = note
        self.noted.emit()

    def remove(self, numbers: Iterable[int]) -> None:
        """Delete rows.

        Parameters
        ----------
        numbers : iterable of int
            Their positions in `rows`.
        """
        gone = set(numbers)
        self.replace(row for at, row in enumerate(self.rows) if at not in gone)

    def replace(self, rows: Iterable[ResultRow]) -> None:
        """Replace all rows, as when a project is opened."""
        rows = tuple(rows)
        if rows != self.rows:
            self.rows = rows
            self.changed.emit()

    def export(
        self, path: Path, rows: Iterable[ResultRow], then: Callable[[Path], None]
    ) -> None:
        """Write rows to a CSV file in the background.

        Parameters
        ----------
        path : Path
            The file.
        rows : iterable of ResultRow
            The rows, in the order of the file.
        then : callable
            Called with the path after the file was written.
        """
        rows = tuple(rows)
        self._session.disk.submit(
            f"results {path}",
            lambda: write_results(path, rows),
            then,
            self._session.report_error,
        )


def _without_time(row: ResultRow) -> ResultRow:
    return row.model_copy(update={"added": ""})


def results_of(session: Session) -> ResultsTable:
    """Return the results table of a session, and create it on first use."""
    return session.part(ResultsTable)
