"""Clicks and cursor movements on the canvas, in level-0 pixels of a slide."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Literal

from napari_mcm.viewer.layers.pointer import NOWHERE, locate_pointer

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

MOVED_PX = 4.0
"""Distance in screen pixels from which a press with movement is a drag, not a click."""

ClickMode = Literal["new", "like", "unlike"]
"""A plain click, one with Shift (a similar example), and one with Ctrl (dissimilar)."""


class ClickListener:
    """Calls functions with level-0 coordinates when the user clicks on the canvas.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer.
    slide : callable
        Called with a world position; returns the layer of the slide that is seen there,
        whose pixels are used, or None.
    on_click : callable
        Called with x and y in level-0 pixels, from the slide's upper left corner, and
        with the mode of the click.
    on_move : callable
        Called with x and y while the cursor is followed.
    on_press : callable, optional
        Called like `on_click`, but earlier: when the button goes down. The press may
        still become a drag.
    on_drag : callable, optional
        Called without arguments when a press becomes a drag.
    choose : callable, optional
        Called with the slide's layer before `on_click` and `on_move`.
    on_lost : callable, optional
        Called without arguments when the cursor is followed no longer, and is not over
        the canvas.

    Attributes
    ----------
    following : bool
        Whether the cursor is followed.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        slide: Callable[[Any], Layer | None],
        on_click: Callable[[float, float, ClickMode], None],
        on_move: Callable[[float, float], None],
        on_press: Callable[[float, float, ClickMode], None] | None = None,
        on_drag: Callable[[], None] | None = None,
        choose: Callable[[Layer], None] | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        self._viewer, self._slide = viewer, slide
        self._on_click, self._on_move, self._on_press = on_click, on_move, on_press
        self._on_drag, self._choose, self._on_lost = on_drag, choose, on_lost
        self._callback, self._hover = self._pressed, self._moved
        self._pans = True
        self.following = False

    def attach(self) -> None:
        """Start listening to the canvas."""
        if self._callback not in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.append(self._callback)
            self._viewer.mouse_move_callbacks.append(self._hover)

    def detach(self) -> None:
        """Stop listening to the canvas."""
        self.follow_cursor(False)
        if self._callback in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self._callback)
            self._viewer.mouse_move_callbacks.remove(self._hover)

    def follow_cursor(self, on: bool) -> None:
        """Start or stop following the cursor; meanwhile dragging does not pan.

        Stopping counts as a click at the cursor, if it is over the canvas.
        """
        if on == self.following or (on and not self._can_click()):
            return
        self.following, camera = on, self._viewer.scene.camera
        if on:
            self._pans, camera.mouse_pan = camera.mouse_pan, False
        else:
            camera.mouse_pan = self._pans
        if (position := locate_pointer(self._viewer)) is None:
            self._viewer.status = NOWHERE
            if not on and self._on_lost is not None:
                self._on_lost()
        elif on:
            self._notify(self._on_move, position)
        else:
            self._notify(self._on_click, position, "new")

    def click_center(self, mode: ClickMode) -> None:
        """Act as if the user clicked in the centre of the view."""
        if self._can_click():
            self._notify(self._on_click, self._viewer.scene.camera.center[-2:], mode)

    def _moved(self, viewer: ViewerModel, event: Any) -> None:
        if self.following:
            self._notify(self._on_move, event.position)

    def _pressed(self, viewer: ViewerModel, event: Any) -> Generator[None, None, None]:
        if event.button != 1 or "Alt" in event.modifiers or not self._can_click():
            return
        start, position = tuple(event.pos), tuple(event.position)
        mode = _click_mode(event.modifiers)
        if self._on_press is not None and not self.following:
            self._notify(self._on_press, position, mode)
        yield
        while event.type == "mouse_move":
            if self.following:
                self._notify(self._on_move, event.position)
            elif math.dist(start, event.pos) >= MOVED_PX:
                self._dragged()
                return
            yield
        if self.following:
            self._dragged()
        else:
            self._notify(self._on_click, position, mode)

    def _dragged(self) -> None:
        if self._on_drag is not None:
            self._on_drag()

    def _notify(
        self, listener: Callable[..., None], position: Any, *mode: ClickMode
    ) -> None:
        slide = self._slide(position)
        if slide is None:
            return
        if self._choose is not None and listener is not self._on_press:
            self._choose(slide)
        y, x = slide.world_to_data(tuple(position))[-2:]
        # napari's origin is the centre of the first pixel, the slide's is its corner.
        listener(float(x) + 0.5, float(y) + 0.5, *mode)

    def _can_click(self) -> bool:
        """Return whether clicks are free: no layer is being painted or edited."""
        active = self._viewer.layers.selection.active
        mode = "pan_zoom" if active is None else str(active.mode)
        return mode == "pan_zoom" and self._viewer.dims.ndisplay == 2


def _click_mode(modifiers: Any) -> ClickMode:
    if "Control" in modifiers or "Meta" in modifiers:
        return "unlike"
    return "like" if "Shift" in modifiers else "new"
