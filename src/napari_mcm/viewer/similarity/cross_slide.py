"""The search for similar patches on other slides, by their feature files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_mcm.core.heatmaps.query import fingerprint_of
from napari_mcm.core.search import (
    CrossSlideConfig,
    CrossSlideResult,
    SlideMatch,
    find_slide,
    search_slides,
)
from napari_mcm.viewer.app.features import load_features
from napari_mcm.viewer.layers.metadata import SlideMetadata, layer_with

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.viewer.similarity.context import SimilarityContext


class CrossSlideSearch:
    """Runs the query on feature files of other slides, and opens these slides.

    Parameters
    ----------
    context : SimilarityContext
        Query, maps and shortcuts of the viewer.

    Attributes
    ----------
    matches : sequence of SlideMatch
        Slides with features of the same encoder, the most similar first.
    changed : Signal
        Emitted when a search has ended.
    """

    changed = Signal()

    def __init__(self, context: SimilarityContext) -> None:
        session = context.session
        self._context = context
        self._session = session
        self.matches: Sequence[SlideMatch] = ()
        self._slot = "first"
        self._awaited: tuple[SlideMatch, Path] | None = None
        session.slide_changed.connect(self._slide_changed)

    def folder(self) -> Path | None:
        """Return the folder of the feature file of the visible map; None without a map."""
        shown = self._context.queries.shown_map()
        loaded = self._session.features(shown[0]) if shown else None
        return loaded.path.parent if loaded is not None else None

    def search(self, folder: Path, threshold: float) -> None:
        """Search all feature files of a folder in the background.

        Parameters
        ----------
        folder : Path
            Folder of the feature files.
        threshold : float
            Cosine similarity above which the area is measured.
        """
        session = self._session
        shown = self._context.queries.shown_map()
        query = self._context.query
        one = query.results.get(shown[0]) if query and shown else None
        loaded = session.features(shown[0]) if shown else None
        if one is None or loaded is None or shown is None:
            session.report_error("There is no map yet: click on the slide")
        elif not session.jobs.status.busy:
            self._slot, directions = shown[0], one.directions
            around = one.heatmap.neighbourhood
            encoder = fingerprint_of(loaded.index.features.encoder)
            session.jobs.start(
                "Searching other slides",
                lambda: search_slides(
                    CrossSlideConfig(
                        features=folder, above=threshold, neighbourhood=around
                    ),
                    encoder,
                    directions,
                ),
                self._arrived,
            )

    def open(self, match: SlideMatch, slide: Path | None = None) -> None:
        """Show the map of the query on a slide, and open the slide if needed.

        Parameters
        ----------
        match : SlideMatch
            A slide of the search.
        slide : Path, optional
            File of the slide; by default it is searched in the folders of open slides.
        """
        layers = self._session.layers.slides()
        facts = [SlideMetadata.of_layer(layer) for layer in layers]
        folders = [Path(one.path).parent for one in facts if one is not None]
        self._session.disk.submit(
            "similar slide",
            lambda: (
                layer_with(match.fingerprint, layers)
                or slide
                or find_slide(match, folders)
            ),
            lambda where: self._located(match, where),
            self._failed,
        )

    def _located(self, match: SlideMatch, where: Layer | Path) -> None:
        """Show the query on the slide's layer, or open the slide's file first."""
        session = self._session
        if isinstance(where, Path):
            self._awaited = match, where.absolute()
            session.open(str(where), self._forget)
        elif where in session.layers.slides():
            queries, asked = self._context.queries, self._context.queries.spec
            session.choose_slide(where)
            if queries.spec is not asked:
                # The search leads to its query, also where the slide has its own.
                queries.run(asked)
            self._load(match)

    def _slide_changed(self) -> None:
        layer, metadata = self._session.slide, self._session.metadata
        if self._awaited is None or layer is None or metadata is None:
            return
        match, path = self._awaited
        if Path(metadata.path) == path:
            self._awaited = None
            self._load(match)

    def _load(self, match: SlideMatch) -> None:
        session, metadata = self._session, self._session.metadata
        if session.features(self._slot) is not None or metadata is None:
            self._context.queries.rerun()
            return
        path, mpp = Path(metadata.path), metadata.mpp_override
        if not session.jobs.status.busy:
            session.run_features(
                f"Loading {match.features.name}",
                self._slot,
                lambda: load_features(match.features, path, mpp),
            )

    def _arrived(self, result: CrossSlideResult) -> None:
        self.matches = matches = result.matches
        plural = "slide" if len(matches) == 1 else "slides"
        self._session.jobs.status.message = f"{len(matches)} {plural} found"
        self.changed.emit()

    def _forget(self) -> None:
        self._awaited = None

    def _failed(self, problem: str) -> None:
        self._forget()
        self._session.report_error(problem)
