"""A field for a file or a folder, with a button to look for it."""

from __future__ import annotations

from pathlib import Path

from psygnal import Signal
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QLineEdit, QPushButton, QWidget

from napari_mcm.viewer.app.persistence import last_folder, remember_folder


class PathField(QWidget):
    """A line that takes a path, and a button that browses.

    Parameters
    ----------
    name : str
        What is chosen, for people.
    tip : str
        What it is for.
    files : str
        Filter of the dialog for files; empty where a folder is chosen.

    Attributes
    ----------
    changed : Signal
        Another text stands in the line.
    chosen : Signal
        A path was browsed for, or Enter was pressed.
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
        """What is chosen; None where nothing is."""
        text = self.line.text().strip()
        return Path(text).expanduser() if text else None

    def put(self, path: object) -> None:
        """Fill the line."""
        self.line.setText("" if path is None else str(path))

    def propose(self, path: object) -> None:
        """Fill the line if it is empty."""
        if self.path is None:
            self.put(path)

    def take(self, path: str) -> None:
        """Fill the line with the chosen path; keep it where the dialog was cancelled."""
        if path:
            self.line.setText(path)
            self.chosen.emit()

    def _edited(self) -> None:
        # Paths are longer than the line.
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
    """Ask for a file to open; empty where the user cancels.

    Parameters
    ----------
    parent : QWidget
        The dialog's.
    title : str
        What is asked for.
    files : str
        Filter.
    start : str
        Where to begin; by default in the folder of the last dialog.
    """
    path, _ = QFileDialog.getOpenFileName(parent, title, _begin(start), files)
    return _kept(path)


def ask_files(parent: QWidget, title: str, files: str) -> list[str]:
    """Ask for files to open; none where the user cancels."""
    paths, _ = QFileDialog.getOpenFileNames(parent, title, _begin(""), files)
    for path in paths[:1]:
        _kept(path)
    return list(paths)


def ask_folder(parent: QWidget, title: str, start: str = "") -> str:
    """Ask for a folder; empty where the user cancels."""
    return _kept(QFileDialog.getExistingDirectory(parent, title, _begin(start)))


def ask_save(parent: QWidget, title: str, start: str, files: str) -> str:
    """Ask for a file to write; empty where the user cancels.

    Parameters
    ----------
    parent, title, files
        As :func:`ask_file` takes them.
    start : str
        The file that is proposed; a name alone is put into the last dialog's folder.
    """
    if not Path(start).is_absolute():
        start = str(Path(_begin("")) / start)
    path, _ = QFileDialog.getSaveFileName(parent, title, start, files)
    return _kept(path)


def _begin(start: str) -> str:
    return start or str(last_folder() or "")


def _kept(path: str) -> str:
    if path:
        remember_folder(Path(path).parent)
    return path
