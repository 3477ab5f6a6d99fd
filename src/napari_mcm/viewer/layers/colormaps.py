"""Colour maps for maps on stained tissue: the dissimilar fades out.

H&E is pink and violet, DAB is brown over pale blue: greens, cyans and yellows are left.
`mint` is the upper part of viridis (Smith and van der Walt 2015), without its violet, and
`frost` runs from navy to pale cyan. Both get lighter evenly, so that they read the same with
any colour vision (Nuñez et al. 2018, doi:10.1371/journal.pone.0199239).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari.utils.colormaps import Colormap

DEFAULT = "mint"
"""Name of the colour map of similarity maps."""
OWN = (DEFAULT, "frost")
"""Names of maps that are defined here."""
COLORMAPS = (*OWN, "cividis", "viridis", "gray")
"""Names to choose from, the best on tissue first; any other of napari's works, too."""
WHOLE = ("coolwarm", "PuOr", "turbo")
"""Maps whose low values do not fade: both of their ends mean something."""
FADED_UP_TO = 0.6
"""Where a faded map becomes opaque, as a share of its range."""
LESS, MORE = (1.0, 0.6, 0.0), (0.0, 0.65, 0.9)
"""RGB of the two ends of a difference."""
SHADE = (0.25, 0.25, 0.27)
"""RGB of what the spotlight dims towards: a grey, which also takes the colour away."""

SPOTLIGHT_FROM = 230 / 255
"""Where the spotlight's map becomes clear, as a share of its range: the threshold."""
LEAST_SHADE = 0.6
"""Opacity of the shade just below the threshold: what passes must stand out."""

FADING = " (fading)"
"""End of the names of maps whose low values are transparent."""

_STEPS = 256
_MINT = (0.35, 1.0)
# Navy over azure to pale cyan, with even steps of lightness and colour (CIEDE2000): RGB at
# 0, 1/8, ... 1.
_FROST = (
    (0.02, 0.07, 0.22),
    (0.07, 0.11, 0.47),
    (0.14, 0.17, 0.80),
    (0.07, 0.34, 0.87),
    (0.01, 0.47, 0.93),
    (0.12, 0.60, 0.96),
    (0.30, 0.75, 0.98),
    (0.42, 0.88, 1.00),
    (0.45, 0.99, 0.99),
)


def fade(position: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the opacity of a faded map.

    Parameters
    ----------
    position : ndarray
        Positions on the colour bar, 0 to 1.

    Returns
    -------
    ndarray
        0 at the lowest values, 1 from :data:`FADED_UP_TO` on, smooth in between.
    """
    x = np.clip(position / FADED_UP_TO, 0, 1)
    return np.asarray(x * x * (3 - 2 * x))


def dim(position: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the opacity of the shade under the spotlight.

    Parameters
    ----------
    position : ndarray
        Similarity, 0 at the lowest value of the colour range and 1 at the threshold.

    Returns
    -------
    ndarray
        1 at 0, falling to :data:`LEAST_SHADE` just below the threshold; 0 from there.
    """
    shade = 1 - (1 - LEAST_SHADE) * np.clip(position, 0, 1)
    return np.where(position < 1, shade, 0.0)


@lru_cache(maxsize=32)
def faded(name: str) -> Colormap:
    """Return a colour map whose low values are transparent.

    Parameters
    ----------
    name : str
        One of :data:`COLORMAPS`, or of napari's and matplotlib's names. Those in
        :data:`WHOLE` do not fade.

    Returns
    -------
    Colormap
        With the name of the map; an unknown name gives the default.
    """
    from napari.utils.colormaps import Colormap, ensure_colormap

    if name in WHOLE:
        return ensure_colormap(name)
    at = np.linspace(0, 1, _STEPS)
    colours = _colours(name, at)
    colours[:, 3] = fade(at)
    # Under a name of its own: napari keeps maps by name, and its own must stay.
    return Colormap(colours, name=name if name in OWN else name + FADING)


@lru_cache(maxsize=1)
def spotlight() -> Colormap:
    """Return the colour map of the spotlight: a shade, and nothing from the threshold.

    The threshold is at :data:`SPOTLIGHT_FROM`.
    """
    from napari.utils.colormaps import Colormap

    # A step earlier: between two steps the opacity falls, and what passes is clear.
    at = (np.arange(_STEPS) + 1) / (_STEPS - 1) / SPOTLIGHT_FROM
    shades = np.column_stack([np.tile(SHADE, (_STEPS, 1)), dim(at + 1e-9)])
    return Colormap(shades, name="spotlight")


@lru_cache(maxsize=1)
def diverging() -> Colormap:
    """Return the colour map of differences: amber below 0, blue above, 0 is clear.

    Amber and blue differ along the axis that red-green blindness leaves.
    """
    from napari.utils.colormaps import Colormap

    at = np.linspace(-1, 1, _STEPS)
    colours = np.where(at[:, None] < 0, LESS, MORE)
    opacity = fade(np.abs(at) * FADED_UP_TO)
    return Colormap(np.column_stack([colours, opacity]), name="amber-blue")


@lru_cache(maxsize=1)
def nothing() -> Colormap:
    """Return a colour map that draws nothing; outlines show the map instead."""
    from napari.utils.colormaps import Colormap

    return Colormap(np.zeros((2, 4)), name="none")


CLASSES, OF_CLASS = "classes ", "class "
"""Beginnings of names of maps whose colours follow: of all classes, or of one."""


def of_classes(colours: Sequence[str]) -> str:
    """Return the name of a map with one flat colour per class.

    Class i of n is the value (i + 0.5) / n.

    Parameters
    ----------
    colours : sequence of str
        ``#rrggbb`` of each class.
    """
    return CLASSES + " ".join(colours)


def of_class(colour: str) -> str:
    """Return the name of a map from nothing to the colour of a class."""
    return OF_CLASS + colour


def is_flat(name: str) -> bool:
    """Return whether values between those of a map's classes have no meaning."""
    return name.startswith(CLASSES)


@lru_cache(maxsize=64)
def named(name: str) -> Colormap:
    """Return a map by its name: one of classes, or of napari's and matplotlib's.

    Parameters
    ----------
    name : str
        As :func:`of_classes` and :func:`of_class` return it, or any known name.
    """
    from napari.utils.colormaps import Colormap, ensure_colormap

    if is_flat(name):
        colours = name.removeprefix(CLASSES).split()
        controls = np.linspace(0, 1, len(colours) + 1)
        return Colormap(colours, name=name, controls=controls, interpolation="zero")
    if name.startswith(OF_CLASS):
        colour = Colormap([name.removeprefix(OF_CLASS)] * 2).colors[0]
        steps = np.tile(colour, (_STEPS, 1))
        steps[:, 3] = np.linspace(0, 1, _STEPS)
        return Colormap(steps, name=name)
    if name.endswith(FADING):
        return faded(name.removesuffix(FADING))
    return ensure_colormap(name)


def _colours(name: str, at: NDArray[np.float64]) -> NDArray[np.float64]:
    if name == "frost":
        ends = np.asarray(_FROST)
        knots = np.linspace(0, 1, len(ends))
        rgb = [np.interp(at, knots, channel) for channel in ends.T]
        return np.column_stack([*rgb, np.ones(len(at))])
    from napari.utils.colormaps import ensure_colormap

    if name == DEFAULT:
        low, high = _MINT
        return np.array(ensure_colormap("viridis").map(low + at * (high - low)), float)
    try:
        known = ensure_colormap(name)
    except (KeyError, ValueError):
        return _colours(DEFAULT, at)
    return np.array(known.map(at), float)
