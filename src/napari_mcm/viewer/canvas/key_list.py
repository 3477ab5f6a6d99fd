"""The list of all keys, over the canvas."""

from __future__ import annotations

from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import (
    QBoxLayout,
    QFrame,
    QHBoxLayout,
    QLabel,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_mcm.viewer.canvas.keys import as_html

_MARGIN = 10
_COLUMNS = ("Query", "View"), ("Map", "Labels")


class KeyList(QScrollArea):
    """All keys and mouse actions in one or two columns; a click hides them.

    On a narrow canvas the texts wrap.

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
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        # Over tissue of any colour, in either theme.
        self.setStyleSheet(
            "#keys, #keys QWidget { background: rgb(30, 33, 38); color: white; }"
            "#keys { border: 0; padding: 0; margin: 0; }"
        )
        inner = QWidget()
        title = QHBoxLayout()
        title.addWidget(QLabel("<b>Keys</b>"))
        title.addStretch(1)
        title.addWidget(QLabel("Esc closes"))
        column = QVBoxLayout(inner)
        column.addLayout(title)
        self._row = QBoxLayout(QBoxLayout.Direction.LeftToRight)
        column.addLayout(self._row)
        self._tables = [QLabel(as_html(groups)) for groups in _COLUMNS]
        for table in self._tables:
            table.setAlignment(Qt.AlignmentFlag.AlignTop)
            self._row.addWidget(table)
        self.setWidget(inner)
        self.hide()

    def place(self) -> None:
        """Move it to the middle of the canvas, and fit it in."""
        native, inner = self.parentWidget(), self.widget()
        if native is None or inner is None:
            return
        # Before it is shown the first time, its text is not in the font of the theme.
        for part in (self, *self.findChildren(QWidget)):
            part.ensurePolished()
        bar = self.verticalScrollBar()
        extra = 0 if bar is None else bar.sizeHint().width()
        most = native.width() - 2 * _MARGIN, native.height() - 2 * _MARGIN
        room = most[0] - extra
        self._turn(QBoxLayout.Direction.LeftToRight)
        if inner.sizeHint().width() > room:
            self._turn(QBoxLayout.Direction.TopToBottom)
        wanted = inner.sizeHint()
        if wanted.width() > room:
            self._turn(QBoxLayout.Direction.TopToBottom, wrap=True)
            wanted = QSize(room, inner.heightForWidth(room))
        inner.resize(wanted)
        scrolls = wanted.height() > most[1]
        width = min(wanted.width() + extra * scrolls, most[0])
        height = min(wanted.height(), most[1])
        policy = Qt.ScrollBarPolicy
        self.setVerticalScrollBarPolicy(
            policy.ScrollBarAsNeeded if scrolls else policy.ScrollBarAlwaysOff
        )
        left, top = (native.width() - width) // 2, (native.height() - height) // 2
        self.setGeometry(left, top, width, height)

    def _turn(self, direction: QBoxLayout.Direction, wrap: bool = False) -> None:
        self._row.setDirection(direction)
        for table in self._tables:
            table.setWordWrap(wrap)
        if (inner := self.widget()) is not None and (layout := inner.layout()):
            # The size hints of labels whose font changed are kept otherwise.
            layout.invalidate()
            layout.activate()

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
