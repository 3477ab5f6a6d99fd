"""A section of a dock that folds to one line, which says what it holds."""

from __future__ import annotations

from psygnal import Signal
from qtpy.QtCore import QEvent, QSize, Qt
from qtpy.QtGui import QPalette, QResizeEvent
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from napari_mcm.viewer.qt.collapsible_forms import triangle
from napari_mcm.viewer.qt.helpers import note

_SHEET = """
QPushButton { background: transparent; text-align: left; padding: 2px 1px;
              border: 1px solid transparent; }
QPushButton:focus { border: 1px solid palette(window-text); }
"""
_LEAST_WIDTH = 60


class SummaryLine(QPushButton):
    """One line of text after a triangle; a click or the space bar opens and closes it.

    The text is cut with an ellipsis where it is too long for the line.
    """

    def __init__(self) -> None:
        super().__init__()
        self._full = ""
        self.setCheckable(True)
        self.setStyleSheet(_SHEET)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        policy = QSizePolicy.Policy
        self.setSizePolicy(policy.Expanding, policy.Fixed)
        self.toggled.connect(lambda _: self._draw())
        self._draw()

    @property
    def full_text(self) -> str:
        """The whole text, of which the line may show a part."""
        return self._full

    def show_text(self, text: str, tip: str) -> None:
        """Show a text.

        Parameters
        ----------
        text : str
            Text of the line.
        tip : str
            What is in the section, for the tooltip.
        """
        self._full = text
        self.setToolTip(f"{text}\n\n{tip}" if text not in tip else tip)
        self.setAccessibleName(text)
        self._elide()

    def sizeHint(self) -> QSize:
        """Return the preferred size, whose width does not follow the text."""
        return QSize(_LEAST_WIDTH, super().sizeHint().height())

    def minimumSizeHint(self) -> QSize:
        """Return the smallest size."""
        return self.sizeHint()

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Cut the text to the new width."""
        super().resizeEvent(event)
        self._elide()

    def changeEvent(self, event: QEvent | None) -> None:
        """Redraw the triangle when the theme changes."""
        super().changeEvent(event)
        kinds = QEvent.Type.PaletteChange, QEvent.Type.StyleChange
        if event is not None and event.type() in kinds:
            self._draw()

    def _elide(self) -> None:
        space = self.width() - self.iconSize().width() - 12
        text = self.fontMetrics().elidedText(
            self._full, Qt.TextElideMode.ElideRight, max(space, _LEAST_WIDTH)
        )
        # A single & would underline a letter.
        text = text.replace("&", "&&")
        if text != self.text():
            self.setText(text)

    def _draw(self) -> None:
        colour = self.palette().color(QPalette.ColorRole.WindowText)
        self.setIcon(triangle(self.isChecked(), colour, self.devicePixelRatioF()))
        state = "open" if self.isChecked() else "closed"
        self.setAccessibleDescription(f"Section, {state}")


class SummarySection(QWidget):
    """A section that folds to one line.

    Under the line stand a sentence and buttons as long as the user has to do something,
    also while the section is closed.

    Parameters
    ----------
    tip : str
        What is in the section, for the tooltip of the line.
    content : QWidget
        What is hidden while the section is closed.
    action : QWidget, optional
        Buttons that are also shown in a closed section while :meth:`require` says so.
    beside : QWidget, optional
        Shown at the right end of the line.

    Attributes
    ----------
    line : SummaryLine
        The line.
    sentence : QLabel
        The sentence under the line.
    opened : Signal
        Emitted with whether the section is open, when the user opened or closed it.
    """

    opened = Signal(bool)

    def __init__(
        self,
        tip: str,
        content: QWidget,
        action: QWidget | None = None,
        beside: QWidget | None = None,
    ) -> None:
        super().__init__()
        self._tip, self._required = tip, False
        self.content, self.action = content, action
        self.line, self.sentence = SummaryLine(), note()
        self.line.clicked.connect(self._clicked)
        self._lay_out(beside)
        self.summarise("")
        self._refresh()

    def _lay_out(self, beside: QWidget | None) -> None:
        row = QHBoxLayout()
        row.setSpacing(4)
        row.addWidget(self.line, 1)
        if beside is not None:
            row.addWidget(beside)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        column.addLayout(row)
        column.addWidget(self.sentence)
        column.addWidget(self.content)
        if self.action is not None:
            column.addWidget(self.action)

    @property
    def is_open(self) -> bool:
        """Whether the content is shown."""
        return self.line.isChecked()

    def summarise(self, text: str, sentence: str = "") -> None:
        """Show what the section holds.

        Parameters
        ----------
        text : str
            Text of the line.
        sentence : str
            What the user should do or know, shown under the line; empty for nothing.
        """
        self.line.show_text(text, self._tip)
        self.sentence.setText(sentence)
        self.sentence.setVisible(bool(sentence))

    def require(self, required: bool) -> None:
        """Show the buttons also while the section is closed, or no longer."""
        self._required = required
        self._refresh()

    def set_open(self, is_open: bool) -> None:
        """Open or close the section."""
        self.line.setChecked(is_open)
        self._refresh()

    def _clicked(self) -> None:
        self._refresh()
        self.opened.emit(self.is_open)

    def _refresh(self) -> None:
        self.content.setVisible(self.is_open)
        if self.action is not None:
            self.action.setVisible(self.is_open or self._required)
