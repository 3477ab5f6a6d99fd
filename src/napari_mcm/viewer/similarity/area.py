"""The area of a slide above a similarity threshold: its size, layer, export and result."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_mcm.core.heatmaps.query import fingerprint_of
from napari_mcm.core.project import ResultRow
from napari_mcm.viewer.layers.metadata import on_slide, place, slide_of
from napari_mcm.viewer.project.controller import project_of
from napari_mcm.viewer.project.results import results_of
from napari_mcm.viewer.similarity.query_text import count_examples

if TYPE_CHECKING:
    from napari.layers import Labels, Layer

    from napari_mcm.core.features.feature_set import NeighbourhoodConfig
    from napari_mcm.core.heatmaps import Heatmap
    from napari_mcm.viewer.similarity.context import SimilarityContext

COLOUR = (1.0, 0.8, 0.0, 1.0)
STEPS = 40
"""Number of steps in which the keys move the threshold over the range of colours."""


QueryKind = tuple[str, "NeighbourhoodConfig", str, bool]
"""Encoder, context and range of colours of a map, and whether examples are dissimilar."""


class AreaController:
    """The similarity threshold on the visible map, and the area above it.

    Parameters
    ----------
    context : SimilarityContext
        Query, maps and shortcuts of the viewer.

    Attributes
    ----------
    threshold : float
        Smallest cosine similarity that counts; NaN before the first query. It is three
        quarters up the range of colours, until the user moves it; a moved threshold holds
        for queries of the same kind: the same encoder, context and range of colours, with
        dissimilar examples or without.
    changed : Signal
        Emitted when the threshold or the map changed.
    moved : Signal
        Emitted after the user moved the threshold.
    """

    changed = Signal()
    moved = Signal()

    def __init__(self, context: SimilarityContext) -> None:
        session = context.session
        self._context = context
        self._session = session
        self.threshold = float("nan")
        self._moved: dict[QueryKind, float] = {}
        self._layers: dict[int, Labels] = {}
        look = session.layers.look
        context.query_changed.connect(self._query_changed)
        self.changed.connect(lambda: look.use_threshold(self.threshold))
        # Not with a threshold that a query or a project brings.
        self.moved.connect(look.outline_for_a_while)
        context.keys.on("lower", partial(self.step, -1))
        context.keys.on("higher", partial(self.step, 1))
        context.keys.on("area", self.make_labels)

    @property
    def heatmap(self) -> Heatmap | None:
        """The visible similarity map; None if there is none."""
        shown = self._context.queries.shown_map()
        return shown[1] if shown else None

    @property
    def encoder(self) -> str:
        """Display name of the visible map's encoder; empty if there is only one map."""
        queries = self._context.queries
        shown, maps = queries.shown_map(), queries.maps()
        if shown is None or sum(one is not None for one in maps.values()) < 2:
            return ""
        loaded = self._session.features(shown[0])
        return loaded.label if loaded is not None else ""

    @property
    def area(self) -> tuple[float, int] | None:
        """Area in mm² and number of patches above the threshold; None without a map."""
        heatmap = self.heatmap
        if heatmap is None:
            return None
        threshold = self.threshold
        return heatmap.area_mm2(threshold), heatmap.count_above(threshold)

    def set_threshold(self, threshold: float) -> None:
        """Set the threshold for this kind of query, and update the layer of the area."""
        if threshold != self.threshold:
            self._note_moved(threshold)
            self.threshold = threshold
            self._redraw()
            self.changed.emit()

    def move_threshold(self, threshold: float) -> None:
        """Set the threshold as the user moves it, which shows what passes."""
        self.set_threshold(threshold)
        self.moved.emit()

    def _note_moved(self, threshold: float) -> None:
        heatmap, kind = self.heatmap, self._kind()
        if heatmap is None or kind is None:
            return
        # One that is restored may be where it would start anyway.
        if math.isclose(threshold, _start(heatmap), abs_tol=1e-6):
            self._moved.pop(kind, None)
        else:
            self._moved[kind] = threshold

    @property
    def is_moved(self) -> bool:
        """Whether the user moved the threshold for this kind of query."""
        kind = self._kind()
        return kind is not None and kind in self._moved

    def reset_threshold(self) -> None:
        """Put the threshold back where it starts for this kind of query."""
        heatmap, kind = self.heatmap, self._kind()
        if heatmap is not None and kind is not None:
            self._moved.pop(kind, None)
            self.threshold = _start(heatmap)
            self._redraw()
            self.changed.emit()
            self.moved.emit()

    def step(self, by: int) -> None:
        """Move the threshold by a number of steps, up or down.

        Parameters
        ----------
        by : int
            Number of steps; negative to move down.
        """
        if (heatmap := self.heatmap) is not None:
            low, high = heatmap.limits
            moved = self.threshold + by * (high - low) / STEPS
            self.move_threshold(min(max(moved, low), high))

    def make_labels(self) -> None:
        """Show the area above the threshold as a labels layer."""
        slide, heatmap = self._session.slide, self.heatmap
        if slide is None or heatmap is None:
            self._session.report_error("There is no map yet: click on the slide")
        elif self._redraw() is None:
            self._add(slide, heatmap)

    def export(self, path: Path, then: Callable[[], None]) -> None:
        """Write the area above the threshold to a file in the background.

        Parameters
        ----------
        path : Path
            The file; its suffix ``.geojson``, ``.ome.tif`` or ``.png`` sets the format.
        then : callable
            Called without arguments after the file was written.
        """
        from napari_mcm.core.heatmaps import write_heatmap

        heatmap = self.heatmap
        if heatmap is None:
            return
        above, opened = heatmap.above(self.threshold), slide_of(self._session.slide)
        self._session.disk.submit(
            f"export {path}",
            lambda: write_heatmap(above, path, opened),
            lambda _: then(),
            self._session.report_error,
        )

    def _query_changed(self) -> None:
        heatmap, kind = self.heatmap, self._kind()
        if heatmap is not None and kind is not None:
            low, high = heatmap.limits
            moved = self._moved.get(kind, float("nan"))
            self.threshold = moved if low <= moved <= high else _start(heatmap)
        self._redraw()
        self.changed.emit()

    def _kind(self) -> QueryKind | None:
        """Return what a threshold depends on; None without a map.

        Averages are more alike than single patches, subtracting dissimilar examples
        shifts all similarities, and encoders differ: one threshold does not fit all.
        """
        queries = self._context.queries
        shown, query = queries.shown_map(), queries.query
        loaded = self._session.features(shown[0]) if shown else None
        if shown is None or query is None or loaded is None:
            return None
        encoder = fingerprint_of(loaded.index.features.encoder) or loaded.label
        dissimilar = bool(query.spec.examples.unlike)
        return encoder, shown[1].neighbourhood, queries.limits, dissimilar

    def _layer(self, slide: Layer) -> Labels | None:
        return self._session.layers.alive(self._layers.get(id(slide)))

    def _redraw(self) -> Labels | None:
        """Update the layer of the area; return it, or None if there is none."""
        slide, heatmap = self._session.slide, self.heatmap
        layer = None if slide is None else self._layer(slide)
        if self._session.side_by_side:
            self._empty_others(slide)
        if layer is None or slide is None:
            return None
        if heatmap is None:
            layer.data = np.zeros_like(layer.data)
            return layer
        place(layer, slide, heatmap.grid.origin, heatmap.grid.patch_size_level0)
        layer.data = _mask(heatmap, self.threshold)
        if layer.name != self._name(slide):
            layer.name = self._name(slide)
        return layer

    def _empty_others(self, slide: Layer | None) -> None:
        """Empty the areas of slides beside the current one: they are of other queries."""
        for other in self._session.layers.slides():
            layer = self._layer(other)
            if other is not slide and layer is not None and np.any(layer.data):
                layer.data = np.zeros_like(layer.data)

    def _add(self, slide: Layer, heatmap: Heatmap) -> None:
        from napari.layers import Labels
        from napari.utils.colormaps import DirectLabelColormap

        # Hidden: the labels are for other tools, and the outline shows the same.
        layer = Labels(
            _mask(heatmap, self.threshold),
            name=self._name(slide),
            colormap=DirectLabelColormap(color_dict={None: COLOUR, 0: (0, 0, 0, 0)}),
            opacity=0.5,
            visible=False,
            **on_slide(
                slide,
                "similar area",
                heatmap.grid.origin,
                heatmap.grid.patch_size_level0,
            ),
        )
        layers = self._session.layers
        self._layers[id(slide)] = layers.add(layer, over=layers.top_of(slide))
        layers.look.outline_area(slide)

    def _name(self, slide: Layer) -> str:
        return f"similar ≥ {self.threshold:.3f}: {slide.name}"


