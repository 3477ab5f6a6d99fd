"""Confirmation before closing a dock or window cancels a running job."""

from __future__ import annotations

import atexit
import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import ref

from qtpy.QtCore import QEvent, QEventLoop, QObject, QTimer
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QApplication, QMainWindow, QMessageBox, QWidget

from napari_mcm.viewer.app.jobs import JobState

if TYPE_CHECKING:
    from napari_mcm.viewer.app.session import Session

_LONGEST_S = 10.0
"""Longest time in seconds that closing a window waits for its job to save its work."""

_LIVES_ON_MS = 5000
"""Milliseconds after which a program that was to quit lives on."""


def _leave() -> None:
    """Spare the end of the program a look at all objects, which takes seconds."""
    # Triton complains of objects that are left.
    if sys.modules.get("triton") is None:
        gc.freeze()
    else:
        gc.unfreeze()


atexit.register(_leave)


def ask_to_stop(parent: QWidget, title: str) -> bool:
    """Ask the user whether to stop a job, and return the answer.

    Parameters
    ----------
    parent : QWidget
        Parent of the dialog.
    title : str
        Display name of the job.
    """
    box = QMessageBox(parent)
    box.setWindowTitle("A job is running")
    box.setText(f"{title} is still running. Stop it and close?")
    box.setInformativeText("Finished work is kept, and the job can be resumed.")
    stop = box.addButton("&Stop and keep", QMessageBox.ButtonRole.AcceptRole)
    stay = box.addButton("&Keep running", QMessageBox.ButtonRole.RejectRole)
    box.setDefaultButton(stay)
    box.exec()
    return box.clickedButton() is stop


def cancel_if_confirmed(session: Session, parent: QWidget) -> bool:
    """Cancel the running job if the user agrees; return whether none runs on.

    Parameters
    ----------
    session : Session
        Session that runs the job.
    parent : QWidget
        Parent of the dialog.
    """
    if not confirm_stop(session, parent):
        return False
    session.jobs.cancel()
    return True


def confirm_stop(session: Session, parent: QWidget) -> bool:
    """Return whether no job runs, or the user agrees to stop it; do not stop it yet.

    Parameters
    ----------
    session, parent
        As :func:`cancel_if_confirmed` takes them.
    """
    status = session.jobs.status
    # The user has already agreed to stop a job that is being cancelled.
    return status.state is not JobState.RUNNING or ask_to_stop(parent, status.title)


def guard_dock(dock: QWidget | None, session: Session, user: int) -> None:
    """Make the close button of a dock ask before it stops the running job.

    Closing a dock sends no event that could be refused. Its button calls a method
    instead, which this function replaces.

    Parameters
    ----------
    dock : QWidget or None
        The dock that contains the widget; nothing happens if it is no napari dock.
    session : Session
        Session that runs the job.
    user : int
        The ``id()`` with which the widget entered the session.
    """
    close = getattr(type(dock), "destroyOnClose", None)
    if dock is None or close is None:
        return
    # Weak references, so that the dock does not keep itself and the session alive.
    dock_reference, session_reference = ref(dock), ref(session)

    def ask() -> None:
        live_dock, live_session = dock_reference(), session_reference()
        if live_dock is None:
            return
        if (
            live_session is None
            or not live_session.is_last(user)
            or cancel_if_confirmed(live_session, live_dock)
        ):
            close(live_dock)

    dock.destroyOnClose = ask  # type: ignore[attr-defined]


