"""Keys and Alt+wheel over the canvas, wherever the keyboard's focus is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from weakref import ref

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtGui import QCursor, QKeyEvent, QWheelEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QLineEdit,
    QPlainTextEdit,
    QTextEdit,
    QWidget,
)

from napari_mcm.viewer.canvas.keys import KEYS, LIST, is_canvas_key

_NOTCH = 120
"""Angle of one notch of a wheel, in eighths of a degree."""
_REPEATED = {KEYS["lower"]: -1, KEYS["higher"]: 1}
"""Keys that go on while they are held, and what they add to the threshold."""
_DIGITS = tuple("0123456789")
"""Keys that numbers are typed with."""
_LIST_KEYS = (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Backspace)
"""Keys that lists and tables use themselves."""


class CanvasKeyboard(QObject):
    """Gives keys of the table to the canvas while the pointer is over it.

    After a click in a dock, keys would go to the dock. A text that is being typed keeps
    its keys.

    Parameters
    ----------
    native : QWidget
        The widget that napari draws on.
    show_list : callable
        Called without arguments when the list of keys is asked for.
    hide_list : callable
        Hides the list of keys; returns whether it was shown.
    step : callable
        Called with the number of notches of Alt+wheel, upwards positive.
    """

    def __init__(
        self,
        native: QWidget,
        show_list: Callable[[], None],
        hide_list: Callable[[], bool],
        step: Callable[[int], None],
    ) -> None:
        super().__init__(native)
        self._native, self._show_list, self._hide_list = native, show_list, hide_list
        self._step, self._angle = step, 0
        self._focused: Callable[[], QWidget | None] = _no_widget
        native.installEventFilter(self)
        application = QApplication.instance()
        assert isinstance(application, QApplication)
        self._application = application
        application.focusChanged.connect(self._follow_focus)
        self._follow_focus(None, application.focusWidget())

    def remove(self) -> None:
        """Stop listening."""
        # When the viewer is closed, Qt may have deleted the canvas already, and PySide6
        # raises a SystemError if it has disconnected what belonged to it.
        with suppress(RuntimeError, SystemError):
            self._application.focusChanged.disconnect(self._follow_focus)
        with suppress(RuntimeError):
            self._listen_to(None)
            self._native.removeEventFilter(self)
            self.deleteLater()

    def _follow_focus(self, _old: QWidget | None, new: QWidget | None) -> None:
        """Listen to the widget that gets the keys now; without one, the window does."""
        with suppress(RuntimeError):
            new = self._native.window() if new is None else new
            own = new is None or new is self._native or not self._is_near(new)
            self._listen_to(None if own else new)

    def _listen_to(self, widget: QWidget | None) -> None:
        with suppress(RuntimeError):
            if (before := self._focused()) is not None:
                before.removeEventFilter(self)
        self._focused = _no_widget if widget is None else ref(widget)
        if widget is not None:
            widget.installEventFilter(self)

    def _is_near(self, widget: QWidget) -> bool:
        """Return whether a widget is in the canvas's window, or in a dock that floats."""
        window, own = widget.window(), self._native.window()
        return window is own or (window is not None and window.parent() is own)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Handle keys, and the wheel with Alt."""
        if isinstance(event, QKeyEvent):
            if event.type() == QEvent.Type.KeyPress:
                return self._press(watched, event)
        elif isinstance(event, QWheelEvent) and watched is self._native:
            return self._wheel(event)
        return False

    def _press(self, watched: QObject | None, event: QKeyEvent) -> bool:
        if watched is not self._native:
            return self._pass_on(event)
        if event.text() == LIST:
            self._show_list()
            return True
        if event.isAutoRepeat() and event.text() in _REPEATED:
            # napari passes on the first press only.
            self._step(_REPEATED[event.text()])
            return True
        return event.key() == Qt.Key.Key_Escape and self._hide_list()

    def _pass_on(self, event: QKeyEvent) -> bool:
        """Give a key to the canvas, if it is meant for it."""
        focused = self._focused()
        if focused is None or not is_canvas_key(event) or not self._is_under_pointer():
            return False
        if keeps_key(focused, event):
            return False
        self._native.setFocus(Qt.FocusReason.OtherFocusReason)
        again = QKeyEvent(
            event.type(),
            event.key(),
            event.modifiers(),
            event.text(),
            event.isAutoRepeat(),
            event.count(),
        )
        QApplication.sendEvent(self._native, again)
        return True

    def _is_under_pointer(self) -> bool:
        if QApplication.activePopupWidget() or QApplication.activeModalWidget():
            return False
        under = QApplication.widgetAt(QCursor.pos())
        return under is not None and (
            under is self._native or self._native.isAncestorOf(under)
        )

    def _wheel(self, event: QWheelEvent) -> bool:
        if event.modifiers() != Qt.KeyboardModifier.AltModifier:
            return False
        # With Alt, Qt turns the wheel sideways.
        self._angle += event.angleDelta().y() or event.angleDelta().x()
        notches = int(self._angle / _NOTCH)
        self._angle -= notches * _NOTCH
        if notches:
            self._step(notches)
        return True


def keeps_key(widget: QWidget, event: QKeyEvent) -> bool:
    """Return whether a key belongs to the widget that has the focus.

    Text fields keep all keys. Numbers keep those that numbers are typed with, and all
    while one is being typed.

    Parameters
    ----------
    widget : QWidget
        The widget with the focus.
    event : QKeyEvent
        A key of the table.
    """
    if isinstance(widget, QAbstractSpinBox):
        line = widget.findChild(QLineEdit)
        typing = line is not None and line.isModified()
        return typing or event.key() == Qt.Key.Key_Backspace or event.text() in _DIGITS
    if isinstance(widget, QComboBox):
        return widget.isEditable()
    if isinstance(widget, QLineEdit | QTextEdit | QPlainTextEdit):
        return not widget.isReadOnly()
    if widget.property("keeps keys"):
        return True
    return isinstance(widget, QAbstractItemView) and event.key() in _LIST_KEYS


def _no_widget() -> None:
    return None
