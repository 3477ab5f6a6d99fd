"""Paints the points of a map into a picture: 100,000 take some milliseconds.

On a graphics card they would take less, but many windows are on a remote desktop, where
OpenGL draws in software: 100,000 points took 120 ms there by vispy, and 6 ms here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_mcm.viewer.atlas.map_view import MapView

_LARGER = 1.5
"""How much larger points on top are."""


class PointRaster:
    """Round points on a plain background.

    Points are painted in a random order, so that no colour covers all others; those that
    are selected come last, and are larger.
    """

    def __init__(self) -> None:
        self._places = np.empty((0, 2), np.float32)
        self._order = np.empty(0, np.intp)
        self._colours = np.empty(0, np.uint32)
        self._top = np.empty(0, np.intp)

    def __len__(self) -> int:
        return len(self._order)

    def show_points(self, places: NDArray[np.float32]) -> None:
        """Replace the points, which are black until they get colours.

        Parameters
        ----------
        places : ndarray of float32, shape (N, 2)
            Places (x, y) on the map.
        """
        self._order = np.random.default_rng(0).permutation(len(places))
        self._places = np.ascontiguousarray(places[self._order], np.float32)
        self._colours = np.full(len(places), 0xFF000000, np.uint32)
        self._top = np.empty(0, np.intp)

    def show_colours(
        self, colours: NDArray[np.uint8], top: NDArray[np.integer]
    ) -> None:
        """Colour the points.

        Parameters
        ----------
        colours : ndarray of uint8, shape (N, 3)
            RGB of each point.
        top : ndarray of int
            Points that are painted last, and larger.
        """
        self._colours = as_argb(colours)[self._order]
        chosen = np.zeros(len(self._order), bool)
        chosen[top] = True
        self._top = np.flatnonzero(chosen[self._order])

    def paint(
        self, view: MapView, background: tuple[int, int, int], radius: float
    ) -> NDArray[np.uint32]:
        """Paint what a view shows.

        Parameters
        ----------
        view : MapView
            Which part of the map is seen, and how large the picture is.
        background : tuple of int
            RGB, 0 to 255.
        radius : float
            Radius of a point in pixels.

        Returns
        -------
        ndarray of uint32, shape (height, width)
            ARGB of each pixel.
        """
        width, height = view.size
        colour = int(as_argb(np.asarray([background], np.uint8))[0])
        # A margin, so that a point at the border needs no test of each pixel.
        margin = int(np.ceil(_LARGER * radius)) + 1
        across = width + 2 * margin
        picture = np.full((height + 2 * margin) * across, colour, np.uint32)
        columns, rows = view.to_screen(self._places).astype(np.float32).T
        seen = np.flatnonzero(
            (columns >= -margin + 1)
            & (columns < width + margin - 1)
            & (rows >= -margin + 1)
            & (rows < height + margin - 1)
        )
        # Truncation rounds down: positions in the padded picture are positive.
        x = (columns[seen] + margin).astype(np.int32)
        y = (rows[seen] + margin).astype(np.int32)
        inner = (x >= margin) & (x < width + margin)
        inner &= (y >= margin) & (y < height + margin)
        seen, at = seen[inner], (y * across + x)[inner]
        colours = self._colours[seen]
        _stamp(picture, at, colours, _disc(radius, across))
        if len(self._top):
            on_top = np.zeros(len(self._places), bool)
            on_top[self._top] = True
            last = on_top[seen]
            _stamp(picture, at[last], colours[last], _disc(_LARGER * radius, across))
        return picture.reshape(-1, across)[margin:-margin, margin:-margin]


def as_argb(colours: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return opaque colours as one number each, as Qt's images hold them.

    Parameters
    ----------
    colours : ndarray of uint8, shape (N, 3)
        RGB.
    """
    red, green, blue = colours.astype(np.uint32).T
    return np.asarray(0xFF000000 | (red << 16) | (green << 8) | blue, np.uint32)


def _stamp(
    picture: NDArray[np.uint32],
    at: NDArray[np.integer],
    colours: NDArray[np.uint32],
    disc: list[int],
) -> None:
    for offset in disc:
        picture[at + offset] = colours


def _disc(radius: float, across: int) -> list[int]:
    """Return the positions of a disc's pixels from that of its centre."""
    reach = int(np.ceil(radius))
    steps = range(-reach, reach + 1)
    return [
        y * across + x for y in steps for x in steps if x * x + y * y <= radius * radius
    ]
