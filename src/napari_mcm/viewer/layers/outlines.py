"""Outlines of constant width on the screen, around any number of patches.

An outline is an image that exists only where it is looked at: napari asks a pyramid for
the pixels of the view, at a level near the screen's resolution, and they are computed from
the patches then. That costs the same for ten patches as for 100,000.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary, WeakSet

import numpy as np
from numpy.typing import NDArray

from napari_mcm.viewer.layers.level_array import CHUNK, index_parts
from napari_mcm.viewer.layers.metadata import CORNER, SlideMetadata, on_slide

if TYPE_CHECKING:
    from napari.layers import Image, Layer

    from napari_mcm.viewer.layers.stack import LayerStack

LINE_PX, CASING_PX = 2.0, 1.0
"""Width of the line, and of the dark casing on each side of it, in screen pixels."""
COLOURS = ((0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.75), (1.0, 0.85, 0.1, 1.0))
"""RGBA of nothing, casing and line: a pale line in a dark one shows on any tissue."""
FINER = 32
"""Pixels of the finest level along the side of a level-0 pixel."""
COARSEST = 512
"""Longest side of the coarsest level, in pixels."""
SAME_ZOOM = 1.15
"""Change of zoom from which outlines are computed anew."""

Pair = tuple[float, float]


class Outline:
    """The border of some patches of a grid, which can be painted at any resolution.

    Parameters
    ----------
    screen_px : callable
        Returns the side of a screen pixel in level-0 pixels.

    Attributes
    ----------
    mask : ndarray of bool, shape (rows, columns)
        The patches.
    origin, step : tuple of float
        Upper left corner (x, y) of the lattice, and the size of a patch, in level-0
        pixels.
    """

    def __init__(self, screen_px: Callable[[], float]) -> None:
        self.screen_px = screen_px
        self.mask = np.zeros((1, 1), bool)
        self.origin: Pair = (0.0, 0.0)
        self.step: Pair = (1.0, 1.0)

    def paint(
        self, x: NDArray[np.float64], y: NDArray[np.float64]
    ) -> NDArray[np.uint8]:
        """Return the outline at some pixels.

        Parameters
        ----------
        x : ndarray, shape (width,)
            Centres of the columns of pixels, in level-0 pixels.
        y : ndarray, shape (height,)
            Centres of the rows.

        Returns
        -------
        ndarray of uint8, shape (height, width)
            0 for nothing, 1 for the casing, 2 for the line.
        """
        screen_px = self.screen_px()
        # Finer than the finest level it would fall between the pixels.
        pixel = float(x[1] - x[0]) if len(x) > 1 else 0.0
        line = max(LINE_PX / 2 * screen_px, pixel / 2 * 1.001)
        casing = line + CASING_PX * screen_px
        reaches = (line, casing)
        columns, column = _runs(self._ends(x, 0, reaches))
        rows, row = _runs(self._ends(y, 1, reaches))
        # Each pixel of a run is alike: only the first is computed.
        inside = np.pad(self.mask, 1)
        painted = sum(
            _near_border(inside, columns[2 * i : 2 * i + 2], rows[2 * i : 2 * i + 2])
            for i in range(len(reaches))
        )
        return np.asarray(painted, np.uint8).take(column, axis=1).take(row, axis=0)

    def _ends(
        self, at: NDArray[np.float64], axis: int, reaches: Sequence[float]
    ) -> NDArray[np.intp]:
        """Return the cells at both ends of each reach around pixels, (4, n)."""
        return np.stack([self._cells(at + by, axis) for r in reaches for by in (-r, r)])

    def _cells(self, at: NDArray[np.float64], axis: int) -> NDArray[np.intp]:
        """Return positions in the padded mask; axis 0 is x, axis 1 is y."""
        count = self.mask.shape[1 - axis]
        cells = np.floor((at - self.origin[axis]) / self.step[axis])
        return (cells.clip(-1, count) + 1).astype(np.intp)


def _runs(cells: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the first column of each run of equal ones, and the run of each column."""
    new = np.ones(cells.shape[1], bool)
    new[1:] = (cells[:, 1:] != cells[:, :-1]).any(axis=0)
    return cells[:, new], np.cumsum(new) - 1


