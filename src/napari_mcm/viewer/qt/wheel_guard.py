"""Keeps the wheel from changing fields that the pointer only passes.

Qt changes spin boxes, combo boxes and sliders by the wheel wherever the pointer is, so
scrolling a dock would change its values unseen.
"""

from __future__ import annotations

from qtpy.QtCore import QChildEvent, QEvent, QObject, Qt
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSlider,
    QAbstractSpinBox,
    QComboBox,
    QLabel,
    QLineEdit,
    QScrollBar,
    QWidget,
)

_FIELDS = (QAbstractSpinBox, QComboBox, QAbstractSlider)
_LEAVES = (QLabel, QAbstractButton, QLineEdit, QScrollBar)
"""Widgets without fields in them."""


class WheelGuard(QObject):
    """Guards all fields in a widget, also those that are made later.

    A field without the focus leaves the wheel to the scroll area around it.

    Parameters
    ----------
    root : QWidget
        The widget, which owns the guard.
    """

    def __init__(self, root: QWidget) -> None:
        super().__init__(root)
        self._watch(root)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Keep the wheel from fields without focus, and find new fields."""
        if event is None:
            return False
        if event.type() == QEvent.Type.Wheel and isinstance(watched, _FIELDS):
            if not watched.hasFocus():
                # Ignored, so that Qt offers it to the parent, which scrolls.
                event.ignore()
                return True
        # Sent when a child is about to be shown for the first time.
        elif event.type() == QEvent.Type.ChildPolished:
            child = event.child() if isinstance(event, QChildEvent) else None
            if isinstance(child, QWidget):
                self._watch(child)
        return False

    def _watch(self, widget: QWidget) -> None:
        if isinstance(widget, _LEAVES):
            return
        widget.installEventFilter(self)
        wheel = widget.focusPolicy() == Qt.FocusPolicy.WheelFocus
        if wheel and isinstance(widget, _FIELDS):
            # Otherwise the wheel would give the focus first.
            widget.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        for child in widget.children():
            if isinstance(child, QWidget):
                self._watch(child)
