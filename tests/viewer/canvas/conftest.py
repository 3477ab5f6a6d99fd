"""A window that is shown, as pointer and focus are nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QCursor, QWheelEvent
from qtpy.QtWidgets import QApplication, QWidget

from napari_mcm.viewer.canvas.tools import CanvasTools
from napari_mcm.viewer.similarity.widget import SimilarityWidget
from tests.viewer.conftest import features_of, finish, wait_until


@pytest.fixture
def shown(
    make_napari_viewer: Callable[..., Any], plugin: Any, slide_path: Path
) -> Iterator[SimilarityWidget]:
    """The widget with features, docked in a window that is on the screen."""
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1200, 800)
    viewer.open(slide_path, plugin="napari-mcm")
    _, docked = viewer.window.add_plugin_dock_widget("napari-mcm", "Similarity")
    docked.session.set_features(docked.session.slide, "first", features_of(slide_path))
    native = canvas(docked)
    native.window().activateWindow()
    wait_until(lambda: native.width() > 300 and native.isVisible())
    yield docked
    finish(docked)


def canvas(widget: SimilarityWidget) -> QWidget:
    """What napari draws on."""
    return widget.session.viewer.window._qt_viewer.canvas.native


def tools(widget: SimilarityWidget) -> CanvasTools:
    """What the session adds to the canvas."""
    return widget.session.part(CanvasTools)


def point_at(widget: QWidget, at: QPoint | None = None) -> None:
    """Move the pointer onto a widget."""
    QCursor.setPos(widget.mapToGlobal(at or widget.rect().center()))
    QApplication.processEvents()


def turn_wheel(
    widget: QWidget,
    angle: int = 120,
    keys: Qt.KeyboardModifier = Qt.KeyboardModifier.NoModifier,
) -> None:
    """Turn the wheel over a widget by so many eighths of a degree."""
    # With Alt, Qt reports the wheel as horizontal.
    sideways = keys == Qt.KeyboardModifier.AltModifier
    turn = QPoint(angle, 0) if sideways else QPoint(0, angle)
    receiver: QWidget | None = widget
    # Qt offers what a widget ignores to its parent, but only for real events.
    while receiver is not None:
        at = receiver.rect().center()
        event = QWheelEvent(
            QPointF(at),
            QPointF(receiver.mapToGlobal(at)),
            QPoint(),
            turn,
            Qt.MouseButton.NoButton,
            keys,
            Qt.ScrollPhase.NoScrollPhase,
            False,
        )
        QApplication.sendEvent(receiver, event)
        receiver = None if event.isAccepted() else receiver.parentWidget()
