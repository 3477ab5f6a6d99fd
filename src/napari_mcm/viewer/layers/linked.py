"""Two registered sections in the two halves of the canvas, which show the same place.

napari has one camera, and its grid mode draws several groups of layers with it. Here one
section is one group. The layers of the other get an affine transform that lays it over the
first: turned, mirrored and stretched. What the registration's flow bends, no affine
transform can follow; it is chosen for the middle of the view, and anew where the view
comes to rest. Pixels, clicks and layers stay those of each slide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.viewer.layers.metadata import owner_of
from napari_mcm.viewer.layers.timers import single_shot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Layer

    from napari_mcm.core.registration import SectionMap
    from napari_mcm.viewer.layers.stack import LayerStack

REST_MS = 120
"""Time without movement after which the view is at rest, in milliseconds."""
OFF_PX = 1.5
"""Error in the middle of the view, in screen pixels, from which the transform is renewed."""

_GRID = {"stride": 1, "shape": (1, 2), "spacing": 2.0, "enabled": True}
"""napari's grid while the canvas is divided; the spacing is in screen pixels."""

Matrix = NDArray[np.float64]


class LinkedSections:
    """Shows two sections in two halves of the canvas, at corresponding places.

    Parameters
    ----------
    stack : LayerStack
        Layers of the viewer.
    fixed, moving : Layer
        Layers of the two slides; the first stays as it is, the second is laid over it.
    mapping : SectionMap
        Map from the first to the second.

    Attributes
    ----------
    pair : tuple of Layer
        Both slides: that of the left half, and that of the right one.
    mapping : SectionMap
        Map from the first to the second.
    is_on : bool
        Whether the canvas is divided.
    zoom : float
        Zoom of a half of the canvas that shows as much as the whole one did at zoom 1.
    """

    zoom = 0.5

    def __init__(
        self, stack: LayerStack, fixed: Layer, moving: Layer, mapping: SectionMap
    ) -> None:
        self._stack, self._viewer = stack, stack.viewer
        self.pair = fixed, moving
        self.mapping = mapping
        self.is_on = False
        self._before: dict[str, Any] = {}
        self._timer = single_shot(REST_MS, self._rested)

    def is_possible(self) -> bool:
        """Return whether both slides are open, and napari can divide the canvas."""
        grid = self._viewer.canvas.grid
        both = all(slide in self._stack for slide in self.pair)
        return both and hasattr(grid, "_viewbox_groups")

    def enter(self) -> None:
        """Divide the canvas, and lay the second section over the first."""
        if not self.is_on:
            self.is_on = True
            grid, camera = self._viewer.canvas.grid, self._viewer.scene.camera.events
            self._before = {name: getattr(grid, name) for name in _GRID}
            # napari divides by the number of layers; here the slide decides. The model
            # refuses new attributes, but Python looks here first.
            vars(grid)["_viewbox_groups"] = self._groups
            self._lay_over()
            for name, value in _GRID.items():
                setattr(grid, name, value)
            self._viewer.scene.camera.zoom *= self.zoom
            camera.center.connect(self._moved)
            camera.zoom.connect(self._moved)
        else:
            self._lay_over()

    def regroup(self) -> None:
        """Draw each layer in the half of its slide, after one changed its slide."""
        if self.is_on:
            self._viewer.canvas.grid.events.stride(value=1)

    def leave(self) -> None:
        """Give the canvas back, and put the second section where it was."""
        if not self.is_on:
            return
        self.is_on = False
        self._timer.stop()
        grid, camera = self._viewer.canvas.grid, self._viewer.scene.camera.events
        camera.center.disconnect(self._moved)
        camera.zoom.disconnect(self._moved)
        vars(grid).pop("_viewbox_groups", None)
        self._set_affine(np.eye(3))
        for name in reversed(_GRID):
            setattr(grid, name, self._before[name])
        self._viewer.scene.camera.zoom /= self.zoom

    def under_cursor(self) -> Layer:
        """Return the slide of the half of the canvas that the cursor is in."""
        box = self._viewer.cursor.viewbox
        return self.pair[1] if box is not None and box[1] == 1 else self.pair[0]

    def counterpart(
        self, slide: Layer, centre: Sequence[float]
    ) -> tuple[float, float] | None:
        """Return where a place of one slide lies on the other.

        Parameters
        ----------
        slide : Layer
            One of the pair.
        centre : sequence of float
            Place (y, x) in world units from the slide's own corner.

        Returns
        -------
        tuple of float or None
            Place (y, x) in world units from the other slide's corner; None where no place
            corresponds.
        """
        forwards = slide is self.pair[0]
        other = self.pair[1] if forwards else self.pair[0]
        mapping = self.mapping if forwards else self.mapping.inverse
        there = mapping.points(_apply(np.linalg.inv(_to_world(slide)), centre)[None])[0]
        if not np.isfinite(there).all():
            return None
        y, x = _apply(_to_world(other), there)
        return float(y), float(x)

    def _groups(self, layers: Sequence[Layer]) -> tuple[dict[int, int], list[int]]:
        """Return the half of each layer, and the halves that are not empty."""
        moving = self.pair[1]
        halves = {i: int(owner_of(one) is moving) for i, one in enumerate(layers)}
        return halves, sorted(
            {halves[i] for i, one in enumerate(layers) if one.visible}
        )

    def _centre(self) -> NDArray[np.float64]:
        """Return the middle of the view, (x, y) in level-0 pixels of the first slide."""
        centre = self._viewer.scene.camera.center[-2:]
        return _apply(np.linalg.inv(_to_world(self.pair[0])), centre)

    def _lay_over(self) -> None:
        fixed, moving = self.pair
        x, y = self._centre()
        linear = np.vstack([self.mapping.linear_at((float(x), float(y))), (0, 0, 1)])
        back = _to_world(fixed) @ np.linalg.inv(linear)
        self._set_affine(back @ np.linalg.inv(_to_world(moving)))

    def _set_affine(self, affine: Matrix) -> None:
        moving = self.pair[1]
        if moving in self._stack:
            for layer in (moving, *self._stack.view.layers_of(moving)):
                layer.affine = affine

    def _moved(self, _event: Any) -> None:
        self._timer.start()

    def _rested(self) -> None:
        """Renew the transform if it is off in the middle of the view."""
        if not self.is_on or not self.is_possible():
            return
        fixed, moving = self.pair
        centre = self._centre()
        there = self.mapping.points(centre[None])[0]
        if not np.isfinite(there).all():
            return
        affine = np.asarray(moving.affine.affine_matrix)
        shown = _apply(affine, _apply(_to_world(moving), there))
        off = np.linalg.norm(shown - _apply(_to_world(fixed), centre))
        if off * float(self._viewer.scene.camera.zoom) > OFF_PX:
            self._lay_over()


def _to_world(slide: Layer) -> Matrix:
    """Return the matrix from (x, y) in level-0 pixels to (y, x) in the slide's own world."""
    (height, width), (top, left) = slide.scale[-2:], slide.translate[-2:]
    # napari's origin is the centre of the first pixel, the slide's is its corner.
    return np.array(
        [
            (0.0, height, top - height / 2),
            (width, 0.0, left - width / 2),
            (0.0, 0.0, 1.0),
        ]
    )


def _apply(matrix: NDArray[Any], point: Any) -> NDArray[np.float64]:
    return np.asarray(matrix[:2, :2] @ np.asarray(point, float) + matrix[:2, 2])
