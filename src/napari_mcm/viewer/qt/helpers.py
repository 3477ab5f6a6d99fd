"""Helpers for widgets: safe connections, tooltips, keyboard order and combo boxes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any
from weakref import WeakMethod, finalize

from qtpy.QtCore import QEvent, QObject, Qt, QTimer
from qtpy.QtGui import QHelpEvent
from qtpy.QtWidgets import (
    QComboBox,
    QLabel,
    QSizePolicy,
    QToolTip,
    QVBoxLayout,
    QWidget,
)

_destroy_callbacks: set[Callable[..., None]] = set()


def when_destroyed(widget: QObject, call: Callable[[], object]) -> None:
    """Call a function when Qt deletes a widget.

    Parameters
    ----------
    widget : QObject
        The widget. `call` must not refer to it, or it would never be deleted.
    call : callable
        Called once, without arguments.
    """

    def on_destroyed(*_: object) -> None:
        _destroy_callbacks.discard(on_destroyed)
        call()

    # Python may collect the callback together with the widget, before the signal fires;
    # Qt would then call a cleared function and crash the process. A global reference
    # keeps the callback alive until it was called.
    _destroy_callbacks.add(on_destroyed)
    finalize(widget, _destroy_callbacks.discard, on_destroyed).atexit = False
    widget.destroyed.connect(on_destroyed)


def connect(signal: Any, method: Callable[..., None]) -> None:
    """Connect a method of a widget to a signal that may outlive the widget.

    Qt deletes the widgets of a closed viewer while Python still refers to them, and a job
    that ends later must not call their methods.

    Parameters
    ----------
    signal : psygnal.SignalInstance or SignalGroup
        Signal of the session or of the job's status.
    method : callable
        Method of a widget, called without arguments.
    """
    reference = WeakMethod(method)

    def relay(*_: object) -> None:
        if (live_method := reference()) is not None:
            live_method()

    signal.connect(relay)
    widget: QWidget = method.__self__  # type: ignore[attr-defined]
    when_destroyed(widget, lambda: signal.disconnect(relay, missing_ok=True))


def set_enabled_with_reason(widget: QWidget, tip: str, reason: str = "") -> None:
    """Enable a widget, or disable it and show the reason in its tooltip.

    Parameters
    ----------
    widget : QWidget
        A button or an input widget.
    tip : str
        Tooltip: what the widget does.
    reason : str
        Why it is disabled; empty to enable it.
    """
    widget.setEnabled(not reason)
    widget.setToolTip(f"{tip}\n\nNot now: {reason}" if reason else tip)
    widget.setAccessibleDescription(reason or tip)


def reach_after(place: QWidget, widgets: Iterable[QWidget]) -> None:
    """Put widgets into the Tab order after another one.

    By default the order is that of creation, which is wrong for widgets that are created
    late.

    Parameters
    ----------
    place : QWidget
        Widget that contains or precedes them.
    widgets : iterable of QWidget
        The widgets in Tab order, with their children.
    """
    # Qt ignores setTabOrder after a widget without a focus policy.
    policy, none = place.focusPolicy(), Qt.FocusPolicy.NoFocus
    place.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    before = place
    for widget in widgets:
        for part in (widget, *widget.findChildren(QWidget)):
            # The lists of combo boxes are children, but separate windows.
            focusable = part.focusPolicy() != none and part.focusProxy() is None
            if focusable and part.window() is place.window():
                QWidget.setTabOrder(before, part)
                before = part
    place.setFocusPolicy(policy)


def short_names(names: Sequence[str]) -> list[str]:
    """Shorten names by the words that they all begin with: ``lite0`` and ``lite2``.

    Parameters
    ----------
    names : sequence of str
        Names, such as those of encoders.

    Returns
    -------
    list of str
        Names that differ where the given ones do.
    """
    words = [re.split(r"(?<=[_\-/: ])", name) for name in names]
    shared = 0
    while len(names) > 1 and all(len(one) > shared + 1 for one in words):
        if len({one[shared] for one in words}) > 1:
            break
        shared += 1
    return ["".join(one[shared:]) for one in words]


def set_shown(widget: QWidget, shown: bool) -> None:
    """Show or hide a part of a dock, which may not have been laid out yet.

    Parameters
    ----------
    widget : QWidget
        The part. Without a parent it is not shown, because it would become a window; it
        is as soon as it is laid out.
    shown : bool
        Whether it is shown.
    """
    if not shown or widget.parent() is not None:
        widget.setVisible(shown)


def note(text: str = "") -> QLabel:
    """Return a label that wraps its text, so that it fits a narrow dock."""
    label = QLabel(text)
    label.setWordWrap(True)
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
    return label


def narrow(combo: QComboBox) -> QComboBox:
    """Let a combo box be narrower than its longest entry, and return it.

    The tooltip shows the current entry in full, and the open list is as wide as its
    entries.
    """
    policy = QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
    combo.setSizeAdjustPolicy(policy)
    combo.setMinimumContentsLength(8)
    combo.installEventFilter(_FullTextFilter(combo))
    return combo


class _FullTextFilter(QObject):
    """An event filter that shows the entries of a combo box in full."""

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Add the current entry to the tooltip, and widen the list before it opens."""
        if isinstance(watched, QComboBox) and event is not None:
            kind = event.type()
            if kind == QEvent.Type.ToolTip and isinstance(event, QHelpEvent):
                texts = (watched.toolTip(), watched.currentText())
                full = "\n\n".join(text for text in texts if text)
                QToolTip.showText(event.globalPos(), full, watched)
                return True
            if kind in (QEvent.Type.MouseButtonPress, QEvent.Type.KeyPress):
                _widen(watched)
        return False


