"""What a form says, to be run elsewhere: as a line, or as a file of options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from qtpy.QtWidgets import (
    QApplication,
    QHBoxLayout,
    QMenu,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_mcm.core.errors import McmError
from napari_mcm.core.runtime.command import Command
from napari_mcm.viewer.qt.helpers import note
from napari_mcm.viewer.qt.path_field import ask_save

_COPY = (
    "Copy the command that does the same without a window: here, on a server or on a "
    "cluster. Options at their defaults are omitted"
)
_SAVE = "Save all options as a file that --config takes on the command line"


class CommandProvider(Protocol):
    """A task, or several, as they are run without a window."""

    @property
    def line(self) -> str:
        """What is pasted into a terminal."""


class CommandActions:
    """Copies a task as a command, and saves it as a configuration.

    Parameters
    ----------
    make : callable
        Gives the task as it is set up now; raises ValueError with one line.
    report_error : callable
        Told one line when that or saving failed.

    Attributes
    ----------
    said : QLabel
        Says what was done, to be laid out; hidden until then.
    """

    def __init__(
        self, make: Callable[[], CommandProvider], report_error: Callable[[str], None]
    ) -> None:
        self._make, self._show_error = make, report_error
        self.said = note()
        self.said.setVisible(False)

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
        if not isinstance(command, Command):
            self._show_error("This takes several commands: copy them")
            return
        try:
            command.save(path)
        except (OSError, McmError) as error:
            self._show_error(f"The configuration cannot be saved: {error}")
            return
        verb = command.verb
        self._say(f"Saved: napari-mcm {verb} --config {path.name}", str(path))

    def browse(self) -> None:
        """Ask for a file, and write all options to it."""
        command = self._command()
        if command is not None and not isinstance(command, Command):
            self._show_error("This takes several commands: copy them")
        if not isinstance(command, Command):
            return
        path = ask_save(
            self.said,
            "Save the configuration",
            "config.json",
            "Configurations (*.json)",
        )
        if path:
            self.save_to(Path(path))

    def _command(self) -> CommandProvider | None:
        self.said.setVisible(False)
        try:
            return self._make()
        except ValueError as error:
            self._show_error(str(error))
            return None

    def _say(self, text: str, more: str) -> None:
        self.said.setText(text)
        self.said.setToolTip(more)
        self.said.setVisible(True)


class CommandPanel(QWidget):
    """Two buttons that copy a form's task as a command, and save its configuration.

    Parameters
    ----------
    make, report_error : callable
        As :class:`CommandActions` takes them.
    """

    def __init__(
        self, make: Callable[[], CommandProvider], report_error: Callable[[str], None]
    ) -> None:
        super().__init__()
        self._actions = actions = CommandActions(make, report_error)
        self.said, self.save_to = actions.said, actions.save_to
        self.copy = QPushButton("Copy as co&mmand")
        self.copy.setToolTip(_COPY)
        self.copy.clicked.connect(actions.copy_line)
        self.save = QPushButton("Save confi&guration…")
        self.save.setToolTip(_SAVE)
        self.save.clicked.connect(actions.browse)
        row = QHBoxLayout()
        row.addWidget(self.copy)
        row.addWidget(self.save)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(row)
        column.addWidget(self.said)


class CommandMenu(QPushButton):
    """The same as a small menu, where there is no room for two buttons.

    Parameters
    ----------
    what : str
        The task, for people: ``"Features"``.
    make, report_error : callable
        As :class:`CommandActions` takes them.
    saves : bool
        Whether the task has a configuration.

    Attributes
    ----------
    said : QLabel
        Says what was done, to be laid out near by.
    """

    def __init__(
        self,
        what: str,
        make: Callable[[], CommandProvider],
        report_error: Callable[[str], None],
        saves: bool = True,
    ) -> None:
        super().__init__("Command")
        self._actions = actions = CommandActions(make, report_error)
        self.said, self.save_to = actions.said, actions.save_to
        self.setToolTip(f"{what}: {_COPY[0].lower()}{_COPY[1:]}")
        self.setAccessibleName(f"{what}: as a command")
        menu = QMenu(self)
        self.copy = menu.addAction("Copy as command", actions.copy_line)
        if saves:
            self.save = menu.addAction("Save configuration…", actions.browse)
        self.setMenu(menu)
