"""Open slides or a project in napari, with the Similarity widget beside them."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from napari_mcm.cli.output import Outcome
from napari_mcm.core.errors import ConfigError, McmError
from napari_mcm.core.project import ENDING, read_project
from napari_mcm.core.slides.find import find_slides

PLUGIN = "napari-mcm"
_BINDINGS = ("PyQt6", "PySide6", "PyQt5", "PySide2")


class ViewOptions(BaseModel):
    """The slides or the project to open."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    paths: tuple[Path, ...] = Field(
        (), description="Slide files, folders of them, or one project (.mcm.json)."
    )


OPTIONS, POSITIONAL = ViewOptions, "paths"


def run(options: ViewOptions) -> Outcome:
    """Open the window and wait until it is closed."""
    projects, others = _split(options.paths)
    slides = find_slides(others)
    _require_qt()
    _require_display()
    import napari

    viewer = napari.Viewer()
    if slides:
        viewer.open([str(path) for path in slides], plugin=PLUGIN)
    for widget in ("Slide", "Similarity"):
        viewer.window.add_plugin_dock_widget(PLUGIN, widget, tabify=True)
    for project in projects:
        viewer.open(str(project), plugin=PLUGIN)
    # Qt's event loop keeps Python from handling SIGTERM: use the default action.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    napari.run()
    return Outcome({"slides": slides, "projects": projects}, [])


def _split(paths: tuple[Path, ...]) -> tuple[list[Path], list[Path]]:
    """Return projects, which are checked, and other paths."""
    projects = [path for path in paths if path.name.lower().endswith(ENDING)]
    if len(projects) > 1:
        raise ConfigError(
            "one window has one project", projects[1], "Open one at a time"
        )
    for project in projects:
        read_project(project)
    return projects, [path for path in paths if path not in projects]


def _require_qt() -> None:
    found = any(importlib.util.find_spec(name) for name in _BINDINGS)
    if not (found and importlib.util.find_spec("napari")):
        raise McmError(
            "the viewer needs napari and a Qt binding, which are not installed",
            hint='Install them with: pip install "napari-mcm[all]"',
        )


def _require_display() -> None:
    # Without a display, Qt aborts the process with a message that does not help.
    named = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    if sys.platform.startswith("linux") and not any(map(os.environ.get, named)):
        raise McmError(
            "there is no display to open a window on",
            hint="Run it on a desktop, or under xvfb-run",
        )
