"""Markers on the patches of a query: squares for similar, crosses for dissimilar ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mcm.viewer.layers.metadata import on_slide, place

if TYPE_CHECKING:
    from napari.layers import Layer, Points

    from napari_mcm.core.grid import PatchGrid
    from napari_mcm.viewer.layers.stack import LayerStack

MARKER, TOP_PATCH = "query patch", "top patch"
"""Names of the layers of markers."""
LEAST_PX = 18
"""Smallest side of a marker on the screen, in pixels."""
LIKE, UNLIKE = "square", "x"
"""Symbols of similar and of dissimilar examples."""


class Markers:
    """A layer of markers in one viewer.

    Parameters
    ----------
    layers : LayerStack
        Layers of the viewer.
    name : str
        Name of the layer.
    """

    def __init__(self, layers: LayerStack, name: str = MARKER) -> None:
        self._layers, self._name = layers, name
        self._layer: Points | None = None
        self._side, self._scale = 1.0, 1.0
        # napari can limit the size on the canvas, too, but then borders fill the marker.
        layers.viewer.scene.camera.events.zoom.connect(self._fit)

    @property
    def layer(self) -> Points | None:
        """The layer; None if it does not exist."""
        return self._layers.alive(self._layer)

    def mark(
        self,
        slide: Layer,
        grid: PatchGrid,
        like: Sequence[int],
        unlike: Sequence[int] = (),
    ) -> None:
        """Frame patches, and cross dissimilar ones; replace all earlier markers.

        Parameters
        ----------
        slide : Layer
            Layer of the slide.
        grid : PatchGrid
            Grid of the patches.
        like, unlike : sequence of int
            Rows of the grid: patches to frame, and patches to cross.
        """
        if not (like or unlike):
            self.clear()
            return
        # Each marker is drawn twice, white inside black, to be visible on any colour.
        centres = np.repeat(grid.centres[[*like, *unlike]][:, ::-1] - 0.5, 2, axis=0)
        symbols = np.repeat([LIKE] * len(like) + [UNLIKE] * len(unlike), 2)
        self._side, self._scale = max(grid.patch_size_level0), float(slide.scale[-1])
        layer = self.layer
        if layer is None:
            self._layer = self._add_layer(slide, centres, symbols)
            return
        place(layer, slide)
        self._layers.view.give(layer, slide)
        if not self._has_symbols(layer, symbols):
            _replace(layer, centres, symbols)
        else:
            layer.data[:] = centres
            layer.refresh(extent=False, thumbnail=False, highlight=False)
        self._fit()

    def clear(self) -> None:
        """Remove all markers; the layer stays."""
        if (layer := self.layer) is not None and len(layer.data):
            _set_points(layer, np.empty((0, 2)))

    @staticmethod
    def _has_symbols(layer: Points, symbols: Any) -> bool:
        shown = [str(symbol) for symbol in layer.symbol]
        return shown == [str(symbol) for symbol in symbols]

    def _size(self) -> float:
        """Return the side of a marker in level-0 pixels.

        It is the side of a patch, but on the screen at least :data:`LEAST_PX`.
        """
        zoom = float(self._layers.viewer.scene.camera.zoom)
        return float(max(self._side, LEAST_PX / (zoom * self._scale)))

    def _fit(self, _event: Any = None) -> None:
        layer = self.layer
        if layer is not None and len(layer.size) and layer.size[0] != self._size():
            layer.size = self._size()

    def _add_layer(self, slide: Layer, centres: Any, symbols: Any) -> Points:
        from napari.layers import Points

        marker = Points(
            centres,
            name=self._name,
            symbol=symbols,
            size=self._size(),
            face_color=_faces(symbols),
            border_color=_per_pair(centres, ["white", "black"]),
            border_width=_per_pair(centres, [0.12, 0.06]),
            opacity=1.0,
            **on_slide(slide, "query"),
        )
        return self._layers.add(marker)


def _replace(layer: Points, centres: Any, symbols: Any) -> None:
    """Replace the markers by others, whose number and symbols may differ."""
    _set_points(layer, centres)
    layer.symbol = symbols
    layer.face_color = _faces(symbols)
    layer.border_color = _per_pair(centres, ["white", "black"])
    layer.border_width = _per_pair(centres, [0.12, 0.06])


def _set_points(layer: Points, centres: Any) -> None:
    """Set the centres (y, x) of the markers, whose number may differ."""
    layer.selected_data = set()
    layer.data = centres
    # napari does not slice a hidden layer again: it would refer to points that are gone.
    layer.set_view_slice()


def _faces(symbols: Any) -> list[str]:
    """Return face colours: frames are transparent, crosses consist of their face only."""
    return ["white" if symbol == UNLIKE else "transparent" for symbol in symbols]


def _per_pair(centres: Any, pair: list[Any]) -> list[Any]:
    return pair * (len(centres) // 2)
