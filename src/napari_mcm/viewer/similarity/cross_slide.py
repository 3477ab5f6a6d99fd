"""The search for similar patches on all slides, by their feature files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_mcm.core.errors import McmError
from napari_mcm.core.heatmaps.query import fingerprint_of
from napari_mcm.core.search import (
    CrossSlideConfig,
    CrossSlideResult,
    PatchMatch,
    SlideMatch,
    find_slide,
    search_slides,
)
from napari_mcm.core.slides import open_slide
from napari_mcm.viewer.app.features import load_features
from napari_mcm.viewer.layers.metadata import SlideMetadata, layer_with, slide_of
from napari_mcm.viewer.layers.thumbnails import TopPatch, go_to, read_thumbnails
from napari_mcm.viewer.project.controller import project_of

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.core.project import Project
    from napari_mcm.core.slides import Slide
    from napari_mcm.viewer.similarity.context import SimilarityContext
    from napari_mcm.viewer.similarity.query import QuerySpec

SIDE_PX = 144
"""Side of a thumbnail in pixels: sharp also where the screen has two per point."""

_GALLERY = "search gallery"

Match = SlideMatch | PatchMatch


class CrossSlideSearch:
    """Runs the query on feature files of all slides, and opens what is found.

    Parameters
    ----------
    context : SimilarityContext
        Query, maps and shortcuts of the viewer.

    Attributes
    ----------
    matches : sequence of SlideMatch
        Slides with features of the same encoder, the most similar first.
    patches : sequence of PatchMatch
        The most similar patches of all slides, the most similar first.
    tops : list of TopPatch
        Thumbnails of `patches`, whose row is the place in the ranking.
    config : CrossSlideConfig or None
        Options of the search that found them.
    report : str
        What was searched, and what could not be, one line each.
    changed : Signal
        Emitted when a search has ended.
    thumbnails_changed : Signal
        Emitted when thumbnails were read.
    place_shown : Signal
        Emitted when the map of a slide that the search led to is there.
    """

    changed = Signal()
    thumbnails_changed = Signal()
    place_shown = Signal()

    def __init__(self, context: SimilarityContext) -> None:
        session = context.session
        self._context = context
        self._session = session
        self.matches: Sequence[SlideMatch] = ()
        self.patches: Sequence[PatchMatch] = ()
        self.tops: list[TopPatch] = []
        self.config: CrossSlideConfig | None = None
        self.report = ""
        self._slot = "first"
        self._awaited: tuple[Match, Path] | None = None
        self._shown: tuple[Match, Layer, QuerySpec] | None = None
        session.slide_changed.connect(self._slide_changed)
        context.query_changed.connect(self._query_changed)

    def folder(self) -> Path | None:
        """Return the folder of the feature file of the visible map; None without a map."""
        shown = self._context.queries.shown_map()
        loaded = self._session.features(shown[0]) if shown else None
        return loaded.path.parent if loaded is not None else None

    def project(self) -> Path | None:
        """Return the file of the open project; None where it has no other slides."""
        project = project_of(self._session)
        return project.path if len(project.project.slides) > 1 else None

    def search(
        self, source: Path, threshold: float, per_slide: int | None = None
    ) -> None:
        """Search all feature files of a folder or a project in the background.

        Parameters
        ----------
        source : Path
            Folder of the feature files, or project file.
        threshold : float
            Cosine similarity above which the area is measured.
        per_slide : int, optional
            Number of patches listed per slide, at most.
        """
        session = self._session
        shown = self._context.queries.shown_map()
        query = self._context.query
        one = query.results.get(shown[0]) if query and shown else None
        loaded = session.features(shown[0]) if shown else None
        if one is None or query is None or loaded is None or shown is None:
            session.report_error("There is no map yet: click on the slide")
        elif not session.jobs.status.busy:
            self._slot, directions = shown[0], one.directions
            encoder = fingerprint_of(loaded.index.features.encoder)
            config = CrossSlideConfig(
                features=source,
                above=threshold,
                per_slide=per_slide,
                neighbourhood=one.heatmap.neighbourhood,
            )
            examples = {query.spec.slide: query.spec.examples}
            project_of(session).flush()
            session.jobs.start(
                "Searching all slides",
                lambda: search_slides(config, encoder, directions, examples),
                partial(self._arrived, config),
            )

    def open(self, match: Match, slide: Path | None = None) -> None:
        """Show the map of the query on a slide, and open the slide if needed.

        Parameters
        ----------
        match : SlideMatch or PatchMatch
            What the search has found. The view goes to the place of a patch.
        slide : Path, optional
            File of the slide; by default it is searched in the folders of open slides
            and of the project.
        """
        layers, folders = self._session.layers.slides(), self._folders()
        self._session.disk.submit(
            "similar slide",
            lambda: (
                layer_with(match.fingerprint, layers)
                or slide
                or find_slide(match, folders())
            ),
            lambda where: self._located(match, where),
            self._failed,
        )

    def open_top(self, top: TopPatch) -> None:
        """Open the slide and the place of a thumbnail."""
        if 0 <= top.row < len(self.patches):
            self.open(self.patches[top.row])

    def _folders(self) -> Callable[[], list[Path]]:
        """Return a function that lists where else than beside the features slides are.

        It is called in a thread: a project may have thousands of slides.
        """
        layers = self._session.layers.slides()
        facts = [SlideMetadata.of_layer(layer) for layer in layers]
        paths = [one.path for one in facts if one is not None]
        return partial(_folders_of, paths, project_of(self._session).project)

    def _located(self, match: Match, where: Layer | Path) -> None:
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
            self._show_place(match)
            self._load(match)

    def _slide_changed(self) -> None:
        layer, metadata = self._session.slide, self._session.metadata
        if self._awaited is None or layer is None or metadata is None:
            return
        match, path = self._awaited
        if Path(metadata.path) == path:
            self._awaited = None
            # After the layer is added: its frame is a layer, too, and the one that is
            # added last would be chosen.
            QTimer.singleShot(0, partial(self._show_on, layer, match))

    def _show_on(self, slide: Layer, match: Match) -> None:
        """Show the query on a slide that was opened, unless another one was chosen."""
        if slide is self._session.slide:
            self._show_place(match)
            self._load(match)

    def _show_place(self, match: Match) -> None:
        """Move the view of the current slide to the place of a patch."""
        if (slide := self._session.slide) is not None:
            self._shown = match, slide, self._context.queries.spec
            if isinstance(match, PatchMatch):
                go_to(self._session.layers, slide, match.grid(), 0)

    def _query_changed(self) -> None:
        """Frame the patch again: a map that is new takes the frame away."""
        query = self._context.query
        if self._shown is None or query is None or not query.maps:
            return
        match, slide, spec = self._shown
        same = (query.spec.slide, query.spec.examples) == (spec.slide, spec.examples)
        if slide is not self._session.slide or not same:
            self._shown = None
            return
        if isinstance(match, PatchMatch):
            self._session.layers.mark(slide, match.grid(), 0)
        self.place_shown.emit()

    def _load(self, match: Match) -> None:
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

    def _arrived(self, config: CrossSlideConfig, result: CrossSlideResult) -> None:
        self.matches, self.patches, self.config = result.matches, result.patches, config
        plural = "slide" if len(self.matches) == 1 else "slides"
        found = f"{len(self.matches)} {plural} found"
        self._session.jobs.status.message = found
        self.report = "\n".join(
            [f"{found}, {result.searched:,} patches searched", *result.skipped]
        )
        self.tops = [
            TopPatch(rank, patch.value, None, True, patch.slide)
            for rank, patch in enumerate(self.patches)
        ]
        self.changed.emit()
        self._read(list(_by_slide(self.patches)))

    def _read(self, waiting: list[list[int]]) -> None:
        """Read the thumbnails of one slide after the other, in the background."""
        if not waiting:
            self._session.disk.drop(_GALLERY)
            return
        ranks, patches = waiting[0], self.patches
        some = [patches[rank] for rank in ranks]
        layers, folders = self._session.layers.slides(), self._folders()

        def show(read: Sequence[TopPatch | None]) -> None:
            if patches is not self.patches:
                return
            for rank, top in zip(ranks, read, strict=True):
                pixels = top.pixels if top is not None else None
                known = replace(self.tops[rank], pixels=pixels, pending=False)
                self.tops = [*self.tops[:rank], known, *self.tops[rank + 1 :]]
            self.thumbnails_changed.emit()
            self._read(waiting[1:])

        self._session.disk.submit(
            _GALLERY, lambda: _thumbnails(some, layers, folders()), show, _quiet
        )

    def _forget(self) -> None:
        self._awaited = None

    def _failed(self, problem: str) -> None:
        self._forget()
        self._session.report_error(problem)


def _folders_of(paths: Iterable[str], project: Project) -> list[Path]:
    """Return the folders of open slides and of a project's, each once."""
    named = dict.fromkeys(os.path.dirname(one.absolute) for one in project.slides)
    opened = [Path(path).parent for path in paths]
    folders = [Path(folder) for folder in (*named, *project.folders) if folder]
    return list(dict.fromkeys([*opened, *folders]))


