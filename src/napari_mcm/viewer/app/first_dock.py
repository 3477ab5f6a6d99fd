"""Opens the dock *Similarity* beside the first slide that opens in a window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QThread, QTimer
from qtpy.QtWidgets import QApplication, QWidget

from napari_mcm.viewer.app.background import BackgroundWorker
from napari_mcm.viewer.app.imports import import_now
from napari_mcm.viewer.app.settings import PLUGIN, preferences
from napari_mcm.viewer.layers.metadata import slide_of

if TYPE_CHECKING:
    from napari_mcm.core.slides import Slide

DOCK, _MODULE = "Similarity", "napari_mcm.viewer.similarity.widget"

_OPENED = "napari-mcm: a dock was opened"
"""Property of a window."""

_workers: list[BackgroundWorker] = []


def note_dock(window: QWidget) -> None:
    """Note that the user works with the plugin in a window: no dock opens there.

    Parameters
    ----------
    window : QWidget
        The window in which a dock was opened.
    """
    window.setProperty(_OPENED, True)


def bring_dock(slide: Slide) -> None:
    """Open the dock once a slide that was read is shown, where it is wanted.

    It opens once per window, if that is shown and no other dock of the plugin was opened
    there, and does not take the focus. Its modules are imported in a thread before.

    Parameters
    ----------
    slide : Slide
        The slide; nothing happens in another thread than the window's.
    """
    application = QApplication.instance()
    if application is None or QThread.currentThread() is not application.thread():
        return
    if preferences().open_similarity:
        # The reader has read the slide, but napari has no layer of it yet.
        QTimer.singleShot(0, lambda: _prepare(slide))


def _prepare(slide: Slide) -> None:
    import napari

    viewer = napari.current_viewer()
    if viewer is None or not _is_wanted(viewer, slide):
        return
    if not _workers:
        _workers.append(BackgroundWorker("dock"))

    def show(_: object) -> None:
        if _is_wanted(viewer, slide):
            _open(viewer)

    _workers[0].submit(DOCK, lambda: import_now((_MODULE,)), show, lambda _: None)


def _is_wanted(viewer: Any, slide: Slide) -> bool:
    try:
        window = viewer.window._qt_window
        shown = window.isVisible() and not window.property(_OPENED)
    # The window was closed meanwhile.
    except (AttributeError, RuntimeError):
        return False
    return shown and any(slide_of(layer) is slide for layer in viewer.layers)


def _open(viewer: Any) -> None:
    note_dock(viewer.window._qt_window)
    focused = QApplication.focusWidget()
    viewer.window.add_plugin_dock_widget(PLUGIN, DOCK)
    if focused is not None and QApplication.focusWidget() is not focused:
        focused.setFocus()
