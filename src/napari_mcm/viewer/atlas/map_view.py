"""Which part of a 2-D map is seen: from places on the map to pixels, and back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

_MARGIN = 0.06
"""Empty space around the whole map, as a share of the widget's side."""


@dataclass(frozen=True)
class MapView:
    """A part of a map on a widget. Both axes have the same scale; y points up.

    Attributes
    ----------
    size : tuple of int
        Width and height of the widget in pixels.
    centre : tuple of float
        Place (x, y) in the middle.
    scale : float
        Pixels per unit of the map.
    """

    size: tuple[int, int] = (1, 1)
    centre: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0

    def to_screen(self, places: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the pixels (x, y) of places (N, 2)."""
        turned = np.asarray((self.scale, -self.scale), places.dtype)
        middle = np.asarray(self.size, places.dtype) / 2
        centre = np.asarray(self.centre, places.dtype)
        return np.asarray((places - centre) * turned + middle)

    def to_map(self, pixels: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the places (x, y) of pixels (N, 2)."""
        middle = np.asarray(self.size) / 2
        turned = np.asarray((self.scale, -self.scale))
        return np.asarray((np.asarray(pixels, np.float64) - middle) / turned) + (
            self.centre
        )

    def fitted(self, places: NDArray[np.floating]) -> MapView:
        """Return the view of all places.

        Parameters
        ----------
        places : ndarray, shape (N, 2)
            Places; of none, the view stays as it is.
        """
        if not len(places):
            return self
        low, high = places.min(axis=0), places.max(axis=0)
        span = np.maximum((high - low).astype(float), 1e-9)
        room = np.maximum(np.asarray(self.size) * (1 - 2 * _MARGIN), 1)
        middle = (low + high) / 2
        scale = float((room / span).min())
        return replace(self, centre=(float(middle[0]), float(middle[1])), scale=scale)

    def resized(self, width: int, height: int) -> MapView:
        """Return the view on a widget of another size, with as much of the map."""
        size = (max(width, 1), max(height, 1))
        grown = min(size) / min(self.size)
        return replace(self, size=size, scale=self.scale * grown)

    def moved(self, right: float, down: float) -> MapView:
        """Return the view after dragging the map by some pixels."""
        x, y = self.centre
        return replace(self, centre=(x - right / self.scale, y + down / self.scale))

    def zoomed(self, factor: float, at: tuple[float, float]) -> MapView:
        """Return a closer view, in which the place under a pixel stays there.

        Parameters
        ----------
        factor : float
            By how much larger everything becomes.
        at : tuple of float
            The pixel (x, y).
        """
        stays = self.to_map(np.asarray([at]))[0]
        closer = replace(self, scale=self.scale * factor)
        now = closer.to_map(np.asarray([at]))[0]
        x, y = np.asarray(self.centre) + stays - now
        return replace(closer, centre=(float(x), float(y)))
