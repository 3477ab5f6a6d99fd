"""What of a slide is in sight, in the slide's own pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.viewer.layers.early_slicing import canvas_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer


def is_plain(viewer: ViewerModel) -> bool:
    """Return whether the view is two-dimensional, with its axes in their order.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer.
    """
    dims = viewer.dims
    in_order = tuple(dims.order) == tuple(range(dims.ndim))
    return bool(dims.ndisplay == 2 and in_order)


def flipped(viewer: ViewerModel) -> tuple[bool, bool]:
    """Return whether the view is mirrored vertically, and horizontally.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer.
    """
    down, right = (str(getattr(o, "value", o)) for o in _orientation(viewer))
    return down == "up", right == "left"


def _orientation(viewer: ViewerModel) -> tuple[Any, Any]:
    return viewer.scene.camera.orientation[-2:]


def seen_corners(viewer: ViewerModel, slide: Layer) -> NDArray[np.float64]:
    """Return the corners of the view, which is a parallelogram on a rotated slide.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer; with several views side by side, all show the same place.
    slide : Layer
        Layer of a slide.

    Returns
    -------
    ndarray of float64, shape (4, 2)
        Corners (x, y) in level-0 pixels, in their order around the view.
    """
    camera = viewer.scene.camera
    width, height = _view_size(viewer)
    half = np.array([height, width]) / 2 / camera.zoom
    signs = np.array([(-1, -1), (-1, 1), (1, 1), (1, -1)])
    world = np.asarray(camera.center[-2:]) + signs * half
    data = [slide.world_to_data(tuple(corner))[-2:] for corner in world]
    return np.asarray(data, float)[:, ::-1] + 0.5


def _view_size(viewer: ViewerModel) -> tuple[float, float]:
    """Return width and height of one view on the screen, in pixels."""
    canvas = canvas_of(viewer)
    if canvas is None:
        height, width = viewer.canvas.size
        return width, height
    if viewer.canvas.grid.enabled and canvas.grid_views:
        width, height = canvas.grid_views[0].rect.size
        return width, height
    return canvas.native.width(), canvas.native.height()


def centre_on(viewer: ViewerModel, slide: Layer, x: float, y: float) -> None:
    """Centre the view on a point of a slide.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer.
    slide : Layer
        Layer of a slide.
    x, y : float
        The point in level-0 pixels.
    """
    viewer.scene.camera.center = tuple(slide.data_to_world((y - 0.5, x - 0.5))[-2:])
