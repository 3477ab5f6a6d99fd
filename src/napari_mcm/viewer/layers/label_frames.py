"""Frames around labelled patches, of constant width on the screen, with keys as digits.

As outlines are, see :mod:`~napari_mcm.viewer.layers.outlines`, frames are an image that
exists only where it is looked at: a few labels cost the same as thousands that are out of
sight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.viewer.layers.outlines import PaintedLayers, repaint

if TYPE_CHECKING:
    from napari.layers import Layer


LINE_PX, CASING_PX = 3.0, 1.0
"""Width of a frame, and of the dark casing on both of its sides, in screen pixels."""
LEAST_PX, FILLED_PX = 7.0, 14.0
"""Smallest side of a label on the screen, and the side from which it is a frame."""
DOT_PX, LARGE_PX = 2.0, 20.0
"""Side of a dot of a digit, and from which side inside of a frame it is in the corner;
else it is in the middle, as large as fits."""
NOTHING, CASING, DIGIT, FIRST_CLASS = range(4)
"""What a pixel can be; from the last one on, a class."""
MOST_CLASSES = 100

_COLOURS = ((0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.8), (1.0, 1.0, 1.0, 1.0))
# Five rows of three dots, as bits from the left.
_DOTS = {
    1: (2, 6, 2, 2, 7),
    2: (7, 1, 7, 4, 7),
    3: (7, 1, 7, 1, 7),
    4: (5, 5, 7, 1, 1),
    5: (7, 4, 7, 1, 7),
    6: (7, 4, 7, 5, 7),
    7: (7, 1, 2, 2, 2),
    8: (7, 5, 7, 5, 7),
    9: (7, 5, 7, 1, 7),
}


def _glyph(key: int) -> NDArray[np.uint8]:
    """Return a digit on a dark ground, (7, 5)."""
    dots = np.asarray([[row >> bit & 1 for bit in (2, 1, 0)] for row in _DOTS[key]])
    painted = np.where(dots, DIGIT, CASING).astype(np.uint8)
    return np.pad(painted, 1, constant_values=CASING)


_GLYPHS = {key: _glyph(key) for key in _DOTS}
_INWARDS = np.asarray([1.0, 1.0, -1.0, -1.0])


@dataclass(frozen=True, eq=False)
class FramedLabels:
    """The labels of one slide, ready to be painted.

    Attributes
    ----------
    boxes : ndarray of float64, shape (n, 4)
        Left, top, right and bottom in level-0 pixels.
    classes : ndarray of int64, shape (n,)
        Class of each, an index into `colours` and `keys`.
    colours : tuple of str
        ``#rrggbb`` of each class.
    keys : tuple of int or None
        Digit of each class.
    """

    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    colours: tuple[str, ...]
    keys: tuple[int | None, ...]


NO_LABELS = FramedLabels(np.empty((0, 4)), np.empty(0, np.int64), (), ())


class FramePicture:
    """A picture of frames that can be painted at any resolution.

    Parameters
    ----------
    screen_px : callable
        Returns the side of a screen pixel in level-0 pixels.

    Attributes
    ----------
    labels : FramedLabels
        What is painted.
    """

    def __init__(self, screen_px: Callable[[], float]) -> None:
        self._screen_px = screen_px
        self.labels = NO_LABELS

    def paint(
        self, x: NDArray[np.float64], y: NDArray[np.float64]
    ) -> NDArray[np.uint8]:
        """Return the frames at some pixels.

        Parameters
        ----------
        x : ndarray, shape (width,)
            Centres of the columns of pixels, in level-0 pixels.
        y : ndarray, shape (height,)
            Centres of the rows.

        Returns
        -------
        ndarray of uint8, shape (height, width)
            Codes c as 2 c + 1, see :func:`colormap`.
        """
        picture = np.full((len(y), len(x)), NOTHING, np.uint8)
        if len(x) and len(y) and len(self.labels.boxes):
            self._paint(picture, x, y)
        return 2 * picture + 1

    def _paint(
        self,
        picture: NDArray[np.uint8],
        x: NDArray[np.float64],
        y: NDArray[np.float64],
    ) -> None:
        px = self._screen_px()
        pixel = float(x[1] - x[0]) if len(x) > 1 else px
        boxes, classes = self._in_sight(px, x, y)
        # What is finer than a pixel of the picture would fall between pixels.
        casing, line = max(CASING_PX * px, pixel), max(LINE_PX * px, pixel)
        insets = np.cumsum([0, casing, line, casing])
        columns = _edges(x, boxes[:, 0], boxes[:, 2], insets)
        rows = _edges(y, boxes[:, 1], boxes[:, 3], insets)
        sides = (boxes[:, 2] - boxes[:, 0]) / px
        for number, code in enumerate(classes + FIRST_CLASS):
            c, r = columns[number], rows[number]
            picture[r[0] : r[7], c[0] : c[7]] = CASING
            picture[r[1] : r[6], c[1] : c[6]] = code
            if sides[number] < FILLED_PX:
                continue
            picture[r[2] : r[5], c[2] : c[5]] = CASING
            picture[r[3] : r[4], c[3] : c[4]] = NOTHING
            key = self.labels.keys[classes[number]]
            if key is not None:
                inside = boxes[number] + insets[2] * _INWARDS
                _write(picture, x, y, inside, key, px)

    def _in_sight(
        self, px: float, x: NDArray[np.float64], y: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return the labels that touch the picture, the largest first."""
        boxes = self.labels.boxes
        size = boxes[:, 2:] - boxes[:, :2]
        more = np.maximum(LEAST_PX * px - size, 0) / 2
        grown = np.concatenate([boxes[:, :2] - more, boxes[:, 2:] + more], axis=1)
        low, high = np.asarray([x[0], y[0]]), np.asarray([x[-1], y[-1]])
        seen = np.all((grown[:, 2:] >= low) & (grown[:, :2] <= high), axis=1)
        order = np.flatnonzero(seen)
        order = order[np.argsort(-size[order].prod(axis=1), kind="stable")]
        return grown[order], self.labels.classes[order]


