"""What a form says, to be run elsewhere: as a line, or as a file of options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qtpy.QtWidgets import (
    QApplication,
    QFileDialog,
    QHBoxLayout,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_mcm.core.command import Command
from napari_mcm.core.errors import McmError
from napari_mcm.viewer.widgets.parts import note

_COPY = (
    "Copy the line that does exactly this without a window: on this machine, a server "
    "or a cluster. Options that have their usual values are left out"
)
_SAVE = "Save all options as a file that --config takes on the command line"


class CommandBox(QWidget):
    """Copies a form's task as a command, and saves it as a configuration.

    Parameters
    ----------
    make : callable
        Gives the task as the form has it now; raises ValueError with one line.
    complain : callable
        Told one line when that or saving failed.
    """

    def __init__(
        self, make: Callable[[], Command], complain: Callable[[str], None]
    ) -> None:
        super().__init__()
        self._make, self._complain = make, complain
        self.copy = QPushButton("Copy as co&mmand")
        self.copy.setToolTip(_COPY)
        self.copy.clicked.connect(self.copy_line)
        self.save = QPushButton("Sa&ve configuration…")
        self.save.setToolTip(_SAVE)
        self.save.clicked.connect(self._browse)
        self.said = note()
        self.said.setVisible(False)
        row = QHBoxLayout()
        row.addWidget(self.copy)
        row.addWidget(self.save)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(row)
        column.addWidget(self.said)

    def copy_line(self) -> None:
        """Put the line into the clipboard."""
        command = self._command()
        clipboard = QApplication.clipboard()
        if command is not None and clipboard is not None:
            clipboard.setText(command.line)
            self._say("Copied; paste it into a terminal.", command.line)

    def save_to(self, path: Path) -> None:
        """Write all options to a file."""
        command = self._command()
        if command is None:
            return
        try:
            command.save(path)
        except (OSError, McmError) as error:
            self._complain(f"The configuration is not saved: {error}")
            return
        verb = command.verb
        self._say(f"Saved: napari-mcm {verb} --config {path.name}", str(path))

    def _command(self) -> Command | None:
        self.said.setVisible(False)
        try:
            return self._make()
        except ValueError as error:
            self._complain(str(error))
            return None

    def _say(self, text: str, more: str) -> None:
        self.said.setText(text)
        self.said.setToolTip(more)
        self.said.setVisible(True)

    def _browse(self) -> None:
        if self._command() is None:
            return
        path, _ = QFileDialog.getSaveFileName(
            self, "Save the configuration", "config.json", "Configurations (*.json)"
        )
        if path:
            self.save_to(Path(path))
