"""Asks before a running job is stopped by closing its dock or the window."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from weakref import ref

from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QApplication, QMainWindow, QMessageBox, QWidget

if TYPE_CHECKING:
    from napari_mcm.viewer.session import Session

_LONGEST_S = 10.0
"""A window that closes waits no longer for its job to keep what it has done."""


def ask_to_stop(parent: QWidget, title: str) -> bool:
    """Ask whether a job may be stopped."""
    box = QMessageBox(parent)
    box.setWindowTitle("A job is running")
    box.setText(f"{title} is still running. Stop it?")
    box.setInformativeText("What is finished is kept, and it can be gone on with.")
    stop = box.addButton("&Stop and close", QMessageBox.ButtonRole.AcceptRole)
    stay = box.addButton("&Go on", QMessageBox.ButtonRole.RejectRole)
    box.setDefaultButton(stay)
    box.exec()
    return box.clickedButton() is stop


def may_stop(session: Session, parent: QWidget) -> bool:
    """Tell whether nothing runs, or what runs may be stopped; then it is cancelled."""
    status = session.jobs.status
    if not status.busy:
        return True
    if not ask_to_stop(parent, status.title):
        return False
    session.jobs.cancel()
    return True


def guard_dock(dock: QWidget | None, session: Session, user: int) -> None:
    """Have a dock's close button ask, where it would stop the running job.

    Closing a dock sends no event that could be refused: its button calls this method.

    Parameters
    ----------
    dock : QWidget or None
        Which holds the widget.
    session : Session
        Whose job it is.
    user : int
        The widget's number in the session.
    """
    close = getattr(type(dock), "destroyOnClose", None)
    if dock is None or close is None:
        return
    docked, held = ref(dock), ref(session)

    def ask() -> None:
        alive, known = docked(), held()
        if alive is None:
            return
        if known is None or not known.is_last(user) or may_stop(known, alive):
            close(alive)

    dock.destroyOnClose = ask  # type: ignore[attr-defined]


class CloseGuard(QObject):
    """Asks when the user closes a window while a job of its session runs.

    Parameters
    ----------
    window : QMainWindow
        Which owns this.
    session : Session
        Whose job it is.
    """

    def __init__(self, window: QMainWindow, session: Session) -> None:
        super().__init__(window)
        self._session = ref(session)
        window.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Refuse to close where the user wants the job to go on."""
        session = self._session()
        closes = event is not None and event.type() == QEvent.Type.Close
        # A script that closes its viewer is not asked, as napari does not.
        if not closes or session is None or not event.spontaneous():  # type: ignore[union-attr]
            return False
        assert isinstance(watched, QWidget)
        if not may_stop(session, watched):
            event.ignore()  # type: ignore[union-attr]
            return True
        _wait_for(session)
        return False


def guard_window(window: Any, session: Session) -> None:
    """See that a window asks, once."""
    if isinstance(window, QMainWindow) and window.findChild(CloseGuard) is None:
        CloseGuard(window, session)


def _wait_for(session: Session) -> None:
    end = time.monotonic() + _LONGEST_S
    while session.jobs.status.busy and time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.01)