class CloseGuard(QObject):
    """Asks the user before a window is closed while a job of its session runs.

    The button of the title bar sends an event. Ctrl+W, Ctrl+Q and the menu call `close`
    with arguments. A script calls it without arguments and is not asked; napari does not
    ask then either. Who stops a job has decided to close: it is cancelled at once, and
    napari's own question is left out. Without a job, napari asks as always.

    Parameters
    ----------
    window : QMainWindow
        The window, which owns this object.
    session : Session
        Session that runs the job.
    """

    def __init__(self, window: QMainWindow, session: Session) -> None:
        super().__init__(window)
        self._session = ref(session)
        self._agreed: list[CloseGuard] = []
        window.installEventFilter(self)
        window.close = _closing(window, self)  # type: ignore[method-assign]

    @property
    def is_running(self) -> bool:
        """Whether a job of the session runs that the user is asked about."""
        session = self._session()
        return session is not None and session.jobs.status.state is JobState.RUNNING

    def confirm_stop(self) -> bool:
        """Return whether the window may be closed; ask the user if a job runs."""
        session, window = self._session(), self.parent()
        assert isinstance(window, QWidget)
        return session is None or confirm_stop(session, window)

    def stop(self) -> None:
        """Cancel the job, and wait until it has saved its work."""
        if (session := self._session()) is not None:
            session.jobs.cancel()
            _wait_for(session)

    def close(self, close: Callable[[bool], Any], quits: bool) -> Any:
        """Close the window if the user agrees.

        Parameters
        ----------
        close : callable
            Closes the window; its argument is whether napari may ask.
        quits : bool
            Whether the windows of all viewers are closed.

        Returns
        -------
        object
            Return value of `close`; None if the user refuses.
        """
        # Pressing Ctrl+W again confirms napari's dialog, which calls this method again.
        if self._agreed:
            return close(True)
        guards = _all_guards() if quits else [self]
        running = [guard for guard in guards if guard.is_running]
        if not all(guard.confirm_stop() for guard in guards):
            return None
        for guard in running:
            guard.stop()
        self._agreed = guards
        try:
            with _quitting([one.parent() for one in guards]):
                return close(not running)
        finally:
            self._agreed = []

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Ignore the close event if the user wants the job to continue."""
        if event is not None and event.type() == QEvent.Type.Show:
            self._set_closing(False)
        if event is None or event.type() != QEvent.Type.Close:
            return False
        if not event.spontaneous():
            for guard in self._agreed:
                guard.stop()
            # napari does not refuse these, and removes all layers while it handles one.
            self._set_closing(True)
            return False
        asked = self.is_running
        if not self.confirm_stop():
            event.ignore()
            return True
        quiet = QCloseEvent()
        with _quitting([watched]):
            if asked:
                self.stop()
                # napari asks about events of the user only, and this one is a program's.
                watched.closeEvent(quiet)  # type: ignore[union-attr]
                event.setAccepted(quiet.isAccepted())
            else:
                # napari's own dialog is part of this handler.
                watched.closeEvent(event)  # type: ignore[union-attr]
        self._set_closing(event.isAccepted())
        return True

    def _set_closing(self, is_closing: bool) -> None:
        if (session := self._session()) is not None:
            session.set_closing(is_closing)


def guard_window(window: Any, session: Session) -> None:
    """Install a :class:`CloseGuard` on a window, unless it has one.

    Parameters
    ----------
    window : QMainWindow or other
        The window; nothing happens if it is no main window.
    session : Session
        Session that runs the job.
    """
    if isinstance(window, QMainWindow) and window.findChild(CloseGuard) is None:
        CloseGuard(window, session)


def _closing(window: QMainWindow, guard: CloseGuard) -> Callable[..., Any]:
    """Return a replacement for a window's `close`, with weak references to both."""
    window_reference, guard_reference = ref(window), ref(guard)

    def close(quit_app: bool = False, confirm_need: bool = False) -> Any:
        live_window, live_guard = window_reference(), guard_reference()
        if live_window is None:
            return None
        # Only napari's own window class accepts these arguments.
        options = {"quit_app": quit_app, "confirm_need": confirm_need}
        given = {name: True for name, on in options.items() if on}
        original = partial(type(live_window).close, live_window)
        if live_guard is None or not given:
            return original(**given)
        quiet = {name: True for name in given if name != "confirm_need"}
        return live_guard.close(
            lambda asks: original(**given if asks else quiet), quit_app
        )

    return close


@contextmanager
def _quitting(closing: list[Any]) -> Iterator[None]:
    """Spare the garbage collector a million objects while the last window closes.

    napari collects garbage several times then, and Python once more as it ends. If the
    program lives on, objects are collected again after a while.

    Parameters
    ----------
    closing : list of QWidget
        Windows that are closing. Nothing changes while another one is shown.
    """
    shown = [one for one in QApplication.topLevelWidgets() if one.isVisible()]
    windows = [one for one in shown if isinstance(one, QMainWindow)]
    # What others have frozen must stay so.
    if gc.get_freeze_count() or any(one not in closing for one in windows):
        yield
        return
    gc.freeze()
    QTimer.singleShot(_LIVES_ON_MS, gc.unfreeze)
    yield


def _all_guards() -> list[CloseGuard]:
    windows = QApplication.topLevelWidgets()
    return [guard for each in windows for guard in each.findChildren(CloseGuard)]


def _wait_for(session: Session) -> None:
    end = time.monotonic() + _LONGEST_S
    # The window must not react to input while it is closing.
    no_input = QEventLoop.ProcessEventsFlag.ExcludeUserInputEvents
    while session.jobs.status.busy and time.monotonic() < end:
        QApplication.processEvents(no_input)
        time.sleep(0.01)
