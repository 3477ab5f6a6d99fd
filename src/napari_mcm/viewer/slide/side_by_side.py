"""The choice between one slide and all slides next to each other."""

from __future__ import annotations

from qtpy.QtWidgets import QCheckBox

from napari_mcm.viewer.app.session import Session
from napari_mcm.viewer.qt.helpers import connect

_TIP = (
    "Show all slides next to each other; a click asks the slide that is clicked. "
    "Otherwise the current slide is shown, and all others are hidden"
)


class SideBySide(QCheckBox):
    """Shows all slides next to each other, or the current one alone.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    """

    def __init__(self, session: Session) -> None:
        super().__init__("Side b&y side")
        self._session = session
        self.setToolTip(_TIP)
        self.toggled.connect(session.show_side_by_side)
        connect(session.side_by_side_changed, self.refresh)
        connect(session.slide_changed, self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show the choice; it is hidden while there is only one slide."""
        self.setChecked(self._session.side_by_side)
        several = len(self._session.layers.slides()) > 1
        self.setVisible(several or self._session.side_by_side)