def _near_border(
    inside: NDArray[np.bool_], columns: NDArray[np.intp], rows: NDArray[np.intp]
) -> NDArray[np.uint8]:
    """Return where the four corners around pixels are not all in, nor all out.

    Corners, not circles, as outlines have right angles.

    Parameters
    ----------
    inside : ndarray of bool
        The patches, with a border of one.
    columns : ndarray, shape (2, width)
        Cells at the left and at the right.
    rows : ndarray, shape (2, height)
        Cells above and below.
    """
    above, below = inside[rows[0]], inside[rows[1]]
    # Bit 0: inside above and below. Bit 1: outside above and below.
    bits = (above & below).astype(np.uint8) | ((~(above | below)).astype(np.uint8) << 1)
    left, right = bits.take(columns[0], axis=1), bits.take(columns[1], axis=1)
    return np.asarray(left & right == 0, np.uint8)


class Painter(Protocol):
    """A picture that can be painted at any resolution, such as an :class:`Outline`."""

    def paint(
        self, x: NDArray[np.float64], y: NDArray[np.float64]
    ) -> NDArray[np.uint8]:
        """Return the picture at the centres of columns and rows of pixels."""


Picture = TypeVar("Picture", bound=Painter)


class OutlineLevel:
    """One level of an outline's pyramid, with the array interface that napari uses.

    Parameters
    ----------
    outline : Painter
        The outline.
    step : float
        Side of a pixel in level-0 pixels.
    size : tuple of int
        Width and height of the slide in level-0 pixels.
    """

    dtype = np.dtype(np.uint8)
    ndim = 2
    chunks = (CHUNK, CHUNK)

    def __init__(self, outline: Painter, step: float, size: tuple[int, int]) -> None:
        self._outline, self._step = outline, step
        self._whole: NDArray[np.uint8] | None = None
        self.shape = (-int(-size[1] // step), -int(-size[0] // step))

    @property
    def size(self) -> int:
        """Number of values."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        self._whole = self[:]
        return np.asarray(self._whole, dtype)

    def repaint(self) -> None:
        """Paint the level anew into the array that it was converted to last.

        napari converts the coarsest level once, and shows that array for ever.
        """
        if self._whole is not None:
            self._whole[:] = self[:]

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        parts, drop = index_parts(key, self.shape)
        y, x = (
            np.arange(*part.indices(length), dtype=np.float64)
            for part, length in zip(parts, self.shape, strict=True)
        )
        step = self._step
        return self._outline.paint((x + 0.5) * step, (y + 0.5) * step)[drop]


class PaintedLayers(Generic[Picture]):
    """Layers of pictures that are painted anew at each zoom, one per slide.

    Parameters
    ----------
    layers : LayerStack
        Layers of the viewer.
    """

    def __init__(self, layers: LayerStack) -> None:
        self._layers = layers
        self._made: WeakKeyDictionary[Layer, tuple[Image, Picture]] = (
            WeakKeyDictionary()
        )
        self._zoom = 0.0
        layers.viewer.scene.camera.events.zoom.connect(self._zoomed)
        layers.viewer.layers.events.removed.connect(self._removed)

    def layer_of(self, slide: Layer) -> Image | None:
        """Return the layer of a slide's picture; None if it does not exist."""
        made = self._made.get(slide)
        return self._layers.alive(made[0]) if made is not None else None

    def _screen_px(self, slide: Layer) -> Callable[[], float]:
        """Return what tells the side of a screen pixel in level-0 pixels."""
        scale, camera = float(slide.scale[-1]), self._layers.viewer.scene.camera
        return lambda: 1 / (scale * float(camera.zoom))

    def _add(
        self,
        slide: Layer,
        picture: Picture,
        kind: str,
        over: Layer | None = None,
        **options: Any,
    ) -> None:
        """Add the layer of a slide's picture; options are those of napari's image."""
        from napari.layers import Image

        about = SlideMetadata.of_layer(slide)
        assert about is not None
        layer = Image(
            make_levels(picture, about.size),
            multiscale=True,
            interpolation2d="nearest",
            blending="translucent",
            **options,
            **on_slide(slide, kind, CORNER, (1 / FINER, 1 / FINER)),
        )
        layer.events.visible.connect(repaint_shown)
        self._made[slide] = self._layers.add(layer, over=over), picture

    def _has_lines(self, _picture: Picture) -> bool:
        """Return whether there is anything that a zoom changes."""
        return True

    def _zoomed(self, _event: Any) -> None:
        """Paint pictures anew, as the width of lines in level-0 pixels has changed."""
        zoom = float(self._layers.viewer.scene.camera.zoom)
        if 1 / SAME_ZOOM < zoom / max(self._zoom, 1e-12) < SAME_ZOOM:
            return
        self._zoom = zoom
        for layer, picture in list(self._made.values()):
            if layer in self._layers and self._has_lines(picture):
                repaint(layer)

    def _removed(self, event: Any) -> None:
        made = self._made.pop(event.value, None)
        if made is not None:
            self._layers.delete_later([made[0]])


class OutlineLayers(PaintedLayers[Outline]):
    """The layers of outlines in one viewer, one per slide.

    Parameters
    ----------
    layers : LayerStack
        Layers of the viewer.
    name : str
        What is outlined; the layers' names begin with it.
    colours : sequence
        RGBA of nothing, of the casing and of the line.
    """

    def __init__(
        self,
        layers: LayerStack,
        name: str = "outline",
        colours: Sequence[Sequence[float]] = COLOURS,
    ) -> None:
        super().__init__(layers)
        self._name, self._colours = name, colours
        self._shown: WeakSet[Layer] = WeakSet()

    def draw(
        self,
        slide: Layer,
        mask: NDArray[np.bool_],
        origin: Pair,
        step: Pair,
        over: Layer | None = None,
    ) -> None:
        """Outline some patches of a slide.

        Parameters
        ----------
        slide : Layer
            Layer of the slide.
        mask : ndarray of bool, shape (rows, columns)
            The patches.
        origin, step : tuple of float
            Upper left corner (x, y) of the lattice, and the size of a patch, in level-0
            pixels.
        over : Layer, optional
            Layer that a new one goes above; by default it goes on top.
        """
        if self.layer_of(slide) is None:
            self._make(slide, over)
            self._shown.discard(slide)
        layer, outline = self._made[slide]
        outline.mask, outline.origin, outline.step = mask, origin, step
        if slide not in self._shown:
            # Only now: a layer that the user hides later stays hidden.
            self._shown.add(slide)
            self._layers.view.set_visible(layer, True)
        repaint(layer)

    def hide(self, slide: Layer) -> None:
        """Hide the outline of a slide."""
        layer = self.layer_of(slide)
        if layer is not None and slide in self._shown:
            self._layers.view.set_visible(layer, False)
        self._shown.discard(slide)

    def _make(self, slide: Layer, over: Layer | None) -> None:
        from napari.utils.colormaps import Colormap

        self._add(
            slide,
            Outline(self._screen_px(slide)),
            "outline",
            over,
            name=f"{self._name}: {slide.name}",
            colormap=Colormap(self._colours, name=self._name),
            contrast_limits=(0, 2),
        )


def make_levels(outline: Painter, size: tuple[int, int]) -> list[OutlineLevel]:
    """Return the pyramid of an outline, the finest level first.

    Parameters
    ----------
    outline : Painter
        The outline.
    size : tuple of int
        Width and height of the slide in level-0 pixels.
    """
    levels = [OutlineLevel(outline, 1 / FINER, size)]
    while max(levels[-1].shape) > COARSEST:
        step = 2.0 ** len(levels) / FINER
        levels.append(OutlineLevel(outline, step, size))
    return levels


def repaint(layer: Image) -> None:
    """Paint the layer of an outline anew, at the zoom of now.

    Parameters
    ----------
    layer : Image
        A layer of levels as :func:`make_levels` returns them.
    """
    if layer.visible:
        layer.data[-1].repaint()
        layer.refresh(extent=False, thumbnail=False, highlight=False)


def repaint_shown(event: Any) -> None:
    """Paint a layer whose eye was opened: zoom or picture changed while it was hidden."""
    repaint(event.source)
