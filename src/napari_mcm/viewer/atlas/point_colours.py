"""The colours of an atlas' points, which follow labels, the query and attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_mcm.core.errors import McmError
from napari_mcm.viewer.app.shared_query import query_of
from napari_mcm.viewer.atlas.colouring import (
    ColourBy,
    Colouring,
    by_class,
    by_cluster,
    by_label,
    by_slide,
    by_value,
)
from napari_mcm.viewer.atlas.values import (
    attention,
    loaded_features,
    predicted_classes,
    similarities,
)
from napari_mcm.viewer.layers.colormaps import faded

if TYPE_CHECKING:
    from napari_mcm.viewer.atlas.controller import AtlasController

_VALUES = "values"
_STEPS = 256
_NO_CLASSIFIER = "Labels alone: open the dock Classes, and label patches of two classes"


class PointColours:
    """Colours the points of an atlas by what the user chose.

    Parameters
    ----------
    controller : AtlasController
        The atlas.

    Attributes
    ----------
    by : str
        What the colours say.
    colouring : Colouring or None
        The colours; None without an atlas, and until values are computed.
    values : ndarray of float32, shape (N,) or None
        Value of each point, where colours are values.
    is_behind : callable
        Returns whether another dock covers the points: then changes wait.
    changed : Signal
        Emitted when these changed.
    """

    changed = Signal()

    def __init__(self, controller: AtlasController) -> None:
        self._controller, self._session = controller, controller.session
        self.by: ColourBy = "cluster"
        self.colouring: Colouring | None = None
        self.values: NDArray[np.float32] | None = None
        self._query = query_of(self._session)
        self.is_behind: Callable[[], bool] = lambda: False
        self._is_stale = False
        controller.atlas_changed.connect(self._atlas_changed)
        self._session.labels.changed.connect(self._labels_changed)
        self._session.labels.classifier_changed.connect(self._classifier_changed)
        self._query.changed.connect(self._query_changed)
        self._session.slide_changed.connect(self._slide_changed)

    def use(self, by: ColourBy) -> None:
        """Colour the points by something else."""
        self.by = by
        self.refresh()

    def refresh(self) -> None:
        """Compute the colours anew."""
        atlas, session = self._controller.atlas, self._session
        worker = self._controller.worker
        self.values, self._is_stale = None, False
        if self.by != "similarity":
            worker.drop(_VALUES)
        if atlas is None:
            self._show(None)
        elif self.by == "cluster":
            self._show(by_cluster(atlas, session.labels.set))
        elif self.by == "slide":
            self._show(by_slide(atlas))
        elif self.by in ("class", "label"):
            self._ask_classes(self.by == "class")
        elif self.by == "attention":
            values, limits = attention(session, atlas)
            known = bool(np.isfinite(values).any())
            note = "" if known else "Draw attention on a slide in the dock MIL first"
            self.values = values
            self._show(by_value(self.by, values, limits, self.bar(), note))
        else:
            self._ask()

    def _ask_classes(self, predict: bool) -> None:
        """Place the labels, and predict the others, in the background."""
        atlas, session = self._controller.atlas, self._session
        assert atlas is not None
        labels, classifier = session.labels.set, session.labels.classifier
        loaded = loaded_features(session, atlas) if predict else {}

        def compute() -> tuple[object, Colouring, None]:
            if not predict:
                return atlas, by_label(atlas, labels), None
            if classifier is None:
                return atlas, by_class(atlas, labels, None, _NO_CLASSIFIER), None
            try:
                found = predicted_classes(atlas, classifier, labels.names, loaded)
            except McmError as error:
                return atlas, by_class(atlas, labels, None, str(error)), None
            return atlas, by_class(atlas, labels, found), None

        self._controller.worker.follow(
            _VALUES, compute, self._arrived, session.report_error
        )

    def _ask(self) -> None:
        """Compute the similarity to the query, in the background."""
        atlas, query = self._controller.atlas, self._query.query
        assert atlas is not None
        nothing = np.full(len(atlas), np.nan, np.float32)
        colours = self.bar()

        def grey(note: str) -> Colouring:
            return by_value("similarity", nothing, (-1, 1), colours, note)

        if query is None:
            self._show(grey("Click on the slide first: there is no query"))
            return
        loaded = loaded_features(self._session, atlas)

        def compute() -> tuple[object, Colouring, NDArray[np.float32] | None]:
            found = similarities(atlas, query, loaded)
            if found is None:
                note = "The query was asked of another encoder than the atlas is of"
                return atlas, grey(note), None
            made = by_value("similarity", *found, colours)
            return atlas, made, found[0]

        self._controller.worker.follow(
            _VALUES, compute, self._arrived, self._session.report_error
        )

    def _arrived(
        self, made: tuple[object, Colouring, NDArray[np.float32] | None]
    ) -> None:
        atlas, colouring, values = made
        # Meanwhile there may be another atlas, or another choice.
        if atlas is self._controller.atlas and colouring.by == self.by:
            self.values = values
            self._show(colouring)

    def _show(self, colouring: Colouring | None) -> None:
        self.colouring = colouring
        self.changed.emit()

    def bar(self) -> NDArray[np.uint8]:
        """Return the colours of maps on slides, without what fades there."""
        colormap = faded(self._session.layers.look.colormap)
        rgb = colormap.map(np.linspace(0, 1, _STEPS))[:, :3]
        return np.asarray(np.rint(rgb * 255), np.uint8)

    def _labels_changed(self) -> None:
        self._refresh_if("cluster")
        self._refresh_if("label")
        # A classifier that is there will be fitted anew, and tell then.
        if self._session.labels.classifier is None:
            self._refresh_if("class")

    def _classifier_changed(self) -> None:
        self._refresh_if("class")

    def _query_changed(self) -> None:
        self._refresh_if("similarity")

    def _slide_changed(self) -> None:
        self._refresh_if("attention")

    def _refresh_if(self, by: ColourBy) -> None:
        if self.by != by:
            return
        if self.is_behind():
            self._is_stale = True
        else:
            self.refresh()

    def refresh_if_stale(self) -> None:
        """Compute what has changed while another dock covered the points."""
        if self._is_stale:
            self.refresh()

    def _atlas_changed(self, _is_other_map: bool) -> None:
        self.refresh()
