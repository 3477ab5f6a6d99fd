"""The mouse on the canvas, clicks told apart from drags, in a slide's own pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

MOVED_PX = 4.0
"""From so many screen pixels on, a press that moved is a drag."""

ClickMode = Literal["new", "like", "unlike"]
"""A plain click, one with Shift, and one with Ctrl."""


class ClickListener:
    """Call back with level-0 coordinates when the user clicks on the canvas.

    Parameters
    ----------
    viewer : ViewerModel
        Whose canvas.
    slide : callable
        Gives the slide layer in whose pixels clicks are given, or None. Only that
        layer converts it: others may have other units.
    on_click : callable
        Called with x and y in level-0 pixels, from the slide's upper left corner, and
        with the manner of the click.
    on_move : callable
        Called with x and y while the cursor is followed.
    on_press : callable, optional
        Called as `on_click` is, before it: when the button goes down, which may yet
        become a drag.
    on_drag : callable, optional
        Called without arguments when a press turns out to be no click.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        slide: Callable[[], Layer | None],
        on_click: Callable[[float, float, ClickMode], None],
        on_move: Callable[[float, float], None],
        on_press: Callable[[float, float, ClickMode], None] | None = None,
        on_drag: Callable[[], None] | None = None,
    ) -> None:
        self._viewer, self._slide = viewer, slide
        self._on_click, self._on_move, self._on_press = on_click, on_move, on_press
        self._on_drag = on_drag
        self._callback, self._hover = self._pressed, self._moved
        self._pans = True
        self.following = False

    def attach(self) -> None:
        """Begin to listen."""
        if self._callback not in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.append(self._callback)
            self._viewer.mouse_move_callbacks.append(self._hover)

    def detach(self) -> None:
        """Stop listening."""
        self.connect(False)
        if self._callback in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self._callback)
            self._viewer.mouse_move_callbacks.remove(self._hover)

    def connect(self, on: bool) -> None:
        """Begin or end to tell of every movement; dragging does not pan meanwhile."""
        if on == self.following or (on and not self._exploring()):
            return
        self.following, camera = on, self._viewer.scene.camera
        if on:
            self._pans, camera.mouse_pan = camera.mouse_pan, False
            self._tell(self._on_move, self._viewer.cursor.position)
        else:
            camera.mouse_pan = self._pans
            self._tell(self._on_click, self._viewer.cursor.position, "new")

    def middle(self, manner: ClickMode) -> None:
        """Take the middle of the view for the place that is meant."""
        if self._exploring():
            self._tell(self._on_click, self._viewer.scene.camera.center[-2:], manner)

    def _moved(self, viewer: ViewerModel, event: Any) -> None:
        if self.following:
            self._tell(self._on_move, event.position)

    def _pressed(self, viewer: ViewerModel, event: Any) -> Generator[None, None, None]:
        if event.button != 1 or "Alt" in event.modifiers or not self._exploring():
            return
        start, position = tuple(event.pos), tuple(event.position)
        manner = _manner(event.modifiers)
        if self._on_press is not None and not self.following:
            self._tell(self._on_press, position, manner)
        yield
        while event.type == "mouse_move":
            if self.following:
                self._tell(self._on_move, event.position)
            elif math.dist(start, event.pos) >= MOVED_PX:
                self._dragged()
                return
            yield
        if self.following:
            self._dragged()
        else:
            self._tell(self._on_click, position, manner)

    def _dragged(self) -> None:
        if self._on_drag is not None:
            self._on_drag()

    def _tell(
        self, listener: Callable[..., None], position: Any, *manner: ClickMode
    ) -> None:
        slide = self._slide()
        if slide is None:
            return
        y, x = slide.world_to_data(tuple(position))[-2:]
        # napari counts from the centre of the first pixel, slides from its corner.
        listener(float(x) + 0.5, float(y) + 0.5, *manner)

    def _exploring(self) -> bool:
        """Whether a click is nobody else's: no layer is being painted or edited."""
        active = self._viewer.layers.selection.active
        mode = "pan_zoom" if active is None else str(active.mode)
        return mode == "pan_zoom" and self._viewer.dims.ndisplay == 2


def _manner(modifiers: Any) -> ClickMode:
    if "Control" in modifiers or "Meta" in modifiers:
        return "unlike"
    return "like" if "Shift" in modifiers else "new"
