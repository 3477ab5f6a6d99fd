"""The list of all keys, over the canvas."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QBoxLayout, QFrame, QLabel, QScrollArea, QWidget

from napari_mcm.viewer.canvas.keys import as_html

_MARGIN = 10


class KeyList(QScrollArea):
    """All keys and mouse actions in one or two columns; a click hides them.

    Parameters
    ----------
    native : QWidget
        The widget that napari draws on.
    """

    def __init__(self, native: QWidget) -> None:
        super().__init__(native)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setAccessibleName("Keys on the canvas")
        self.setObjectName("keys")
        # Over tissue of any colour, in either theme.
        self.setStyleSheet(
            "#keys, #keys QWidget { background: rgb(30, 33, 38); color: white; }"
        )
        inner = QWidget()
        self._row = QBoxLayout(QBoxLayout.Direction.LeftToRight, inner)
        for groups in (("Query",), ("Map", "View")):
            label = QLabel(as_html(groups))
            label.setAlignment(Qt.AlignmentFlag.AlignTop)
            self._row.addWidget(label)
        self.setWidget(inner)
        self.hide()

    def place(self) -> None:
        """Move it to the middle of the canvas, and fit it in."""
        native, inner = self.parentWidget(), self.widget()
        if native is None or inner is None:
            return
        bar = self.verticalScrollBar()
        extra = 0 if bar is None else bar.sizeHint().width()
        self._row.setDirection(QBoxLayout.Direction.LeftToRight)
        if inner.sizeHint().width() + extra > native.width() - 2 * _MARGIN:
            self._row.setDirection(QBoxLayout.Direction.TopToBottom)
        wanted = inner.sizeHint()
        inner.resize(wanted)
        width = min(wanted.width() + extra, native.width() - 2 * _MARGIN)
        height = min(wanted.height(), native.height() - 2 * _MARGIN)
        left, top = (native.width() - width) // 2, (native.height() - height) // 2
        self.setGeometry(left, top, width, height)

    def switch(self) -> None:
        """Show or hide it."""
        self.place()
        self.setVisible(self.isHidden())
        self.raise_()

    def close_list(self) -> bool:
        """Hide it; return whether it was shown."""
        shown = not self.isHidden()
        self.hide()
        return shown

    def mousePressEvent(self, event: QMouseEvent | None) -> None:
        """Hide it."""
        self.hide()
