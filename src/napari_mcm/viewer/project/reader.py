"""The plugin's reader of projects, for files that are dropped and for File > Open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mcm.core.errors import ProjectError

if TYPE_CHECKING:
    from napari.components import ViewerModel

ReaderFunction = Callable[[str | Path], list[tuple[None]]]

_DOCKS = ("Similarity", "Project")
_MOST_BYTES = 2**20
"""A file up to this size is checked within some ten milliseconds."""


def get_project_reader(path: str | Path | list[str]) -> ReaderFunction | None:
    """Return the reader function for a project, or None for any other file.

    Parameters
    ----------
    path : str, Path or list of str
        A file. A list stands for a stack of images.

    Returns
    -------
    callable or None
        :func:`open_project` for a path that ends with ``.mcm.json``.
    """
    from napari_mcm.core.project import ENDING

    is_project = isinstance(path, str | Path) and str(path).lower().endswith(ENDING)
    return open_project if is_project else None


def open_project(path: str | Path) -> list[tuple[None]]:
    """Open a project in the current viewer, with its dock.

    Parameters
    ----------
    path : str or Path
        The project file.

    Returns
    -------
    list of tuple
        No layers, as napari's readers say it: slides are opened one at a time.

    Raises
    ------
    ProjectError
        If the file is damaged, of a newer version, or no viewer is open.
    """
    from napari import current_viewer

    from napari_mcm.core.project import read_project
    from napari_mcm.viewer.app.session import session_of
    from napari_mcm.viewer.project.controller import project_of

    viewer = current_viewer()
    if viewer is None:
        raise ProjectError("a project is opened in a viewer", path, "Open napari first")
    # Here, so that napari shows the reason why it is refused. A large file is read in
    # the background only, and the dock says what is wrong with it.
    if not _is_large(Path(path)):
        read_project(Path(path))
    _show_docks(viewer)
    project_of(session_of(viewer)).open(path)
    return [(None,)]


def _is_large(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > _MOST_BYTES


def _show_docks(viewer: ViewerModel) -> None:
    window: Any = getattr(viewer, "window", None)
    if window is None:
        return
    for name in _DOCKS:
        window.add_plugin_dock_widget("napari-mcm", name, tabify=True)
