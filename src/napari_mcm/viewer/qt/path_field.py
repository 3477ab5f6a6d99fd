"""An input field for a path with a browse button, and file dialogs."""

from __future__ import annotations

import re
from pathlib import Path

from psygnal import Signal
from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QMessageBox,
    QPushButton,
    QWidget,
)

from napari_mcm.viewer.app.persistence import last_folder, remember_folder


class PathField(QWidget):
    """An input field for a file or folder, with a browse button.

    Parameters
    ----------
    name : str
        Display name of the file or folder.
    tip : str
        Tooltip: what it is used for.
    files : str
        Filter of the file dialog; empty to choose a folder.

    Attributes
    ----------
    changed : Signal
        Emitted when the text changed.
    chosen : Signal
        Emitted when a path was chosen in the dialog, or Enter was pressed.
    """

    changed = Signal()
    chosen = Signal()

    def __init__(self, name: str, tip: str, files: str = "") -> None:
        super().__init__()
        self._name, self._files = name, files
        self.line = QLineEdit()
        self.line.setAccessibleName(name)
        self.line.setMinimumWidth(60)
        self.line.textChanged.connect(lambda _: self._edited())
        self.line.returnPressed.connect(self.chosen.emit)
        self.browse = QPushButton("…")
        self.browse.setToolTip(f"Choose: {name}")
        self.browse.setAccessibleName(f"Choose: {name}")
        self.browse.clicked.connect(self._browse)
        self._tip = tip
        self._edited()
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.line, 1)
        row.addWidget(self.browse)
        self.setFocusProxy(self.line)

    @property
    def path(self) -> Path | None:
        """The chosen path; None if the field is empty."""
        text = self.line.text().strip()
        return Path(text).expanduser() if text else None

    def put(self, path: object) -> None:
        """Set the path; None empties the field."""
        self.line.setText("" if path is None else str(path))

    def propose(self, path: object) -> None:
        """Set the path if the field is empty."""
        if self.path is None:
            self.put(path)

    def take(self, path: str) -> None:
        """Set the path from a dialog; an empty one, from a cancelled dialog, is ignored."""
        if path:
            self.line.setText(path)
            self.chosen.emit()

    def _edited(self) -> None:
        # The tooltip repeats the path, which is usually longer than the field.
        text = self.line.text()
        self.line.setToolTip(f"{self._tip}\n\n{text}" if text else self._tip)
        self.changed.emit()

    def _browse(self) -> None:
        start = self.line.text()
        if self._files:
            path = ask_file(self, self._name, self._files, start)
        else:
            path = ask_folder(self, self._name, start)
        self.take(path)


def ask_file(parent: QWidget, title: str, files: str, start: str = "") -> str:
    """Show a dialog to open a file, and return its path; empty if the user cancels.

    Parameters
    ----------
    parent : QWidget
        Parent of the dialog.
    title : str
        Title of the dialog.
    files : str
        Filter of files.
    start : str
        Initial path; by default the folder of the last dialog.
    """
    path, _ = QFileDialog.getOpenFileName(parent, title, _initial(start), files)
    return _remembered(path)


def ask_files(parent: QWidget, title: str, files: str) -> list[str]:
    """Show a dialog to open files, and return their paths; none if the user cancels.

    Parameters
    ----------
    parent, title, files
        As :func:`ask_file` takes them.
    """
    paths, _ = QFileDialog.getOpenFileNames(parent, title, _initial(""), files)
    for path in paths[:1]:
        _remembered(path)
    return list(paths)


def ask_folder(parent: QWidget, title: str, start: str = "") -> str:
    """Show a dialog to choose a folder, and return its path; empty if cancelled.

    Parameters
    ----------
    parent, title, start
        As :func:`ask_file` takes them.
    """
    return _remembered(QFileDialog.getExistingDirectory(parent, title, _initial(start)))


def ask_save(parent: QWidget, title: str, start: str, files: str) -> str:
    """Show a dialog to save a file, and return its path; empty if the user cancels.

    A name without an ending gets the first one of the filter.

    Parameters
    ----------
    parent, title, files
        As :func:`ask_file` takes them.
    start : str
        Proposed path; a file name alone is put in the folder of the last dialog.
    """
    if not Path(start).is_absolute():
        start = str(Path(_initial("")) / start)
    path, chosen = QFileDialog.getSaveFileName(parent, title, start, files)
    return _remembered(_with_ending(parent, title, path, chosen or files))


def _with_ending(parent: QWidget, title: str, path: str, files: str) -> str:
    """Complete a name without an ending; empty if that file is not to be replaced."""
    ending = re.search(r"\*((?:\.\w+)+)", files)
    if not path or ending is None or Path(path).suffix:
        return path
    path = f"{path}{ending[1]}"
    # The dialog asked about the shorter name.
    yes = QMessageBox.StandardButton.Yes
    asked = f"{Path(path).name} exists. Replace it?"
    if Path(path).exists() and QMessageBox.question(parent, title, asked) != yes:
        return ""
    return path


def _initial(start: str) -> str:
    return start or str(last_folder() or "")


def _remembered(path: str) -> str:
    """Remember the folder of a path, and return the path."""
    if path:
        remember_folder(Path(path).parent)
    return path