def _widen(combo: QComboBox) -> None:
    """Make the list of a combo box as wide as its entries, at most as the screen."""
    view = combo.view()
    frame, screen = view.parentWidget() if view is not None else None, combo.screen()
    if view is None or frame is None or screen is None:
        return
    bar = view.verticalScrollBar()
    beside = bar.sizeHint().width() if bar is not None else 0
    width = max(view.sizeHintForColumn(0) + beside + 2 * view.frameWidth(), 0)
    width = min(width, screen.availableGeometry().width())
    view.setMinimumWidth(width)
    # Qt uses the width of the frame to keep the list on the screen.
    frame.setMinimumWidth(width)


def connect_deferred(
    method: Callable[[], None], *signals: Any, wait_ms: int = 0
) -> None:
    """Call a method of a widget once after signals, when Qt is idle.

    The canvas is painted first: laying out labels and sliders of a dock takes as long as
    drawing a map, and users look at the map.

    Parameters
    ----------
    method : callable
        Method of a widget, called without arguments, once for many signals.
    *signals : psygnal.SignalInstance
        Signals, which may outlive the widget.
    wait_ms : int
        Delay from the first signal to the call, in milliseconds; limits the rate of
        calls for signals that are emitted often.
    """
    reference, waiting = WeakMethod(method), [False]
    widget: QWidget = method.__self__  # type: ignore[attr-defined]

    def call() -> None:
        waiting[0] = False
        if (live_method := reference()) is not None:
            live_method()

    # A child of the widget, so that Qt deletes it together with the widget.
    timer = QTimer(widget)
    timer.setSingleShot(True)
    timer.setInterval(wait_ms)
    timer.timeout.connect(call)

    def relay(*_: object) -> None:
        # A widget that Python collected sends no destroyed signal, and its timer is gone.
        if not waiting[0] and reference() is not None:
            waiting[0] = True
            timer.start()

    for signal in signals:
        signal.connect(relay)
        when_destroyed(widget, partial(signal.disconnect, relay, missing_ok=True))


def while_alive(method: Callable[..., None]) -> Callable[..., None]:
    """Wrap a method of a widget to do nothing after Qt has deleted the widget.

    For callbacks of background tasks, which may end after the viewer was closed.

    Parameters
    ----------
    method : callable
        Method of a widget.
    """
    reference, exists = WeakMethod(method), [True]
    widget: QWidget = method.__self__  # type: ignore[attr-defined]
    when_destroyed(widget, exists.clear)

    def call(*arguments: Any) -> None:
        if exists and (live_method := reference()) is not None:
            live_method(*arguments)

    return call


def in_column(*parts: QWidget) -> QWidget:
    """Return a widget with others below each other."""
    widget = QWidget()
    column = QVBoxLayout(widget)
    column.setContentsMargins(0, 0, 0, 0)
    column.setSpacing(3)
    for part in parts:
        column.addWidget(part)
    return widget
