"""The area above a similarity threshold: its size, its layer and its file."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_mcm.viewer.layers.metadata import on_slide, place, slide_of

if TYPE_CHECKING:
    from napari.layers import Labels, Layer

    from napari_mcm.core.heatmaps import Heatmap
    from napari_mcm.viewer.similarity.context import SimilarityContext

COLOUR = (1.0, 0.8, 0.0, 1.0)
FINEST = 2048
"""Most pixels of the layer along a side, unless there are more patches."""
STEPS = 40
"""A key moves the threshold by one of so many parts of the colours' range."""


class AreaController:
    """A threshold on the map that is looked at.

    Parameters
    ----------
    context : SimilarityContext
        The query and what belongs to it.

    Attributes
    ----------
    threshold : float
        A cosine.
    changed : Signal
        The threshold, or the map, is another one.
    """

    changed = Signal()

    def __init__(self, context: SimilarityContext) -> None:
        session = context.session
        self._context = context
        self._session = session
        self.threshold = float("nan")
        self._limits: tuple[float, float] | None = None
        self._layers: dict[int, Labels] = {}
        context.query_changed.connect(self._query_changed)
        context.keys.on("lower", partial(self.step, -1))
        context.keys.on("higher", partial(self.step, 1))
        context.keys.on("area", self.make_labels)

    @property
    def heatmap(self) -> Heatmap | None:
        """The similarity that is looked at."""
        shown = self._context.queries.shown_map()
        return shown[1] if shown else None

    @property
    def encoder(self) -> str:
        """Whose similarity it is; empty where there is one encoder only."""
        queries = self._context.queries
        shown, maps = queries.shown_map(), queries.maps()
        if shown is None or sum(one is not None for one in maps.values()) < 2:
            return ""
        loaded = self._session.features(shown[0])
        return loaded.label if loaded is not None else ""

    @property
    def area(self) -> tuple[float, int] | None:
        """Area in mm² and number of patches; None where there is no map."""
        heatmap = self.heatmap
        if heatmap is None:
            return None
        threshold = self.threshold
        return heatmap.area_mm2(threshold), heatmap.count_above(threshold)

    def use(self, threshold: float) -> None:
        """Choose the threshold."""
        if threshold != self.threshold:
            self.threshold = threshold
            self._redraw()
            self.changed.emit()

    def step(self, by: int) -> None:
        """Choose the next threshold, up or down."""
        if (heatmap := self.heatmap) is not None:
            low, high = heatmap.limits
            moved = self.threshold + by * (high - low) / STEPS
            self.use(min(max(moved, low), high))

    def make_labels(self) -> None:
        """Make what is alike enough a layer of labels."""
        slide, heatmap = self._session.slide, self.heatmap
        if slide is None or heatmap is None:
            self._session.report_error("There is no map yet: click on the slide")
        elif self._redraw() is None:
            self._add(slide, heatmap)

    def export(self, path: Path, then: Callable[[], None]) -> None:
        """Write what is alike enough to a file, in the background.

        Parameters
        ----------
        path : Path
            ``.geojson``, ``.ome.tif`` or ``.png``, as the command line writes it.
        then : callable
            Called when it is written.
        """
        from napari_mcm.core.heatmaps import write_heatmap

        heatmap = self.heatmap
        if heatmap is None:
            return
        kept, opened = heatmap.above(self.threshold), slide_of(self._session.slide)
        self._session.disk.submit(
            f"export {path}",
            lambda: write_heatmap(kept, path, opened),
            lambda _: then(),
            self._session.report_error,
        )

    def _query_changed(self) -> None:
        heatmap = self.heatmap
        if heatmap is not None and heatmap.limits != self._limits:
            # Three quarters up the colours: what is rather alike.
            low, high = self._limits = heatmap.limits
            if not low <= self.threshold <= high:
                self.threshold = low + 0.75 * (high - low)
        self._redraw()
        self.changed.emit()

    def _layer(self, slide: Layer) -> Labels | None:
        return self._session.layers.alive(self._layers.get(id(slide)))

    def _redraw(self) -> Labels | None:
        """Have the layer, where there is one, follow the threshold."""
        slide, heatmap = self._session.slide, self.heatmap
        layer = None if slide is None else self._layer(slide)
        if layer is None or slide is None:
            return None
        if heatmap is None:
            layer.data = np.zeros_like(layer.data)
            return layer
        place(layer, slide, heatmap.grid.origin, _step(heatmap))
        layer.data = _mask(heatmap, self.threshold)
        if layer.name != self._name(slide):
            layer.name = self._name(slide)
        return layer

    def _add(self, slide: Layer, heatmap: Heatmap) -> None:
        from napari.layers import Labels
        from napari.utils.colormaps import DirectLabelColormap

        layer = Labels(
            _mask(heatmap, self.threshold),
            name=self._name(slide),
            colormap=DirectLabelColormap(color_dict={None: COLOUR, 0: (0, 0, 0, 0)}),
            opacity=0.9,
            **on_slide(slide, "similar area", heatmap.grid.origin, _step(heatmap)),
        )
        # An outline, which leaves the map and the tissue to be seen.
        layer.contour = 1
        layers = self._session.layers
        self._layers[id(slide)] = layers.add(layer, over=layers.top_of(slide))

    def _name(self, slide: Layer) -> str:
        return f"similar ≥ {self.threshold:.3f}: {slide.name}"


def _mask(heatmap: Heatmap, threshold: float) -> NDArray[np.uint8]:
    with np.errstate(invalid="ignore"):
        above = np.asarray(heatmap.raster >= threshold, np.uint8)
    finer = _finer(heatmap)
    return np.repeat(np.repeat(above, finer, axis=0), finer, axis=1)


def _finer(heatmap: Heatmap) -> int:
    """Return the pixels along a patch's side, so that outlines can be thin."""
    return max(min(FINEST // max(heatmap.grid.shape), 4), 1)


def _step(heatmap: Heatmap) -> tuple[float, float]:
    """Return a pixel's width and height in level-0 pixels."""
    width, height = heatmap.grid.patch_size_level0
    return width / _finer(heatmap), height / _finer(heatmap)
