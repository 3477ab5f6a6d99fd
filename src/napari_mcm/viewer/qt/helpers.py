"""Small helpers that the widgets share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any
from weakref import WeakMethod, finalize

from qtpy.QtCore import QEvent, QObject, Qt, QTimer
from qtpy.QtGui import QHelpEvent
from qtpy.QtWidgets import QComboBox, QLabel, QSizePolicy, QToolTip, QWidget

_destroy_callbacks: set[Callable[..., None]] = set()


def when_destroyed(widget: QObject, call: Callable[[], object]) -> None:
    """Have something called when Qt deletes a widget.

    Parameters
    ----------
    widget : QObject
        The widget; `call` must not hold it.
    call : callable
        Called once, without arguments.
    """

    def farewell(*_: object) -> None:
        _destroy_callbacks.discard(farewell)
        call()

    # Python's collector takes what is connected along with the widget: a function that
    # is emptied already would be called, and end the process. So it is held until then.
    _destroy_callbacks.add(farewell)
    finalize(widget, _destroy_callbacks.discard, farewell).atexit = False
    widget.destroyed.connect(farewell)


def connect(signal: Any, method: Callable[..., None]) -> None:
    """Connect a widget's method to a signal that may outlive the widget.

    Qt deletes widgets while Python still holds them: a closed viewer does so, with its
    jobs still ending.

    Parameters
    ----------
    signal : psygnal.SignalInstance or SignalGroup
        Of the session or the job's status.
    method : callable
        A method of a widget, called without arguments.
    """
    reference = WeakMethod(method)

    def relay(*_: object) -> None:
        if (alive := reference()) is not None:
            alive()

    signal.connect(relay)
    widget: QWidget = method.__self__  # type: ignore[attr-defined]
    when_destroyed(widget, lambda: signal.disconnect(relay, missing_ok=True))


def set_enabled_with_reason(widget: QWidget, tip: str, reason: str = "") -> None:
    """Enable a widget, or disable it and say in its tooltip why.

    Parameters
    ----------
    widget : QWidget
        A button or a field.
    tip : str
        What it does.
    reason : str
        Why it cannot be used now; empty where it can.
    """
    widget.setEnabled(not reason)
    widget.setToolTip(f"{tip}\n\nNot now: {reason}" if reason else tip)
    widget.setAccessibleDescription(reason or tip)


def reach_after(place: QWidget, widgets: Iterable[QWidget]) -> None:
    """Let the Tab key reach widgets where they stand, and not when they were made.

    Parameters
    ----------
    place : QWidget
        What they stand in, or after.
    widgets : iterable of QWidget
        In their order; one may hold others that are reached.
    """
    # Qt orders nothing after what cannot be reached.
    policy, none = place.focusPolicy(), Qt.FocusPolicy.NoFocus
    place.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    before = place
    for widget in widgets:
        for part in (widget, *widget.findChildren(QWidget)):
            # Lists of combo boxes are windows of their own.
            reached = part.focusPolicy() != none and part.focusProxy() is None
            if reached and part.window() is place.window():
                QWidget.setTabOrder(before, part)
                before = part
    place.setFocusPolicy(policy)


def note(text: str = "") -> QLabel:
    """Make a line of text that wraps, so that a narrow dock can show it."""
    label = QLabel(text)
    label.setWordWrap(True)
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
    return label


def narrow(combo: QComboBox) -> QComboBox:
    """Let a combo box be narrower than its longest entry, which is still to be read.

    What is chosen stands in the tooltip too, and the list is as wide as its entries.
    """
    policy = QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
    combo.setSizeAdjustPolicy(policy)
    combo.setMinimumContentsLength(8)
    combo.installEventFilter(_Whole(combo))
    return combo


class _Whole(QObject):
    """Shows the entries of a combo box whole: in its tooltip, and in its list."""

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Put in what is chosen, and widen the list before it is opened."""
        if isinstance(watched, QComboBox) and event is not None:
            kind = event.type()
            if kind == QEvent.Type.ToolTip and isinstance(event, QHelpEvent):
                texts = (watched.toolTip(), watched.currentText())
                whole = "\n\n".join(text for text in texts if text)
                QToolTip.showText(event.globalPos(), whole, watched)
                return True
            if kind in (QEvent.Type.MouseButtonPress, QEvent.Type.KeyPress):
                _widen(watched)
        return False


def _widen(combo: QComboBox) -> None:
    """Make the list of a combo box as wide as its entries, where the screen is."""
    view = combo.view()
    frame, screen = view.parentWidget() if view is not None else None, combo.screen()
    if view is None or frame is None or screen is None:
        return
    bar = view.verticalScrollBar()
    beside = bar.sizeHint().width() if bar is not None else 0
    width = max(view.sizeHintForColumn(0) + beside + 2 * view.frameWidth(), 0)
    width = min(width, screen.availableGeometry().width())
    view.setMinimumWidth(width)
    # Qt places the list, so that it stays on the screen, by the width of what holds it.
    frame.setMinimumWidth(width)


def connect_deferred(
    method: Callable[[], None], *signals: Any, wait_ms: int = 0
) -> None:
    """Call a widget's method once, when the window has painted what came before.

    Words and sliders of the dock take as long to lay out as the map takes to be drawn,
    and nobody looks at them first.

    Parameters
    ----------
    method : callable
        A method of a widget, called without arguments; once for many signals.
    *signals : psygnal.SignalInstance
        That may outlive the widget.
    wait_ms : int
        Shortest time between two calls, for signals that come many times a second.
    """
    reference, waiting = WeakMethod(method), [False]
    widget: QWidget = method.__self__  # type: ignore[attr-defined]

    def call() -> None:
        waiting[0] = False
        if (alive := reference()) is not None:
            alive()

    # A child of the widget, which goes away with it.
    soon = QTimer(widget)
    soon.setSingleShot(True)
    soon.setInterval(wait_ms)
    soon.timeout.connect(call)

    def relay(*_: object) -> None:
        # A widget that Python's collector took has no farewell: its timer is gone, too.
        if not waiting[0] and reference() is not None:
            waiting[0] = True
            soon.start()

    for signal in signals:
        signal.connect(relay)
        when_destroyed(widget, partial(signal.disconnect, relay, missing_ok=True))


def while_alive(method: Callable[..., None]) -> Callable[..., None]:
    """Return a widget's method as one that does nothing once Qt has deleted the widget.

    Work in the background may end after the viewer was closed.

    Parameters
    ----------
    method : callable
        A method of a widget.
    """
    reference, alive = WeakMethod(method), [True]
    widget: QWidget = method.__self__  # type: ignore[attr-defined]
    when_destroyed(widget, alive.clear)

    def call(*given: Any) -> None:
        if alive and (found := reference()) is not None:
            found(*given)

    return call
