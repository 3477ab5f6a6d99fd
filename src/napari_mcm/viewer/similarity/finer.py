"""Finer maps of the view: features at half a patch's step, on demand.

The features are those of the same encoder, in memory as long as the features that they
lie between, and are never mixed with them: areas, files and searches use whole patches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from psygnal import Signal

from napari_mcm.core.features.half_steps import (
    SHIFTS,
    Box,
    Detail,
    Shift,
    extract_half_steps,
    merge,
    paint_detail,
    part_of,
    shifted_grid,
    within,
)
from napari_mcm.core.heatmaps import SimilarityIndex
from napari_mcm.core.runtime.jobs import Job
from napari_mcm.viewer.app.commands import leave_gui_core
from napari_mcm.viewer.app.imports import EXTRACTING, import_modules
from napari_mcm.viewer.app.settings import preferences
from napari_mcm.viewer.layers.metadata import slide_of

if TYPE_CHECKING:
    from napari.layers import Layer
    from numpy.typing import NDArray

    from napari_mcm.core.encoders.compute import ComputeConfig
    from napari_mcm.core.features.feature_set import FeatureSet, NeighbourhoodConfig
    from napari_mcm.core.grid import PatchGrid
    from napari_mcm.core.heatmaps import Heatmap
    from napari_mcm.core.heatmaps.similarity_index import Directions
    from napari_mcm.core.slides import Slide
    from napari_mcm.viewer.app.features import LoadedFeatures
    from napari_mcm.viewer.similarity.context import SimilarityContext

MOST = 4000
"""Most patches that one press of the button computes."""
Half = dict[Shift, "FeatureSet"]
"""Features of the three shifted grids."""


@dataclass(frozen=True, eq=False)
class HalfSteps:
    """Features at half steps of some views, ready for queries.

    Attributes
    ----------
    grids : mapping
        A shift to all of its patches.
    indexes : mapping
        A shift to the index of those patches that have been computed.
    """

    grids: Mapping[Shift, PatchGrid]
    indexes: Mapping[Shift, SimilarityIndex]

    def detail(
        self,
        heatmap: Heatmap,
        directions: Directions,
        neighbourhood: NeighbourhoodConfig,
    ) -> NDArray[np.float32]:
        """Return the finer picture of a map.

        Parameters
        ----------
        heatmap : Heatmap
            The map of the patches between which these lie.
        directions : ndarray of float32, shape (K, D)
            The query vectors.
        neighbourhood : NeighbourhoodConfig
            Over which patches features are averaged. Patches whose neighbours were not
            computed are left out.
        """
        details = {}
        for shift, index in self.indexes.items():
            at = index.at(neighbourhood)
            kept = self._complete(shift, neighbourhood.radius)
            values = at.compare(directions)
            lattice = index.features.grid.lattice
            details[shift] = Detail(lattice[kept], values[kept])
        return paint_detail(heatmap.raster, details)

    @lru_cache(maxsize=16)  # noqa: B019 - goes with the few objects of a session
    def _complete(self, shift: Shift, radius: int) -> NDArray[np.bool_]:
        """Return which patches have all of their neighbours."""
        from scipy.ndimage import maximum_filter

        grid, made = self.grids[shift], self.indexes[shift].features.grid
        missing = np.zeros(grid.shape, bool)
        missing[tuple(grid.lattice.T)] = True
        missing[tuple(made.lattice.T)] = False
        near = maximum_filter(missing, 2 * radius + 1, mode="constant")
        return np.asarray(~near[tuple(made.lattice.T)])


_known: WeakKeyDictionary[LoadedFeatures, HalfSteps] = WeakKeyDictionary()


def with_detail(
    loaded: LoadedFeatures,
    heatmap: Heatmap,
    directions: Directions,
    neighbourhood: NeighbourhoodConfig,
) -> Heatmap:
    """Return a map with its finer picture, if there are features for one.

    Parameters
    ----------
    loaded : LoadedFeatures
        Features that the map was made with.
    heatmap, directions, neighbourhood
        As :meth:`HalfSteps.detail` takes them.
    """
    half = _known.get(loaded)
    if half is None:
        return heatmap
    return replace(heatmap, detail=half.detail(heatmap, directions, neighbourhood))


class FinerMaps:
    """Computes finer maps of the view.

    Parameters
    ----------
    context : SimilarityContext
        Query and maps of the viewer.

    Attributes
    ----------
    changed : Signal
        Emitted when a map got finer, or coarse again.
    """

    changed = Signal()

    def __init__(self, context: SimilarityContext) -> None:
        self._context, self._session = context, context.session

    def refine(self) -> None:
        """Compute features at half steps for the view, and repaint the map."""
        session, slide = self._session, self._session.slide
        shown, opened = self._context.queries.shown_map(), slide_of(self._session.slide)
        loaded = session.features(shown[0]) if shown is not None else None
        if slide is None or opened is None or loaded is None:
            session.report_error("There is no map yet: click on the slide")
            return
        features, around = loaded.index.features, self._context.queries.neighbourhood
        reason = _why_not(features) or ("A job is running" if self._is_busy() else "")
        wanted = {} if reason else missing_in(loaded, self._view(slide), around.radius)
        count = sum(map(len, wanted.values()))
        if not reason and not count:
            reason = "The map of this view is as fine as it gets"
        elif count > MOST:
            reason = f"This view has {count:,} more patches at half steps: zoom in"
        if reason:
            session.report_error(reason)
            return
        compute = preferences().compute
        session.jobs.start(
            f"Refine the map of {count:,} patches",
            lambda: _compute(opened, wanted, features, compute),
            lambda made: self._arrived(loaded, made),
        )

    def clear(self) -> None:
        """Forget all finer features of the current slide."""
        for loaded in self._session.all_features():
            _known.pop(loaded, None)
        self._context.queries.rerun()
        self.changed.emit()

    def _is_busy(self) -> bool:
        return bool(self._session.jobs.status.busy)

    def _view(self, slide: Layer) -> Box:
        """Return what the canvas shows of a slide, in level-0 pixels."""
        viewer = self._session.viewer
        camera, size = viewer.scene.camera, np.asarray(viewer.canvas.size, float)
        middle = (np.asarray(camera.center[-2:]) - slide.translate) / slide.scale
        half = size / (2 * float(camera.zoom)) / slide.scale
        (top, left), (bottom, right) = middle - half, middle + half
        return float(left), float(top), float(right), float(bottom)

    def _arrived(self, loaded: LoadedFeatures, made: Half) -> None:
        add_half_steps(loaded, made)
        self._context.queries.rerun()
        self.changed.emit()


def missing_in(
    loaded: LoadedFeatures, box: Box, margin: int = 0
) -> dict[Shift, PatchGrid]:
    """Return the patches at half steps in a box whose features are not known yet.

    Parameters
    ----------
    loaded : LoadedFeatures
        Features between which they lie.
    box : tuple of float
        Left, top, right and bottom in level-0 pixels.
    margin : int
        Width of the border around the box, in patches, that averages need.
    """
    half = _known.get(loaded)
    wanted = {}
    for shift in SHIFTS:
        grid = shifted_grid(loaded.index.features, shift)
        kept = within(grid, box, margin)
        if half is not None and shift in half.indexes:
            known = np.zeros(grid.shape, bool)
            known[tuple(half.indexes[shift].features.grid.lattice.T)] = True
            kept &= ~known[tuple(grid.lattice.T)]
        if kept.any():
            wanted[shift] = part_of(grid, kept)
    return wanted


def add_half_steps(loaded: LoadedFeatures, made: Half) -> None:
    """Keep features at half steps for later queries.

    Parameters
    ----------
    loaded : LoadedFeatures
        Features between which they lie.
    made : dict
        A shift to features of patches from :func:`missing_in`.
    """
    half = _known.get(loaded)
    indexes = dict(half.indexes) if half is not None else {}
    for shift, features in made.items():
        before = indexes.get(shift)
        parts = [features] if before is None else [before.features, features]
        indexes[shift] = SimilarityIndex(merge(parts))
    grids = {shift: shifted_grid(loaded.index.features, shift) for shift in indexes}
    _known[loaded] = HalfSteps(grids, indexes)


def _why_not(features: FeatureSet) -> str:
    """Return why features cannot be refined; empty if they can."""
    if features.neighbourhood.radius:
        return "These features are averages over patches: they cannot be refined"
    if not features.encoder.get("spec") or not features.encoder.get("fingerprint"):
        return "These features do not state their encoder: they cannot be refined"
    return ""


def _compute(
    slide: Slide,
    grids: Mapping[Shift, PatchGrid],
    features: FeatureSet,
    compute: ComputeConfig,
) -> Job[Half]:
    yield from import_modules(EXTRACTING)
    from napari_mcm.core.encoders import load_encoders

    # In the precision of the file, so that values can be compared.
    compute = compute.model_copy(update={"precision": features.encoder["precision"]})
    specs = [features.encoder["spec"]]
    (encoder,) = yield from load_encoders(specs, leave_gui_core(compute))
    return (yield from extract_half_steps(slide, grids, encoder, features))
