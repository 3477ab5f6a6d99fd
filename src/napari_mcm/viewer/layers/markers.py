"""Frames around patches that were pointed at, told apart by their shape."""

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
LEAST_PX = 18
"""Least side of a marker on the screen, in pixels."""
LIKE, UNLIKE = "square", "x"
"""Symbols of patches to be like, and to be unlike."""


class Markers:
    """A layer of markers in one viewer.

    Parameters
    ----------
    layers : LayerStack
        Those of the viewer.
    name : str
        Of the layer.
    """

    def __init__(self, layers: LayerStack, name: str = MARKER) -> None:
        self._layers, self._name = layers, name
        self._layer: Points | None = None
        self._side, self._scale = 1.0, 1.0
        # napari's own least size on the canvas would let borders fill small markers.
        layers.viewer.scene.camera.events.zoom.connect(self._fit)

    @property
    def layer(self) -> Points | None:
        """The layer; None where there is none, or no longer."""
        return self._layers.alive(self._layer)

    def mark(
        self,
        slide: Layer,
        grid: PatchGrid,
        like: Sequence[int],
        unlike: Sequence[int] = (),
    ) -> None:
        """Frame patches, and cross out those to be unlike."""
        if not (like or unlike):
            self.clear()
            return
        # Each twice, white within black: one of them is seen on any colour.
        centres = np.repeat(grid.centres[[*like, *unlike]][:, ::-1] - 0.5, 2, axis=0)
        symbols = np.repeat([LIKE] * len(like) + [UNLIKE] * len(unlike), 2)
        self._side, self._scale = max(grid.patch_size_level0), float(slide.scale[-1])
        layer = self.layer
        if layer is None:
            self._layer = self._add(slide, centres, symbols)
            return
        place(layer, slide)
        if not self._same(layer, symbols):
            _set(layer, centres, symbols)
        else:
            layer.data[:] = centres
            layer.refresh(extent=False, thumbnail=False, highlight=False)
        self._fit()

    def clear(self) -> None:
        """Take all markers away."""
        if (layer := self.layer) is not None and len(layer.data):
            _move(layer, np.empty((0, 2)))

    @staticmethod
    def _same(layer: Points, symbols: Any) -> bool:
        shown = [str(symbol) for symbol in layer.symbol]
        return shown == [str(symbol) for symbol in symbols]

    def _size(self) -> float:
        """Return the side of a marker in level-0 pixels: the patch's, or what is seen."""
        zoom = float(self._layers.viewer.scene.camera.zoom)
        return float(max(self._side, LEAST_PX / (zoom * self._scale)))

    def _fit(self, _event: Any = None) -> None:
        layer = self.layer
        if layer is not None and len(layer.size) and layer.size[0] != self._size():
            layer.size = self._size()

    def _add(self, slide: Layer, centres: Any, symbols: Any) -> Points:
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


def _set(layer: Points, centres: Any, symbols: Any) -> None:
    """Show another number of markers, or other shapes."""
    _move(layer, centres)
    layer.symbol = symbols
    layer.face_color = _faces(symbols)
    layer.border_color = _per_pair(centres, ["white", "black"])
    layer.border_width = _per_pair(centres, [0.12, 0.06])


def _move(layer: Points, centres: Any) -> None:
    """Show markers elsewhere, and not as many as before."""
    layer.selected_data = set()
    layer.data = centres
    # napari leaves a hidden layer's slice as it was: of markers that are no longer there.
    layer.set_view_slice()


def _faces(symbols: Any) -> list[str]:
    """Leave what is framed to be seen; a cross would be lost without its face."""
    return ["white" if symbol == UNLIKE else "transparent" for symbol in symbols]


def _per_pair(centres: Any, pair: list[Any]) -> list[Any]:
    return pair * (len(centres) // 2)