def _edges(
    at: NDArray[np.float64],
    first: NDArray[np.float64],
    last: NDArray[np.float64],
    insets: NDArray[np.float64],
) -> NDArray[np.intp]:
    """Return the pixels where casing, line, casing and inside begin and end, (n, 8)."""
    ends = np.concatenate(
        [first[:, None] + insets, last[:, None] - insets[::-1]], axis=1
    )
    return np.searchsorted(at, ends)


def _write(
    picture: NDArray[np.uint8],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    inside: NDArray[np.float64],
    key: int,
    px: float,
) -> None:
    """Paint a digit into a frame, whose inside is left, top, right and bottom."""
    glyph = _GLYPHS[key]
    size = np.asarray(glyph.shape[::-1])
    room = inside[2:] - inside[:2]
    if room.min() <= 0:
        return
    dot = min(DOT_PX * px, float((room / size).min()))
    corner = inside[:2]
    if room.min() < LARGE_PX * px:
        corner = corner + (room - size * dot) / 2
    first = np.searchsorted(x, corner[0]), np.searchsorted(y, corner[1])
    end = corner + size * dot
    last = np.searchsorted(x, end[0]), np.searchsorted(y, end[1])
    column = ((x[first[0] : last[0]] - corner[0]) // dot).astype(int)
    row = ((y[first[1] : last[1]] - corner[1]) // dot).astype(int)
    cells = np.ix_(row.clip(0, size[1] - 1), column.clip(0, size[0] - 1))
    picture[first[1] : last[1], first[0] : last[0]] = glyph[cells]


def colormap(colours: Sequence[str]) -> Any:
    """Return the colours of what :class:`FramePicture` paints, and their limits.

    Parameters
    ----------
    colours : sequence of str
        ``#rrggbb`` of each class.

    Returns
    -------
    tuple
        A napari colour map, and contrast limits.
    """
    from napari.utils.colormaps import Colormap

    values = [*_COLOURS, *(rgba(colour) for colour in colours)]
    # Without this, two colours would be a gradient in napari's controls.
    controls = np.linspace(0, 1, len(values) + 1)
    name = f"labels {' '.join(colours)}"
    made = Colormap(values, name=name, controls=controls, interpolation="zero")
    return made, (0, 2 * len(values))


def rgba(colour: str) -> tuple[float, float, float, float]:
    """Return a colour ``#rrggbb`` as numbers from 0 to 1."""
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return red, green, blue, 1.0


class LabelFrames(PaintedLayers[FramePicture]):
    """The layers of labels in one viewer, one per slide.

    Parameters
    ----------
    layers : LayerStack
        Layers of the viewer.
    """

    def show(self, slide: Layer, labels: FramedLabels) -> None:
        """Frame the labels of a slide, and no others.

        Parameters
        ----------
        slide : Layer
            Layer of the slide.
        labels : FramedLabels
            Its labels; without any, no layer is made.
        """
        if self.layer_of(slide) is None:
            if not len(labels.boxes):
                return
            self._make(slide, labels)
            return
        layer, picture = self._made[slide]
        colours = picture.labels.colours
        picture.labels = labels
        if colours != labels.colours:
            layer.colormap, layer.contrast_limits = colormap(labels.colours)
        repaint(layer)

    def _make(self, slide: Layer, labels: FramedLabels) -> None:
        picture = FramePicture(self._screen_px(slide))
        picture.labels = labels
        colours, limits = colormap(labels.colours)
        self._add(
            slide,
            picture,
            "patch labels",
            name=f"labels: {slide.name}",
            colormap=colours,
            contrast_limits=limits,
        )

    def _has_lines(self, picture: FramePicture) -> bool:
        return bool(len(picture.labels.boxes))
