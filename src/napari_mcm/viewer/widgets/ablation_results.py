"""What an ablation has found so far: its table, and its figures."""

from __future__ import annotations

from qtpy.QtWidgets import QHBoxLayout, QPushButton, QTextBrowser, QVBoxLayout, QWidget

from napari_mcm.viewer.mae_desk import AblationDesk
from napari_mcm.viewer.widgets.parts import allow, follow, note
from napari_mcm.viewer.widgets.path_field import PathField
from napari_mcm.viewer.widgets.run_pictures import RunPictures

_HEIGHT = 260


class AblationResults(QWidget):
    """Shows an ablation, finished or not.

    Parameters
    ----------
    desk : AblationDesk
        Which reads it.
    """

    def __init__(self, desk: AblationDesk) -> None:
        super().__init__()
        self._desk = desk
        self.folder = PathField("Ablation", "The folder of an ablation")
        self.show_it = QPushButton("Sh&ow")
        self.show_it.clicked.connect(self.read)
        self.about = note()
        self.table = QTextBrowser()
        self.table.setAccessibleName("Table of the ablation")
        self.table.setToolTip("ablation.md of its folder; ablation.csv has each cell")
        self.table.setLineWrapMode(QTextBrowser.LineWrapMode.NoWrap)
        self.table.setMinimumWidth(100)
        self.table.setFixedHeight(_HEIGHT)
        self.pictures = RunPictures(desk.session, "ablation")
        row = QHBoxLayout()
        row.addWidget(self.folder, 1)
        row.addWidget(self.show_it)
        column = QVBoxLayout(self)
        column.setContentsMargins(4, 0, 0, 0)
        column.addLayout(row)
        for part in (self.about, self.table, self.pictures):
            column.addWidget(part)
        follow(desk.run_changed, self.refresh)
        follow(self.folder.changed, self._allow)
        follow(self.folder.chosen, self.read)
        self._allow()
        self.refresh()

    def refresh(self) -> None:
        """Show the present ablation as far as it is."""
        run = self._desk.run
        for part in (self.about, self.table):
            part.setVisible(run is not None)
        self.pictures.show_pictures({} if run is None else run.figures)
        if run is not None:
            self.folder.put(run.path)
            self.about.setText(f"{run.path.name}: {run.describe()}.")
            # Without its heading, which is too large for a dock.
            self.table.setMarkdown(run.table.partition("\n\n")[2])

    def read(self) -> None:
        """Read the chosen ablation in the background."""
        if self.folder.path is not None:
            self._desk.show_run(self.folder.path)

    def _allow(self) -> None:
        reason = "" if self.folder.path is not None else "no folder is chosen"
        allow(self.show_it, "Show its table and figures", reason)
