"""Asks before a running job is stopped by closing its dock or the window."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import ref

from qtpy.QtCore import QEvent, QEventLoop, QObject
from qtpy.QtWidgets import QApplication, QMainWindow, QMessageBox, QWidget

from napari_mcm.viewer.app.jobs import JobState

if TYPE_CHECKING:
    from napari_mcm.viewer.app.session import Session

_LONGEST_S = 10.0
"""A window that closes waits no longer for its job to keep what it has done."""


def ask_to_stop(parent: QWidget, title: str) -> bool:
    """Ask whether a job may be stopped."""
    box = QMessageBox(parent)
    box.setWindowTitle("A job is running")
    box.setText(f"{title} is still running. Stop it?")
    box.setInformativeText("Finished work is kept, and the job can be resumed.")
    stop = box.addButton("&Stop and keep", QMessageBox.ButtonRole.AcceptRole)
    stay = box.addButton("&Keep running", QMessageBox.ButtonRole.RejectRole)
    box.setDefaultButton(stay)
    box.exec()
    return box.clickedButton() is stop


def may_stop(session: Session, parent: QWidget) -> bool:
    """Return whether nothing runs, or what runs may be stopped; then it is cancelled."""
    if not agrees(session, parent):
        return False
    session.jobs.cancel()
    return True


def agrees(session: Session, parent: QWidget) -> bool:
    """Return whether nothing runs, or what runs may be stopped; it runs on as yet."""
    status = session.jobs.status
    # What is being cancelled was agreed to before.
    return status.state is not JobState.RUNNING or ask_to_stop(parent, status.title)


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

    The title bar's button sends an event. Ctrl+W, Ctrl+Q and the menu call `close` with
    arguments, and a script without any: it is not asked, as napari does not. A job is
    cancelled only once napari's own question was agreed to, too.

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
        self._agreed: list[CloseGuard] = []
        window.installEventFilter(self)
        window.close = _closing(window, self)  # type: ignore[method-assign]

    def agrees(self) -> bool:
        """Ask whether the window may be closed, where a job runs."""
        session, window = self._session(), self.parent()
        assert isinstance(window, QWidget)
        return session is None or agrees(session, window)

    def stop(self) -> None:
        """Cancel the job, and wait until it has kept what it has done."""
        if (session := self._session()) is not None:
            session.jobs.cancel()
            _wait_for(session)

    def close(self, close: Callable[[], Any], quits: bool) -> Any:
        """Close as the user asked for; None where it is refused.

        Parameters
        ----------
        close : callable
            Closes the window, unless napari asks and the user says no.
        quits : bool
            Whether the windows of all viewers are closed.
        """
        # Pressed again, Ctrl+W says yes to napari's question.
        if self._agreed:
            return close()
        guards = _all_guards() if quits else [self]
        if not all(guard.agrees() for guard in guards):
            return None
        self._agreed = guards
        try:
            return close()
        finally:
            self._agreed = []

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Refuse to close where the user wants the job to go on."""
        if event is None or event.type() != QEvent.Type.Close:
            return False
        if not event.spontaneous():
            for guard in self._agreed:
                guard.stop()
            return False
        if not self.agrees():
            event.ignore()
            return True
        # In there napari asks, too.
        watched.closeEvent(event)  # type: ignore[union-attr]
        if event.isAccepted():
            self.stop()
        return True


def guard_window(window: Any, session: Session) -> None:
    """See that a window asks, once."""
    if isinstance(window, QMainWindow) and window.findChild(CloseGuard) is None:
        CloseGuard(window, session)


def _closing(window: QMainWindow, guard: CloseGuard) -> Callable[..., Any]:
    """Return what takes the place of a window's `close`; it holds neither of them."""
    known, guarding = ref(window), ref(guard)

    def close(quit_app: bool = False, confirm_need: bool = False) -> Any:
        alive, asks = known(), guarding()
        if alive is None:
            return None
        # Only napari's own window has these arguments.
        how = {"quit_app": quit_app, "confirm_need": confirm_need}
        chosen = {name: True for name, on in how.items() if on}
        shut = partial(type(alive).close, alive, **chosen)
        return shut() if asks is None or not chosen else asks.close(shut, quit_app)

    return close


def _all_guards() -> list[CloseGuard]:
    windows = QApplication.topLevelWidgets()
    return [guard for each in windows for guard in each.findChildren(CloseGuard)]


def _wait_for(session: Session) -> None:
    end = time.monotonic() + _LONGEST_S
    # A window that closes takes no more input.
    untouched = QEventLoop.ProcessEventsFlag.ExcludeUserInputEvents
    while session.jobs.status.busy and time.monotonic() < end:
        QApplication.processEvents(untouched)
        time.sleep(0.01)
