"""Dialogs for files and folders, which begin where the last one ended."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import QFileDialog, QWidget

from napari_mcm.viewer.remembered import last_folder, remember_folder


def ask_file(parent: QWidget, title: str, files: str, start: str = "") -> str:
    """Ask for a file to open; empty where that was broken off.

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
    """Ask for files to open; none where that was broken off."""
    paths, _ = QFileDialog.getOpenFileNames(parent, title, _begin(""), files)
    for path in paths[:1]:
        _kept(path)
    return list(paths)


def ask_folder(parent: QWidget, title: str, start: str = "") -> str:
    """Ask for a folder; empty where that was broken off."""
    return _kept(QFileDialog.getExistingDirectory(parent, title, _begin(start)))


def ask_save(parent: QWidget, title: str, start: str, files: str) -> str:
    """Ask for a file to write; empty where that was broken off.

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
