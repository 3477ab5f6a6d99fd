"""Buttons that copy a form's task as a command, or save its options as a file."""

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
    """One or several tasks that can be run on the command line."""

    @property
    def line(self) -> str:
        """The commands as text, to paste into a terminal."""


class CommandActions:
    """Copies a task as a command, and saves it as a configuration.

    Parameters
    ----------
    make : callable
        Returns the task with its current options; raises ValueError with a one-line
        message if they are incomplete or invalid.
    report_error : callable
        Called with a one-line message if copying or saving failed.

    Attributes
    ----------
    feedback : QLabel
        Message after copying or saving, to add to a layout; hidden until then.
    """

    def __init__(
        self, make: Callable[[], CommandProvider], report_error: Callable[[str], None]
    ) -> None:
        self._make, self._show_error = make, report_error
        self.feedback = note()
        self.feedback.setVisible(False)

    def copy_line(self) -> None:
        """Copy the command to the clipboard."""
        command = self._command()
        clipboard = QApplication.clipboard()
        if command is not None and clipboard is not None:
            clipboard.setText(command.line)
            self._show("Copied; paste it into a terminal.", command.line)

    def save_to(self, path: Path) -> None:
        """Save all options as a configuration file."""
        command = self._command()
        if not isinstance(command, Command):
            self._show_error("This takes several commands: copy them instead")
            return
        try:
            command.save(path)
        except (OSError, McmError) as error:
            self._show_error(f"The configuration cannot be saved: {error}")
            return
        verb = command.verb
        self._show(f"Saved: napari-mcm {verb} --config {path.name}", str(path))

    def browse(self) -> None:
        """Ask for a file, and save all options to it."""
        command = self._command()
        if command is not None and not isinstance(command, Command):
            self._show_error("This takes several commands: copy them instead")
        if not isinstance(command, Command):
            return
        path = ask_save(
            self.feedback,
            "Save the configuration",
            "config.json",
            "Configurations (*.json)",
        )
        if path:
            self.save_to(Path(path))

    def _command(self) -> CommandProvider | None:
        self.feedback.setVisible(False)
        try:
            return self._make()
        except ValueError as error:
            self._show_error(str(error))
            return None

    def _show(self, text: str, tooltip: str) -> None:
        self.feedback.setText(text)
        self.feedback.setToolTip(tooltip)
        self.feedback.setVisible(True)


class CommandPanel(QWidget):
    """Two buttons: copy the task of a form as a command, and save its configuration.

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
        self.feedback, self.save_to = actions.feedback, actions.save_to
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
        column.addWidget(self.feedback)


class CommandMenu(QPushButton):
    """A menu with the actions of :class:`CommandPanel`, where space is short.

    Parameters
    ----------
    what : str
        Display name of the task: ``"Features"``.
    make, report_error : callable
        As :class:`CommandActions` takes them.
    saves : bool
        Whether the task has a configuration to save.

    Attributes
    ----------
    feedback : QLabel
        Message after copying or saving, to add to a layout; hidden until then.
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
        self.feedback, self.save_to = actions.feedback, actions.save_to
        self.setToolTip(f"{what}: {_COPY[0].lower()}{_COPY[1:]}")
        self.setAccessibleName(f"{what}: as a command")
        menu = QMenu(self)
        self.copy = menu.addAction("Copy as command", actions.copy_line)
        if saves:
            self.save = menu.addAction("Save configuration…", actions.browse)
        self.setMenu(menu)