def _start(heatmap: Heatmap) -> float:
    """Return the first threshold: only clearly similar patches are above it."""
    low, high = heatmap.limits
    return low + 0.75 * (high - low)


def _mask(heatmap: Heatmap, threshold: float) -> NDArray[np.uint8]:
    with np.errstate(invalid="ignore"):
        return np.asarray(heatmap.raster >= threshold, np.uint8)


def add_result(context: SimilarityContext) -> None:
    """Add the area above the threshold to the results table, as it is now.

    Parameters
    ----------
    context : SimilarityContext
        Query, maps and shortcuts of the viewer.
    """
    row = measure(context)
    if row is None:
        context.session.report_error("There is no map yet: click on the slide")
    else:
        # It saves the row, whether or not its dock was ever open.
        project_of(context.session)
        results_of(context.session).add(row)


def measure(context: SimilarityContext) -> ResultRow | None:
    """Return the area above the threshold as a row; None without a map.

    Parameters
    ----------
    context : SimilarityContext
        Query, maps and shortcuts of the viewer.
    """
    session, query, areas = context.session, context.query, context.areas
    shown, measured = context.queries.shown_map(), areas.area
    slide, metadata = session.slide, session.metadata
    if query is None or shown is None or measured is None or slide is None:
        return None
    slot, heatmap = shown
    loaded = session.features(slot)
    compared = int(np.isfinite(heatmap.values).sum())
    words = count_examples(query.spec.examples) or "saved query"
    return ResultRow(
        slide=metadata.name if metadata is not None else slide.name,
        fingerprint=str(heatmap.grid.slide.get("fingerprint") or ""),
        query=words if query.here else f"{words} of {query.spec.name}",
        encoder=loaded.label if loaded is not None else "",
        context=heatmap.neighbourhood.describe(),
        threshold=areas.threshold,
        area_mm2=measured[0],
        tissue_percent=100 * measured[1] / compared if compared else None,
        patches=measured[1],
        added=datetime.now(UTC).isoformat(timespec="seconds"),
    )
