"""One drawing per movement of the view instead of two.

napari draws the canvas first and reads the pixels of the new view afterwards, so every
pan is drawn twice: once with the old pixels, which leave a blank border, and once with
the new ones. Here the pixels are read before the drawing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakSet, ref

if TYPE_CHECKING:
    from napari.components import ViewerModel

_attached: WeakSet[Any] = WeakSet()


def slice_before_drawing(viewer: ViewerModel) -> None:
    """Read the pixels of a moved view before it is drawn; once per viewer.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer. One without a window is left alone.
    """
    canvas = canvas_of(viewer)
    if canvas is None or canvas in _attached:
        return
    _attached.add(canvas)
    reference, before = ref(canvas), [_view_of(canvas)]

    def update(_event: Any) -> None:
        live = reference()
        view = None if live is None else _view_of(live)
        # A caption that changed is placed anew, which draws all again, too.
        placed = not getattr(live, "_needs_overlay_position_update", False)
        if live is not None and view and not (placed and view == before[0]):
            before[0] = view
            # What napari calls after the drawing, where it finds nothing more to do.
            live.on_draw(None)

    canvas.events.draw.connect(update, position="first")


def canvas_of(viewer: ViewerModel) -> Any:
    """Return napari's canvas of a viewer; None if the viewer has no window.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer.
    """
    window = getattr(viewer, "window", None)
    return getattr(getattr(window, "_qt_viewer", None), "canvas", None)


def _view_of(canvas: Any) -> tuple[float, ...]:
    """Return what of the world is in sight; empty in three dimensions."""
    side_by_side = canvas.viewer.canvas.grid.enabled and canvas.grid_views
    view = canvas.grid_views[0] if side_by_side else canvas.view
    seen = getattr(view.camera, "rect", None)
    return () if seen is None else (*seen.pos, *seen.size, *view.rect.size)
