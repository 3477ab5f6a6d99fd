"""Clicks on the canvas, told apart from drags, in a slide's own pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

MOVED_PX = 4.0
"""From so many screen pixels on, a press that moved is a drag."""


class ClickListener:
    """Call back with level-0 coordinates when the user clicks on the canvas.

    Parameters
    ----------
    viewer : ViewerModel
        Whose canvas.
    slide : callable
        Gives the slide layer in whose pixels the click is told, or None. Only that
        layer converts it: others may have other units.
    on_click : callable
        Called with x and y in level-0 pixels, from the slide's upper left corner.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        slide: Callable[[], Layer | None],
        on_click: Callable[[float, float], None],
    ) -> None:
        self._viewer, self._slide, self._on_click = viewer, slide, on_click
        self._callback = self._pressed

    def attach(self) -> None:
        """Begin to listen."""
        if self._callback not in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.append(self._callback)

    def detach(self) -> None:
        """Stop listening."""
        if self._callback in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self._callback)

    def _pressed(self, viewer: ViewerModel, event: Any) -> Generator[None, None, None]:
        if event.button != 1 or "Alt" in event.modifiers or not self._exploring():
            return
        start, position = tuple(event.pos), tuple(event.position)
        yield
        while event.type == "mouse_move":
            if math.dist(start, event.pos) >= MOVED_PX:
                return
            yield
        slide = self._slide()
        if slide is not None:
            y, x = slide.world_to_data(position)[-2:]
            # napari counts from the centre of the first pixel, slides from its corner.
            self._on_click(float(x) + 0.5, float(y) + 0.5)

    def _exploring(self) -> bool:
        """Whether a click is nobody else's: no layer is being painted or edited."""
        active = self._viewer.layers.selection.active
        mode = "pan_zoom" if active is None else str(active.mode)
        return mode == "pan_zoom" and self._viewer.dims.ndisplay == 2
