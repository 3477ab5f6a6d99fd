"""The grid of patches: how it is laid, how many they are, and a look at it."""

from __future__ import annotations

from qtpy.QtWidgets import QGroupBox, QPushButton, QVBoxLayout

from napari_mcm.viewer.preview import GridPreview, describe
from napari_mcm.viewer.session import Session
from napari_mcm.viewer.widgets.parts import allow, follow, note
from napari_mcm.viewer.widgets.patch_fields import PatchFields

_SHOW = "Show where patches lie; it follows the mask and the fields above"


class GridBox(QGroupBox):
    """Options of patches, and a preview that follows them.

    Parameters
    ----------
    session : Session
        Of the viewer.
    """

    def __init__(self, session: Session) -> None:
        super().__init__("Patches")
        self._session = session
        self.fields = PatchFields(session)
        self.preview = GridPreview(session)
        self.show_grid = QPushButton("Preview &grid")
        self.show_grid.setCheckable(True)
        self.show_grid.toggled.connect(self.preview.show)
        self.count = note()
        column = QVBoxLayout(self)
        column.addWidget(self.fields)
        column.addWidget(self.show_grid)
        column.addWidget(self.count)
        for signal in (session.slide_changed, session.patches_changed):
            follow(signal, self._relay)
        follow(session.tissue.changed, self._relay)
        follow(self.preview.changed, self.refresh)
        self.refresh()

    def _relay(self) -> None:
        self.preview.update()
        self.refresh()

    def refresh(self) -> None:
        """Show what the preview found."""
        session, grid = self._session, self.preview.grid
        reason = "" if session.tissue.drawing(session.slide) else "find tissue first"
        # Pressed, it stays so for the next slide: only then can it be released.
        allow(self.show_grid, _SHOW, "" if self.show_grid.isChecked() else reason)
        text = self.preview.problem or (describe(grid) if grid is not None else "")
        if grid is not None and not len(grid):
            text = "No patches: none holds enough tissue. Take smaller ones, or less."
        self.count.setText(text)
        self.count.setVisible(bool(text))
