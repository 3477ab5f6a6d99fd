"""A viewer that is driven by its own buttons and keys, and photographed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import napari
import numpy as np
from napari.settings import get_plugin_settings
from PIL import Image
from qtpy.QtCore import QEventLoop, QPoint, Qt, QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QScrollArea, QWidget

from napari_mcm.viewer.app.jobs import JobState
from napari_mcm.viewer.app.session import session_of
from napari_mcm.viewer.similarity.encoder_panel import EncoderPanel

PLUGIN = "napari-mcm"


def wait(until: Callable[[], bool], seconds: float = 1800) -> None:
    """Let the program run in its own event loop until something has happened."""
    end = time.monotonic() + seconds
    loop, poll = QEventLoop(), QTimer()
    poll.timeout.connect(lambda: (until() or time.monotonic() > end) and loop.quit())
    poll.start(10)
    QApplication.processEvents()
    if not until():
        loop.exec()
    poll.stop()
    if not until():
        raise SystemExit(f"gave up after {seconds:.0f} s")


def settle(seconds: float = 1.0) -> None:
    """Let the program paint."""
    end = time.monotonic() + seconds
    wait(lambda: time.monotonic() > end)


class Studio:
    """A viewer with the plugin, ready to be photographed."""

    def __init__(self, out: Path, size: tuple[int, int]) -> None:
        self.out = out
        out.mkdir(parents=True, exist_ok=True)
        self.viewer = napari.Viewer()
        # The scenarios open the docks that they show.
        get_plugin_settings(PLUGIN).slides.open_similarity = False
        self.viewer.window.resize(*size)
        self.session = session_of(self.viewer)

    def open(self, slide: Path | None) -> None:
        """Open a slide, or the generated one."""
        if slide is None:
            self.viewer.open_sample(PLUGIN, "generated_slide")
        else:
            self.viewer.open(slide, plugin=PLUGIN)
        settle()

    def dock(self, name: str) -> QWidget:
        """Open one of the plugin's widgets."""
        _, widget = self.viewer.window.add_plugin_dock_widget(PLUGIN, name)
        settle()
        return widget

    def finish(self) -> None:
        """Wait for the running job, which must end well."""
        status = self.session.jobs.status
        wait(lambda: not status.busy)
        if status.state is not JobState.DONE:
            raise SystemExit(status.details)
        settle()

    def take(self, name: str) -> None:
        """Save a picture of the whole window."""
        settle()
        path = self.out / f"{name}.png"
        pixels = self.viewer.screenshot(canvas_only=False, flash=False)
        picture = Image.fromarray(pixels[..., :3])
        # A third of the size, with colours as good as the same.
        picture.quantize(256, kmeans=2).save(path, optimize=True)
        print(path, flush=True)

    def dress(self, theme: str) -> None:
        """Change the theme; all is laid out anew, which takes a while."""
        self.viewer.theme = theme
        settle(5)

    def compute(self, slot: EncoderPanel, encoder: str) -> None:
        """Press a slot's button and wait."""
        slot.encoder.setCurrentText(encoder)
        slot.compute.click()
        self.finish()

    def wait_for_part(self, part: float) -> None:
        """Wait until a part of the running job is done."""
        status = self.session.jobs.status

        def reached() -> bool:
            progress = status.progress
            if not status.busy:
                return True
            if progress is None or not progress.total or not progress.rate:
                return False
            return progress.done > progress.total * part

        wait(reached)

    def click(
        self,
        x: float,
        y: float,
        keys: Qt.KeyboardModifier = Qt.KeyboardModifier.NoModifier,
    ) -> None:
        """Click on a point of the slide, given in level-0 pixels."""
        QTest.mouseClick(self._canvas, Qt.MouseButton.LeftButton, keys, self._at(x, y))
        settle()

    def stroke(self, *points: tuple[float, float]) -> None:
        """Press on a point of the slide, move over others, and let go."""
        button, keys = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
        first, *others = (self._at(*point) for point in points)
        QTest.mouseMove(self._canvas, first)
        QTest.mousePress(self._canvas, button, keys, first)
        for at in others:
            QTest.mouseMove(self._canvas, at)
            settle(0.1)
        QTest.mouseRelease(self._canvas, button, keys, others[-1])
        settle()

    def press(self, key: Qt.Key) -> None:
        """Press a key on the canvas."""
        QTest.keyClick(self._canvas, key)
        settle()

    def look_at(self, x: float, y: float, zoom: float) -> None:
        """Zoom to a point of the slide."""
        slide, camera = self.session.slide, self.viewer.scene.camera
        assert slide is not None
        camera.center = slide.data_to_world((y, x))
        camera.zoom *= zoom
        settle()

    def scroll_to(self, part: QWidget) -> None:
        """Scroll the dock until a part of the widget is in sight, as a whole if it fits."""
        settle()
        above = part.parentWidget()
        while above is not None and not isinstance(above, QScrollArea):
            above = above.parentWidget()
        if above is not None:
            above.ensureWidgetVisible(part, 0, part.height() // 2)

    @property
    def _canvas(self) -> QWidget:
        return self.viewer.window._qt_viewer.canvas.native

    def _at(self, x: float, y: float) -> QPoint:
        """Tell where on the canvas a point of the slide is seen."""
        camera, slide = self.viewer.scene.camera, self.session.slide
        assert slide is not None
        middle = np.array([self._canvas.height(), self._canvas.width()]) / 2
        world = np.asarray(slide.data_to_world((y - 0.5, x - 0.5)))
        row, column = (world - camera.center[-2:]) * camera.zoom + middle
        return QPoint(round(column), round(row))
