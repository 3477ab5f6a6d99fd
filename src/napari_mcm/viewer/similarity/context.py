"""What the dock *Similarity* adds to a session: the query, the mouse and the keys."""

from __future__ import annotations

from psygnal import Signal

from napari_mcm.viewer.app.session import Session
from napari_mcm.viewer.layers.mouse import ClickListener
from napari_mcm.viewer.similarity.area import AreaController
from napari_mcm.viewer.similarity.controller import Query, SimilarityController
from napari_mcm.viewer.similarity.cross_slide import CrossSlideSearch
from napari_mcm.viewer.similarity.regions import RegionController
from napari_mcm.viewer.similarity.shortcuts import QueryShortcuts
from napari_mcm.viewer.similarity.top_patches import TopPatches


class SimilarityContext:
    """The query of one viewer, and everything that shows or changes it.

    Parameters
    ----------
    session : Session
        The viewer's slide, features, layers and jobs.

    Attributes
    ----------
    queries : SimilarityController
        The query and its maps.
    clicks : ClickListener
        Left clicks on the slide.
    keys : QueryShortcuts
        Keys on the canvas.
    areas, gallery, regions, elsewhere
        The area above a threshold, the most similar patches, drawn regions and the
        search over other slides.
    query_changed, no_patch_at_click : Signal
        The maps show another query; a click met no patch.
    """

    query_changed = Signal()
    no_patch_at_click = Signal()

    def __init__(self, session: Session) -> None:
        self.session = session
        self.queries = queries = SimilarityController(self)
        self.clicks = ClickListener(
            session.viewer,
            lambda: session.slide,
            queries.point,
            queries.connect,
            queries.speculate,
            queries.cancel_speculation,
        )
        self.keys = QueryShortcuts(session.viewer, self.clicks)
        self.keys.bind(queries)
        self.areas, self.gallery = AreaController(self), TopPatches(self)
        self.regions, self.cross_slide = RegionController(self), CrossSlideSearch(self)
        session.slide_chosen.connect(queries.slide_chosen)
        session.features_changed.connect(self._features_changed)
        session.entered.connect(self._listen)
        session.left.connect(self._stop_listening)
        queries.slide_chosen()
        self._listen()

    @property
    def query(self) -> Query | None:
        """What the maps show."""
        return self.queries.query

    def _features_changed(self, slot: str) -> None:
        """Run the query on new features."""
        self.queries.rerun()
        if self.query is not None and self.query.maps.get(slot):
            self.queries.show(slot)

    def _listen(self) -> None:
        self.clicks.attach()
        self.keys.attach()

    def _stop_listening(self) -> None:
        self.clicks.detach()
        self.keys.detach()


def context_of(session: Session) -> SimilarityContext:
    """Return the similarity context of a session; it is made once."""
    return session.part(SimilarityContext)
