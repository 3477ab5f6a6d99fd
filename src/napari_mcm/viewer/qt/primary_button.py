"""A button in the theme's accent colour, for the next thing to press in a dock."""

from __future__ import annotations

from qtpy.QtCore import QEvent
from qtpy.QtGui import QPalette
from qtpy.QtWidgets import QPushButton


class PrimaryButton(QPushButton):
    """A button that stands out while it is what the user probably wants next.

    Parameters
    ----------
    text : str
        Text of the button.
    primary : bool
        Whether it stands out from the start.
    """

    def __init__(self, text: str, primary: bool = False) -> None:
        super().__init__(text)
        self._primary = primary
        self._restyle()

    @property
    def primary(self) -> bool:
        """Whether the button stands out."""
        return self._primary

    def set_primary(self, primary: bool) -> None:
        """Let the button stand out, or look like any other."""
        if primary != self._primary:
            self._primary = primary
            self._restyle()

    def changeEvent(self, event: QEvent | None) -> None:
        """Take the accent colour of another theme."""
        super().changeEvent(event)
        kinds = QEvent.Type.PaletteChange, QEvent.Type.StyleChange
        if event is not None and event.type() in kinds:
            self._restyle()

    def _restyle(self) -> None:
        sheet = _sheet(self) if self._primary else ""
        # Setting a sheet sends another change of style.
        if sheet != self.styleSheet():
            self.setStyleSheet(sheet)


def _sheet(button: QPushButton) -> str:
    """Return a style sheet with the accent colour of napari's dark or light theme."""
    from napari.utils.theme import get_theme

    text = button.palette().color(QPalette.ColorRole.WindowText)
    accent = get_theme("dark" if text.lightness() > 127 else "light").current
    return f"QPushButton:enabled {{ background-color: {accent}; font-weight: bold; }}"
