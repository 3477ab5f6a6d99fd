"""A lasso around patches that are to be labelled."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_mcm.viewer.layers.metadata import on_slide
from napari_mcm.viewer.layers.timers import single_shot

if TYPE_CHECKING:
    from napari.layers import Layer, Shapes

    from napari_mcm.core.heatmaps.examples import Polygon
    from napari_mcm.viewer.app.session import Session

NAME = "label region"
"""Name of the lasso's layer."""
EDGE_PX = 3
"""Width of the outline on the screen, in pixels."""
CHECK_MS = 60
"""Delay from a change of the layer to when it is looked at, in milliseconds."""


class LabelLasso:
    """Lets the user draw regions, and holds them until they are labelled.

    Parameters
    ----------
    session : Session
        Session of the viewer.

    Attributes
    ----------
    changed : Signal
        Emitted when a region was drawn, or all were removed.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        self._session, self._layers = session, session.layers
        self._layer: Shapes | None = None
        self._slide: Layer | None = None
        self._regions: tuple[Polygon, ...] = ()
        self._timer = single_shot(CHECK_MS, self._check)
        session.slide_chosen.connect(self.clear)

    @property
    def regions(self) -> tuple[Polygon, ...]:
        """Regions on the current slide that wait for a class, in level-0 pixels."""
        alive = self._layers.alive(self._layer) is not None
        here = self._slide is self._session.slide
        return self._regions if alive and here else ()

    @property
    def drawing(self) -> bool:
        """Whether the mouse draws."""
        layer = self._layers.alive(self._layer)
        return layer is not None and str(layer.mode) != "pan_zoom"

    def begin(self) -> None:
        """Start drawing a region; a second one is added to the first."""
        slide = self._session.slide
        if slide is None:
            return
        layer = self._ready(slide)
        self._layers.activate(layer)
        layer.mode = "add_polygon_lasso"

    def clear(self) -> None:
        """Remove all regions, and stop drawing."""
        self._timer.stop()
        layer = self._layers.alive(self._layer)
        had, self._regions = bool(self._regions), ()
        if layer is not None:
            if self._layers.active is layer and self._slide in self._layers:
                self._layers.activate(self._slide)
            self._layers.delete(layer)
            self._layer = None
        if had or layer is not None:
            self.changed.emit()

    def _ready(self, slide: Layer) -> Shapes:
        from napari.layers import Shapes

        layer = self._layers.alive(self._layer)
        if layer is not None and self._slide is slide:
            return layer
        self.clear()
        zoom = float(self._layers.viewer.scene.camera.zoom)
        with warnings.catch_warnings():
            # An empty layer has no shapes to colour.
            warnings.simplefilter("ignore", UserWarning)
            layer = Shapes(
                ndim=2,
                name=NAME,
                edge_color="white",
                face_color="#ffffff40",
                edge_width=EDGE_PX / zoom / float(slide.scale[-1]),
                **on_slide(slide, "region"),
            )
            self._layers.add(layer)
        layer.events.data.connect(self._touched)
        self._layer, self._slide = layer, slide
        return layer

    def _touched(self, _event: Any) -> None:
        self._timer.start()

    def _check(self) -> None:
        """Take the regions once the user has finished drawing."""
        layer = self._layers.alive(self._layer)
        if layer is None or self._slide is None:
            return
        if getattr(layer, "_is_creating", False) or getattr(layer, "_is_moving", False):
            self._timer.start()
            return
        # napari's origin is the centre of the first pixel, the slide's is its corner.
        regions = tuple(
            tuple(
                (float(x) + 0.5, float(y) + 0.5) for y, x in np.asarray(corners, float)
            )
            for corners in layer.data
            if len(corners) > 2
        )
        if regions != self._regions:
            self._regions = regions
            if regions:
                layer.mode = "pan_zoom"
                self._layers.activate(self._slide)
            self.changed.emit()
