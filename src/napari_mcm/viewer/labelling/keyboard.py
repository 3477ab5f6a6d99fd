"""Keys of labels over the canvas: digits, the lasso, and the answers of *Label next*."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import QWidget

from napari_mcm.viewer.canvas.keys import area_digit_of, digit_of

if TYPE_CHECKING:
    from napari_mcm.viewer.labelling.controller import LabelController

_ENTER = (Qt.Key.Key_Return, Qt.Key.Key_Enter)


class Suggesting(Protocol):
    """The patches to label next, while they are shown one after another."""

    @property
    def active(self) -> bool:
        """Whether a suggestion waits for an answer."""

    def agree(self) -> None:
        """Label it as suggested."""

    def correct(self, key: int) -> None:
        """Label it with the class of a number key."""

    def skip(self) -> None:
        """Go on to the next one."""

    def stop(self) -> None:
        """Show no more of them."""


class LabelKeyboard(QObject):
    """Handles keys before napari does, whose layers use digits for their modes.

    Keys of a layer that is edited, such as a mask, have priority.

    Parameters
    ----------
    native : QWidget
        The widget that napari draws on.
    labels : LabelController
        Labels what is pointed at.
    suggestions : Suggesting
        Patches to label next.
    is_free : callable
        Returns whether no layer is being edited.
    """

    def __init__(
        self,
        native: QWidget,
        labels: LabelController,
        suggestions: Suggesting,
        is_free: Callable[[], bool],
    ) -> None:
        super().__init__(native)
        self._native = native
        self._labels, self._suggestions = labels, suggestions
        self._is_free = is_free
        native.installEventFilter(self)

    def remove(self) -> None:
        """Stop listening."""
        # When the viewer is closed, Qt may have deleted it already.
        with suppress(RuntimeError):
            self._native.removeEventFilter(self)
            self.deleteLater()

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Take the keys of labels."""
        if not isinstance(event, QKeyEvent) or event.isAutoRepeat():
            return False
        if event.type() != QEvent.Type.KeyPress:
            return False
        return self.press(event)

    def press(self, event: QKeyEvent) -> bool:
        """Do what a key does; return whether it is one of labels."""
        key, plain = event.key(), event.modifiers() == Qt.KeyboardModifier.NoModifier
        lasso = self._labels.lasso
        if key == Qt.Key.Key_Escape and (lasso.regions or lasso.drawing):
            lasso.clear()
            return True
        if not self._is_free():
            return False
        digit = digit_of(event)
        if self._suggestions.active and answer(self._suggestions, event):
            return True
        if digit is not None:
            self._labels.press(digit)
            return True
        if (digit := area_digit_of(event)) is not None:
            self._labels.press_area(digit)
            return True
        if key == Qt.Key.Key_L and plain:
            lasso.begin()
            return True
        return False


def answer(suggestions: Suggesting, event: QKeyEvent) -> bool:
    """Answer a suggestion by a key; return whether the key is an answer.

    Parameters
    ----------
    suggestions : Suggesting
        The patches to label next.
    event : QKeyEvent
        Press of a key.
    """
    key, digit = event.key(), digit_of(event)
    held = event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
    if digit:
        suggestions.correct(digit)
    elif held != Qt.KeyboardModifier.NoModifier:
        return False
    elif key in _ENTER:
        suggestions.agree()
    elif key == Qt.Key.Key_Space:
        suggestions.skip()
    elif key == Qt.Key.Key_Escape:
        suggestions.stop()
    else:
        return False
    return True
