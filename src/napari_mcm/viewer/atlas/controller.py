"""The atlas of one viewer: makes it, selects in it, and labels its patches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_mcm.core.atlas import (
    Atlas,
    AtlasConfig,
    AtlasSlide,
    find_clusters,
    make_atlas,
    place_patches,
    points_inside,
    typical_patches,
)
from napari_mcm.core.runtime.threads import run_in_thread
from napari_mcm.viewer.app.background import BackgroundWorker
from napari_mcm.viewer.app.labels import PatchChoice
from napari_mcm.viewer.atlas.colouring import classes_of
from napari_mcm.viewer.atlas.linking import (
    CanvasPointer,
    PointLookup,
    SelectionOutlines,
)
from napari_mcm.viewer.atlas.navigation import PatchNavigation
from napari_mcm.viewer.atlas.pictures import PatchPictures
from napari_mcm.viewer.atlas.sources import Source, finder, reference_features
from napari_mcm.viewer.project.memory import memory_of
from napari_mcm.viewer.training.controller import report_busy

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.core.labelling.label_set import LabelSource
    from napari_mcm.core.runtime.jobs import Job
    from napari_mcm.viewer.app.session import Session

SUGGESTED = 20
"""Number of patches of a cluster that are labelled with its name."""

NONE = np.empty(0, np.intp)


class AtlasController:
    """The atlas of one viewer, and what is selected in it.

    Parameters
    ----------
    session : Session
        Session of the viewer.

    Attributes
    ----------
    atlas : Atlas or None
        The atlas.
    tree : scipy.spatial.cKDTree or None
        Finds points on its map.
    selected : ndarray of int
        Selected points.
    pointed : int
        The point under the pointer, on the map or on a slide; -1 for none.
    pictures : PatchPictures
        Pictures of patches.
    navigation : PatchNavigation
        Goes to patches, and opens their slides.
    atlas_changed : Signal
        Emitted with whether the map is another one, when the atlas changed.
    selection_changed, pointed_changed : Signal
        Emitted when these changed.
    said : Signal
        Emitted with a line about what was done.
    """

    atlas_changed = Signal(bool)
    selection_changed = Signal()
    pointed_changed = Signal()
    said = Signal(str)

    def __init__(self, session: Session) -> None:
        self.session = session
        self.atlas: Atlas | None = None
        self.tree: Any = None
        self.selected: NDArray[np.intp] = NONE
        self.pointed = -1
        self._is_on_map = False
        self.worker = BackgroundWorker("atlas")
        self.pictures = PatchPictures(session)
        self.navigation = PatchNavigation(session, self.pictures)
        self._lookup: PointLookup | None = None
        self._outlines = SelectionOutlines(session)
        self._pointer = CanvasPointer(session, self._pointed_on_slide)
        memory_of(session).found.connect(self._slide_found)
        session.entered.connect(self._pointer.attach)
        session.left.connect(self._leave)
        self._pointer.attach()

    def make(self, source: Source, config: Callable[..., AtlasConfig]) -> None:
        """Make an atlas as a job.

        Parameters
        ----------
        source : {"slide", "project", "folder"}
            Which features.
        config : callable
            Called with the feature files; returns the options.
        """
        session, one = self.session, reference_features(self.session)
        if one is None:
            session.report_error("Compute or open features of the slide first")
        elif not report_busy(session):
            find = finder(session, source, one)
            session.jobs.start("Atlas", lambda: _make(find, config), self._arrived)

    def change(self, config: AtlasConfig) -> None:
        """Cluster or place the patches of the atlas anew, as far as options differ."""
        atlas = self.atlas
        if atlas is None or report_busy(self.session):
            return
        title = "Clusters" if config.map == atlas.config.map else "Map"
        self.session.jobs.start(title, lambda: _change(atlas, config), self._arrived)

    def point(self, point: int) -> None:
        """Point at a patch on the map; -1 for none: it is framed on its slide."""
        self._set_pointed(point)
        self._is_on_map = point >= 0
        atlas, layers = self.atlas, self.session.layers
        if atlas is None or point < 0:
            layers.clear_mark()
            return
        slide, row = self.place_of(point)
        layer = memory_of(self.session).layer_of(slide.fingerprint)
        if layer is not None and layers.view.is_shown(layer):
            layers.mark(layer, slide.grid, row)
        else:
            layers.clear_mark()

    def go_to(self, point: int) -> None:
        """Show the patch of a point, and open its slide where needed."""
        self._set_pointed(point)
        self.navigation.go_to(*self.place_of(point))

    def lasso(self, polygon: NDArray[np.float64], add: bool) -> None:
        """Select the points inside a polygon of the map, in the background.

        Parameters
        ----------
        polygon : ndarray, shape (V, 2)
            Corners (x, y) on the map.
        add : bool
            Whether the points selected before stay so.
        """
        atlas, before = self.atlas, self.selected if add else NONE
        if atlas is None:
            return

        def select(inside: NDArray[np.intp]) -> None:
            if self.atlas is atlas:
                self.select(np.union1d(before, inside))

        self.worker.submit(
            "lasso",
            lambda: points_inside(atlas.map, polygon),
            select,
            self.session.report_error,
        )

    def select(self, points: NDArray[np.intp]) -> None:
        """Select points, in place of those before; they are outlined on the slides."""
        self.selected = np.asarray(points, np.intp)
        self._outlines.show(self._lookup, self.selected)
        self.selection_changed.emit()

    def selected_slides(self) -> int:
        """Return the number of slides that the selected points are on."""
        return (
            0 if self.atlas is None else len(np.unique(self.atlas.slide[self.selected]))
        )

    def label_selected(self, name: str) -> None:
        """Give the selected patches a class, as one step that can be undone."""
        self._label(self.selected, name, "lasso")

    def label_by_key(self, key: int) -> None:
        """Give the selected patches the class of a number key.

        Where none are selected, the patch under the pointer on the map gets it.

        Parameters
        ----------
        key : int
            1 to 9.
        """
        if self.atlas is None:
            return
        found = self.session.labels.class_of_key(key)
        if found is None:
            return
        if len(self.selected):
            self._label(self.selected, found.name, "lasso")
        elif self.pointed >= 0 and self._is_on_map:
            self._label(np.asarray([self.pointed]), found.name, "click")

    def name_cluster(self, cluster: int, name: str) -> None:
        """Make a class of a cluster, and label its most typical patches without label.

        Parameters
        ----------
        cluster : int
            The cluster, from 0.
        name : str
            Name of the class; an existing one gets more labels.
        """
        if (atlas := self.atlas) is None:
            return
        points = self.typical(cluster, SUGGESTED)
        free = classes_of(atlas, self.session.labels.set)[points] < 0
        self._label(points[free], name, "cluster", int((~free).sum()))

    def typical(self, cluster: int, count: int) -> NDArray[np.intp]:
        """Return the points that show best what a cluster is."""
        atlas = self.atlas
        if atlas is None:
            return NONE
        return typical_patches(
            atlas.reduced, atlas.clusters, cluster, count, atlas.slide
        )

    def place_of(self, point: int) -> tuple[AtlasSlide, int]:
        """Return slide and row of a point."""
        atlas = self.atlas
        assert atlas is not None
        return atlas.slides[atlas.slide[point]], int(atlas.row[point])

    def _label(
        self, points: NDArray[np.intp], name: str, source: LabelSource, kept: int = 0
    ) -> None:
        """Label points, and say so; `kept` others had a label, which stays."""
        atlas, labels, name = self.atlas, self.session.labels, name.strip()
        if atlas is None or not (len(points) or kept) or not name:
            return
        labels.new_class(name)
        choices = [
            PatchChoice(slide.grid, atlas.row[points[atlas.slide[points] == number]])
            for number, slide in enumerate(atlas.slides)
        ]
        changed = labels.add_many(choices, name, source)
        plural = "patch" if changed == 1 else "patches"
        had = f", {kept:,} had a label" if kept else ""
        self.said.emit(f"{changed:,} {plural} labelled {name}{had}; undo in Classes")

    def _arrived(self, made: tuple[Atlas, Any, str]) -> None:
        before, (self.atlas, self.tree, note) = self.atlas, made
        same = before is not None and before.map is self.atlas.map
        if before is None or before.row is not self.atlas.row:
            self._lookup = PointLookup(self.atlas)
            self._set_pointed(-1)
            self.selected = NONE
        self.atlas_changed.emit(not same)
        self.select(self.selected)
        self.session.jobs.status.message = note

    def _pointed_on_slide(self, layer: Layer | None, x: float, y: float) -> None:
        lookup, point = self._lookup, -1
        if lookup is not None and layer is not None:
            mark = memory_of(self.session).fingerprint_of(layer)
            number = lookup.number_of(mark)
            point = -1 if number is None else lookup.point_at(number, x, y)
        self._is_on_map = False
        self._set_pointed(point)

    def _set_pointed(self, point: int) -> None:
        if point != self.pointed:
            self.pointed = point
            self.pointed_changed.emit()

    def _slide_found(self, _layer: Layer, _mark: str) -> None:
        """Outline what is selected on a slide that was opened."""
        if len(self.selected):
            self._outlines.show(self._lookup, self.selected)

    def _leave(self) -> None:
        self._pointer.detach()
        self.pictures.close()


def _make(
    find: Callable[[], Any], config: Callable[..., AtlasConfig]
) -> Job[tuple[Atlas, Any, str]]:
    found = yield from run_in_thread("Looking for features", find)
    atlas = yield from make_atlas(config(found.files), found.loaded)
    return (yield from _with_tree(atlas))


def _change(atlas: Atlas, config: AtlasConfig) -> Job[tuple[Atlas, Any, str]]:
    made = atlas.config
    if (config.clusters, config.seed) != (made.clusters, made.seed):
        atlas = yield from find_clusters(atlas, config)
    if (config.map, config.seed) != (made.map, made.seed):
        atlas = yield from place_patches(atlas, config)
    return (yield from _with_tree(atlas))


def _with_tree(atlas: Atlas) -> Job[tuple[Atlas, Any, str]]:
    from scipy.spatial import cKDTree

    tree = yield from run_in_thread("Preparing the map", partial(cKDTree, atlas.map))
    slides = len(atlas.slides)
    note = (
        f"{len(atlas):,} patches of {slides:,} slide{'' if slides == 1 else 's'} in "
        f"{atlas.cluster_count} clusters"
    )
    if len(atlas) < atlas.available:
        note += f"; drawn from {atlas.available:,}"
    return atlas, tree, note


def controller_of(session: Session) -> AtlasController:
    """Return the atlas controller of a session, and create it on first use."""
    return session.part(AtlasController)
