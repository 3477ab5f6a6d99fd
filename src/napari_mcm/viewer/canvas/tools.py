"""What a session adds to the canvas: overview map, magnification, keys."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

import numpy as np
from psygnal import Signal
from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QWidget

from napari_mcm.viewer.app.settings import preferences, set_preference
from napari_mcm.viewer.canvas.key_list import KeyList
from napari_mcm.viewer.canvas.keyboard import CanvasKeyboard
from napari_mcm.viewer.canvas.magnification import MagnificationLabel
from napari_mcm.viewer.canvas.overview import SIDE, OverviewMap
from napari_mcm.viewer.layers.early_slicing import canvas_of

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.core.slides.tiles import Pixels
    from napari_mcm.viewer.app.session import Session

_MOST_PIXELS = 30_000_000
"""Pixels of a coarsest level that is read whole for the overview map."""
_MOVES = ("scale", "translate", "rotate", "shear", "affine")
"""Events of a layer that moves."""


class CanvasTools:
    """The overview map, the magnification and the keys of one viewer's canvas.

    They are there while a widget of the plugin is docked. A viewer without a window has
    none.

    Parameters
    ----------
    session : Session
        Session of the viewer.

    Attributes
    ----------
    overview : OverviewMap or None
        The overview map.
    magnification : MagnificationLabel or None
        The magnification.
    list : KeyList or None
        The list of keys.
    threshold_stepped : Signal
        Emitted with the number of steps by which the wheel moves the threshold.
    """

    threshold_stepped = Signal(int)

    def __init__(self, session: Session) -> None:
        self._session = ref(session)
        self.overview: OverviewMap | None = None
        self.magnification: MagnificationLabel | None = None
        self.list: KeyList | None = None
        self._keyboard: CanvasKeyboard | None = None
        self._resizing: _Resizing | None = None
        self._thumbnails: WeakKeyDictionary[Layer, Pixels] = WeakKeyDictionary()
        session.entered.connect(self._attach)
        session.left.connect(self._detach)
        session.slide_changed.connect(self._slide_changed)
        self._attach()

    def switch_overview(self) -> None:
        """Show or hide the overview map, from now on."""
        shown = not preferences().overview
        set_preference("canvas", "overview", shown)
        if self.overview is not None:
            self.overview.want(shown)

    def _attach(self) -> None:
        session = self._session()
        canvas = None if session is None else canvas_of(session.viewer)
        if session is None or canvas is None or self.overview is not None:
            return
        native: QWidget = canvas.native
        self.overview = OverviewMap(native, session.viewer)
        self.overview.want(preferences().overview)
        self.magnification = MagnificationLabel(native)
        self.list = KeyList(native)
        self._keyboard = CanvasKeyboard(
            native, self.list.switch, self.list.close_list, self.threshold_stepped.emit
        )
        parts = (self.overview, self.magnification, self.list)
        self._resizing = _Resizing(native, parts)
        # At each drawing: events of the camera do not tell of views side by side.
        canvas.events.draw.connect(self._follow, position="last")
        self._slide_changed()

    def _detach(self) -> None:
        session = self._session()
        canvas = None if session is None else canvas_of(session.viewer)
        if canvas is not None:
            canvas.events.draw.disconnect(self._follow)
        parts = (self.overview, self.magnification, self.list, self._resizing)
        if self._keyboard is not None:
            self._keyboard.remove()
        for part in parts:
            # When the viewer is closed, Qt may have deleted them already.
            with suppress(RuntimeError):
                if part is not None:
                    part.deleteLater()
        self.overview = self.magnification = self.list = None
        self._keyboard = self._resizing = None

    def _slide_changed(self) -> None:
        session = self._session()
        if session is None or self.overview is None:
            return
        layer = session.slide
        pixels = None if layer is None else self._thumbnails.get(layer)
        self.overview.show_slide(layer, pixels)
        self._follow()
        if layer is None:
            return
        for name in _MOVES:
            getattr(layer.events, name).connect(self._follow)
        if pixels is None:
            self._read(session, layer)

    def _read(self, session: Session, layer: Layer) -> None:
        """Read the thumbnail of a slide in the background."""
        reference = ref(layer)
        levels = layer.data if layer.multiscale else [layer.data]

        def show(pixels: Pixels | None) -> None:
            live, current = reference(), self._session()
            if live is None or pixels is None or current is None:
                return
            self._thumbnails[live] = pixels
            if current.slide is live and self.overview is not None:
                self.overview.show_slide(live, pixels)

        session.disk.submit(
            "overview map",
            lambda: _thumbnail(levels),
            show,
            session.report_error,
        )

    def _follow(self, _event: Any = None) -> None:
        session = self._session()
        # When the viewer is closed, Qt may have deleted them already.
        with suppress(RuntimeError):
            if session is not None and self.overview is not None:
                self.overview.follow()
            if session is not None and self.magnification is not None:
                self.magnification.follow(session.viewer, session.slide)


class _Resizing(QObject):
    """Keeps widgets at their places when the canvas is resized."""

    def __init__(self, native: QWidget, parts: tuple[Any, ...]) -> None:
        super().__init__(native)
        self._parts = parts
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._place)
        native.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Wait until the canvas has its size."""
        if event is not None and event.type() == QEvent.Type.Resize:
            self._timer.start(0)
        return False

    def _place(self) -> None:
        for part in self._parts:
            part.place()
        self._parts[0].follow()


def _thumbnail(levels: Any) -> Pixels | None:
    """Read a whole slide, small; None if its coarsest level is too large."""
    from PIL import Image

    coarsest = levels[-1]
    height, width = coarsest.shape[:2]
    if height * width > _MOST_PIXELS:
        return None
    pixels = np.ascontiguousarray(np.asarray(coarsest[:])[..., :3], np.uint8)
    # Twice as large as on the screen, for screens with more pixels.
    factor = max(max(height, width) // (2 * SIDE), 1)
    return np.asarray(Image.fromarray(pixels).reduce(factor))