def _by_slide(patches: Iterable[PatchMatch]) -> Iterable[list[int]]:
    """Return the ranks of each slide's patches, the slide of the best patch first."""
    ranks: dict[Path, list[int]] = {}
    for rank, patch in enumerate(patches):
        ranks.setdefault(patch.features, []).append(rank)
    return ranks.values()


def _thumbnails(
    patches: Sequence[PatchMatch], layers: Sequence[Layer], folders: Sequence[Path]
) -> Sequence[TopPatch | None]:
    """Read patches of one slide; None for each where the slide is not found."""
    first = patches[0]
    grid = replace(
        first.grid(),
        xy=np.array([(patch.x, patch.y) for patch in patches], np.int64),
        lattice=np.zeros((len(patches), 2), np.int32),
    )
    read: Callable[[Slide], Sequence[TopPatch | None]] = partial(
        read_thumbnails,
        grid=grid,
        rows=range(len(patches)),
        values=[patch.value for patch in patches],
        side=SIDE_PX,
    )
    layer = layer_with(first.fingerprint, layers)
    if layer is not None and (opened := slide_of(layer)) is not None:
        return read(opened)
    try:
        # The resolution that the features were made at, whatever the file states.
        mpp = first.patch_size * first.mpp / first.width
        with open_slide(find_slide(first, folders), mpp) as slide:
            return read(slide)
    except McmError:
        return [None] * len(patches)


def _quiet(_problem: str) -> None:
    """Ignore the error: the thumbnails stay grey, and a click says why."""
