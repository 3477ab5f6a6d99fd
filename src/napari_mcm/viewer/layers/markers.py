"""Markers on patches: solid frames for a query, a dashed frame where the view went.

Frames of similar examples have a filled square in them, those of dissimilar ones a cross.
Lines and symbols have a constant size on the screen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mcm.viewer.layers.metadata import on_slide, owner_of, place

if TYPE_CHECKING:
    from napari.layers import Layer, Points, Vectors

    from napari_mcm.core.grid import PatchGrid
    from napari_mcm.viewer.layers.stack import LayerStack

MARKER, TOP_PATCH = "query patch", "top patch"
"""Names of the layers of markers."""
LEAST_PX = 18
"""Smallest side of a marker on the screen, in pixels."""
FRAME, LIKE, UNLIKE = "square", "square", "x"
"""Symbols: the frame of an example, and what is in it if it is similar or dissimilar."""
HALO_PX, LINE_PX, EDGE_PX, DASH_PX = 5.0, 2.0, 1.5, 4.0
"""Widths of lines in screen pixels: the white of a frame, the black in its middle, the
edge of a symbol, and a dash."""
SYMBOL_PX = {LIKE: 9.0, UNLIKE: 15.0}
"""Sizes of symbols in screen pixels."""
DASHES = 5
"""Dashes along a side of a dashed frame, white and black in turns."""
SAME_ZOOM = 1.05
"""Change of zoom from which markers are adapted."""


class _Frames:
    """What the two kinds of frames share: their layer, and its size on the screen."""

    def __init__(self, layers: LayerStack, name: str) -> None:
        self._layers, self._name = layers, name
        self._layer: Any = None
        self._side, self._scale = 1.0, 1.0
        self._fitted = 0.0
        layers.viewer.scene.camera.events.zoom.connect(self._zoomed)

    @property
    def layer(self) -> Any:
        """The layer; None if it does not exist."""
        return self._layers.alive(self._layer)

    @property
    def _screen_px(self) -> float:
        """Side of a screen pixel in level-0 pixels."""
        zoom = float(self._layers.viewer.scene.camera.zoom)
        return 1 / (zoom * self._scale)

    def _size(self) -> float:
        """Return the side of a frame in level-0 pixels.

        It is the side of a patch, but on the screen at least :data:`LEAST_PX`.
        """
        return float(max(self._side, LEAST_PX * self._screen_px))

    def _measure(self, slide: Layer, grid: PatchGrid) -> None:
        self._side, self._scale = max(grid.patch_size_level0), float(slide.scale[-1])
        self._fitted = self._screen_px

    def _move_to(self, layer: Any, slide: Layer) -> None:
        """Give a layer of frames to a slide, whose own layers must not cover it."""
        place(layer, slide)
        if owner_of(layer) is not slide:
            self._layers.view.give(layer, slide)
            covers = [
                one for one in self._layers.view.layers_of(slide) if one is not layer
            ]
            self._layers.raise_over(layer, [slide, *covers])

    def _zoomed(self, _event: Any) -> None:
        now, layer = self._screen_px, self.layer
        if layer is None or not len(layer.data):
            return
        if not 1 / SAME_ZOOM < now / max(self._fitted, 1e-12) < SAME_ZOOM:
            self._fitted = now
            self._fit(layer)

    def _fit(self, layer: Any) -> None:
        """Adapt the layer to the zoom."""
        raise NotImplementedError


class Markers(_Frames):
    """A layer of markers of examples in one viewer.

    Parameters
    ----------
    layers : LayerStack
        Layers of the viewer.
    name : str
        Name of the layer.
    """

    def __init__(self, layers: LayerStack, name: str = MARKER) -> None:
        super().__init__(layers, name)
        self._is_wanted = True

    def show(self, on: bool) -> None:
        """Show the markers, or hide them and those to come."""
        self._is_wanted = on
        if (layer := self.layer) is not None:
            self._layers.view.set_visible(layer, on)

    def mark(
        self,
        slide: Layer,
        grid: PatchGrid,
        like: Sequence[int],
        unlike: Sequence[int] = (),
    ) -> None:
        """Frame patches, with a symbol in each; replace all earlier markers.

        Parameters
        ----------
        slide : Layer
            Layer of the slide.
        grid : PatchGrid
            Grid of the patches.
        like, unlike : sequence of int
            Rows of the grid: similar and dissimilar examples.
        """
        if not (like or unlike):
            self.clear()
            return
        # Each frame is drawn twice, black on white, to be visible on any colour.
        centres = np.repeat(grid.centres[[*like, *unlike]][:, ::-1] - 0.5, 3, axis=0)
        inner = [LIKE] * len(like) + [UNLIKE] * len(unlike)
        symbols = [symbol for one in inner for symbol in (FRAME, FRAME, one)]
        self._measure(slide, grid)
        layer = self.layer
        if layer is None:
            self._layer = self._add_layer(slide, centres, symbols)
            if not self._is_wanted:
                self.show(False)
            return
        self._move_to(layer, slide)
        if [str(symbol) for symbol in layer.symbol] != symbols:
            _set_points(layer, centres)
            layer.symbol = symbols
            layer.face_color, layer.border_color = _colours(len(symbols))
            self._fit(layer)
            return
        layer.data[:] = centres
        layer.refresh(extent=False, thumbnail=False, highlight=False)
        self._fit(layer)

    def clear(self) -> None:
        """Remove all markers; the layer stays."""
        if (layer := self.layer) is not None and len(layer.data):
            _set_points(layer, np.empty((0, 2)))

    def _fit(self, layer: Points) -> None:
        sizes, widths = self._sizes([str(symbol) for symbol in layer.symbol])
        if not np.array_equal(layer.size, sizes):
            layer.size = sizes
        if not np.array_equal(layer.border_width, widths):
            layer.border_width = widths

    def _sizes(self, symbols: list[str]) -> tuple[Any, Any]:
        """Return the sizes and the widths of borders, in level-0 pixels."""
        side, px = self._size(), self._screen_px
        inner = [SYMBOL_PX[symbol] * px for symbol in symbols[2::3]]
        sizes = [size for one in inner for size in (side, side, one)]
        widths = [HALO_PX * px, LINE_PX * px, EDGE_PX * px] * (len(symbols) // 3)
        return np.asarray(sizes), np.asarray(widths)

    def _add_layer(self, slide: Layer, centres: Any, symbols: list[str]) -> Points:
        from napari.layers import Points

        sizes, widths = self._sizes(symbols)
        faces, borders = _colours(len(symbols))
        marker = Points(
            centres,
            name=self._name,
            symbol=symbols,
            size=sizes,
            face_color=faces,
            border_color=borders,
            border_width=widths,
            border_width_is_relative=False,
            opacity=1.0,
            **on_slide(slide, "query"),
        )
        return self._layers.add(marker)


class DashedFrame(_Frames):
    """A layer with a dashed frame around the patch that the view moved to.

    Parameters
    ----------
    layers : LayerStack
        Layers of the viewer.
    name : str
        Name of the layer.
    """

    def __init__(self, layers: LayerStack, name: str = TOP_PATCH) -> None:
        super().__init__(layers, name)
        self._centre = np.zeros(2)

    def mark(self, slide: Layer, grid: PatchGrid, patch: int) -> None:
        """Frame a patch instead of the one before.

        Parameters
        ----------
        slide : Layer
            Layer of the slide.
        grid : PatchGrid
            Grid of the patch.
        patch : int
            Row of the grid.
        """
        self._measure(slide, grid)
        self._centre = grid.centres[patch][::-1] - 0.5
        layer = self.layer
        if layer is None:
            self._layer = self._add_layer(slide)
            return
        self._move_to(layer, slide)
        self._fit(layer)

    def clear(self) -> None:
        """Remove the frame; the layer stays."""
        if (layer := self.layer) is not None and len(layer.data):
            layer.data = np.empty((0, 2, 2))
            layer.set_view_slice()

    def _fit(self, layer: Vectors) -> None:
        dashes = self._dashes()
        if not np.array_equal(layer.data, dashes):
            layer.data = dashes
            layer.edge_color = _in_turns(len(dashes))
            # napari does not slice a hidden layer again.
            layer.set_view_slice()
        layer.edge_width = DASH_PX * self._screen_px

    def _dashes(self) -> Any:
        """Return starts and directions (y, x) of the dashes, clockwise."""
        half = self._size() / 2
        corners = np.asarray([(-1, -1), (-1, 1), (1, 1), (1, -1)]) * half
        sides = np.roll(corners, -1, axis=0) - corners
        along = np.arange(DASHES)[:, None] / DASHES
        starts = corners[:, None] + sides[:, None] * along
        steps = np.broadcast_to(sides[:, None] / DASHES, starts.shape)
        return np.stack([self._centre + starts, steps], axis=2).reshape(-1, 2, 2)

    def _add_layer(self, slide: Layer) -> Vectors:
        from napari.layers import Vectors

        dashes = self._dashes()
        frame = Vectors(
            dashes,
            name=self._name,
            edge_color=_in_turns(len(dashes)),
            edge_width=DASH_PX * self._screen_px,
            vector_style="line",
            opacity=1.0,
            **on_slide(slide, "query"),
        )
        return self._layers.add(frame)


def _set_points(layer: Points, centres: Any) -> None:
    """Set the centres (y, x) of the markers, whose number may differ."""
    layer.selected_data = set()
    layer.data = centres
    # napari does not slice a hidden layer again: it would refer to points that are gone.
    layer.set_view_slice()


def _colours(count: int) -> tuple[list[str], list[str]]:
    """Return the face and border colours of halo, frame and symbol of each example."""
    faces, borders = (
        ["transparent", "transparent", "white"],
        ["white", "black", "black"],
    )
    return faces * (count // 3), borders * (count // 3)


def _in_turns(count: int) -> list[str]:
    return [("white", "black")[number % 2] for number in range(count)]
