"""Queries on the features of a slide: examples, results and files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_mcm.core.errors import McmError
from napari_mcm.core.features.feature_set import PATCH_ALONE, NeighbourhoodConfig
from napari_mcm.core.heatmaps.color_limits import Limits, rounded
from napari_mcm.core.heatmaps.examples import Examples, Point
from napari_mcm.core.heatmaps.query import (
    ENDING,
    EncoderQuery,
    QueryFile,
    fingerprint_of,
    make_query,
    read_query,
    write_query,
)
from napari_mcm.viewer.app.persistence import writable_base
from napari_mcm.viewer.app.settings import preferences
from napari_mcm.viewer.layers.colormaps import OWN
from napari_mcm.viewer.similarity.finer import with_detail
from napari_mcm.viewer.similarity.history import ExampleKind

if TYPE_CHECKING:
    from napari_mcm.core.heatmaps import Heatmap
    from napari_mcm.core.heatmaps.similarity_index import Directions
    from napari_mcm.viewer.app.features import LoadedFeatures
    from napari_mcm.viewer.app.session import Session
    from napari_mcm.viewer.similarity.context import SimilarityContext


@dataclass(frozen=True)
class QuerySpec:
    """Examples on one slide, and the query vectors that encoders make of them.

    Attributes
    ----------
    examples : Examples
        Points and regions in level-0 pixels.
    slide, name : str
        Fingerprint and name of the slide with the examples.
    directions : mapping
        Fingerprint of an encoder to its query vectors, for other slides.
    neighbourhood : NeighbourhoodConfig
        Over which patches features are averaged; query vectors are of such averages.
    """

    examples: Examples = Examples()
    slide: str = ""
    name: str = ""
    directions: Mapping[str, Directions] = field(default_factory=dict)
    neighbourhood: NeighbourhoodConfig = PATCH_ALONE

    @classmethod
    def of_file(cls, saved: QueryFile, encoders: Collection[str] = ()) -> QuerySpec:
        """Return the query of a file.

        Parameters
        ----------
        saved : QueryFile
            The file. Where its query vectors are of several neighbourhoods, one counts.
        encoders : collection of str
            Fingerprints of the encoders that have features; the neighbourhood of their
            query vectors counts first.
        """
        own = [query for query in saved.encoders if query.fingerprint in encoders]
        around = (own or saved.encoders)[0].neighbourhood
        directions = {
            query.fingerprint: query.unit
            for query in saved.encoders
            if query.neighbourhood == around
        }
        slide = saved.slide
        identity = (slide.fingerprint, slide.name)
        return cls(saved.examples, *identity, directions, around)

    def is_on(self, loaded: LoadedFeatures) -> bool:
        """Return whether features are of the slide with the examples."""
        return self.slide == slide_of_features(loaded)


@dataclass(frozen=True, eq=False)
class QueryResult:
    """The result of a query on the features of one encoder.

    Attributes
    ----------
    heatmap : Heatmap
        The similarity map.
    like, unlike : sequence of int
        Rows of similar and dissimilar examples; none if they are on another slide.
    directions : Directions
        The query vectors.
    """

    heatmap: Heatmap
    like: tuple[int, ...]
    unlike: tuple[int, ...]
    directions: Directions

    @property
    def examples(self) -> tuple[int, ...]:
        """Rows of all examples."""
        return (*self.like, *self.unlike)


@dataclass(frozen=True, eq=False)
class Query:
    """A query and its results.

    Attributes
    ----------
    spec : QuerySpec
        Examples and query vectors.
    here : bool
        Whether the examples are on the active slide.
    results : mapping
        Slot to result; None for a slot without features at the examples.
    newest : {"like", "unlike", "regions", ""}
        Kind of the example that was added last; empty if it is not known.
    mpp : tuple of float or None
        Microns per level-0 pixel along x and y; None if the examples are on another
        slide, or the resolution is unknown.
    """

    spec: QuerySpec
    here: bool
    results: Mapping[str, QueryResult | None]
    newest: ExampleKind = ""
    mpp: tuple[float, float] | None = None

    @property
    def xy(self) -> Point:
        """Position (x, y) of the newest example in level-0 pixels."""
        return newest_point(self.spec.examples, self.newest)

    @property
    def um(self) -> tuple[float, float] | None:
        """Position (x, y) of the newest example in microns; None if it is not known."""
        if self.mpp is None or not self.here or not len(self.spec.examples):
            return None
        x, y = self.xy
        return x * self.mpp[0], y * self.mpp[1]

    @property
    def maps(self) -> dict[str, Heatmap | None]:
        """Slot to heatmap; None for a slot without a result."""
        return {
            slot: None if one is None else one.heatmap
            for slot, one in self.results.items()
        }


def newest_point(examples: Examples, kind: ExampleKind = "") -> Point:
    """Return the newest point, or the mean of the newest region's corners.

    Parameters
    ----------
    examples : Examples
        Examples of a query, in level-0 pixels.
    kind : {"like", "unlike", "regions", ""}
        Kind of the newest example, where it is known.
    """
    by_kind = {"unlike": examples.unlike, "like": examples.like}
    for points in (by_kind.get(kind), examples.unlike, examples.like):
        if points and kind != "regions":
            return points[-1]
    if not examples.regions:
        return examples.like[-1] if examples.like else (0.0, 0.0)
    x, y = np.mean(examples.regions[-1], axis=0)
    return float(x), float(y)


def query_features(
    loaded: LoadedFeatures, spec: QuerySpec, limits: Limits
) -> QueryResult | None:
    """Run a query on the features of one encoder.

    Parameters
    ----------
    loaded : LoadedFeatures
        Features of a slide.
    spec : QuerySpec
        The query.
    limits : Limits
        How the range of colours is chosen.

    Returns
    -------
    QueryResult or None
        None if there are no features at the examples, or the examples are on another
        slide and the encoder has no query vectors.

    Raises
    ------
    FeatureError
        If the examples cancel each other out.
    """
    from napari_mcm.core.heatmaps import heatmap_of, usual_range
    from napari_mcm.core.heatmaps.similarity import title_of

    index = loaded.index_at(spec.neighbourhood)
    like: list[int] = []
    unlike: list[int] = []
    found = spec.examples.directions(index) if spec.is_on(loaded) else None
    if found is not None:
        directions, like, unlike = found
        title = title_of(like, unlike, spec.examples.pool)
    elif spec.is_on(loaded) and len(spec.examples):
        return None
    else:
        known = spec.directions.get(fingerprint_of(index.features.encoder))
        if known is None or known.shape[1] != index.features.dim:
            return None
        directions, title = known, f"cosine similarity to a query on {spec.name}"
    if limits == "encoder" and spec.examples.unlike:
        # Subtracting dissimilar examples shifts similarities: the encoder's range, which
        # comes from plain queries, does not fit.
        limits = "robust"
    # "fixed" skips computing a range: the encoder's range is already known.
    own: Limits = "fixed" if limits == "encoder" else limits
    heatmap = heatmap_of(index, directions, title, own, like)
    ends = usual_range(index) if limits == "encoder" else heatmap.limits
    heatmap = replace(heatmap, limits=rounded(*ends))
    colours = preferences().look.colormap
    if colours not in OWN:
        # Of files: matplotlib does not know the plugin's own colour maps.
        heatmap = replace(heatmap, colormap=colours)
    heatmap = with_detail(loaded, heatmap, directions, index.neighbourhood)
    return QueryResult(heatmap, tuple(like), tuple(unlike), directions)


def query_all(
    loaded: Mapping[str, LoadedFeatures], spec: QuerySpec, limits: Limits
) -> dict[str, QueryResult | None]:
    """Run a query on the features of several encoders in parallel.

    Parameters
    ----------
    loaded : mapping
        Slot to features.
    spec, limits
        As :func:`query_features` takes them.

    Returns
    -------
    dict
        Slot to result; None for a slot without one.
    """
    if len(loaded) < 2:
        return {s: query_features(one, spec, limits) for s, one in loaded.items()}
    futures = start_queries(loaded, spec, limits)
    return {slot: future.result() for slot, future in futures.items()}


def query_from(
    origin: Sequence[LoadedFeatures],
    loaded: Mapping[str, LoadedFeatures],
    spec: QuerySpec,
    limits: Limits,
) -> tuple[QuerySpec, dict[str, QueryResult | None]]:
    """Run a query whose vectors are made anew, from the slide with the examples.

    Parameters
    ----------
    origin : sequence of LoadedFeatures
        Features of the slide with the examples, which may be another one.
    loaded, spec, limits
        As :func:`query_all` takes them.

    Returns
    -------
    spec : QuerySpec
        The query with its vectors.
    results : dict
        Slot to result; None for a slot without one.
    """
    made = dict(spec.directions)
    for one in origin:
        mark = fingerprint_of(one.index.features.encoder)
        if mark and one not in loaded.values():
            found = spec.examples.directions(one.index_at(spec.neighbourhood))
            if found is not None:
                made[mark] = found[0]
    spec = replace(spec, directions=made)
    return spec, query_all(loaded, spec, limits)


def start_queries(
    loaded: Mapping[str, LoadedFeatures], spec: QuerySpec, limits: Limits
) -> dict[str, Future[QueryResult | None]]:
    """Start a query on the features of several encoders, in its own threads.

    Parameters
    ----------
    loaded : mapping
        Slot to features.
    spec, limits
        As :func:`query_features` takes them.

    Returns
    -------
    dict of str to Future
        Slot to its future result.
    """
    pool = ThreadPoolExecutor(2, thread_name_prefix="napari-mcm: similarity")
    futures = {
        slot: pool.submit(query_features, one, spec, limits)
        for slot, one in loaded.items()
    }
    # The threads end after these queries.
    pool.shutdown(wait=False)
    return futures


def slide_of_features(loaded: LoadedFeatures) -> str:
    """Return the fingerprint of the slide of some features; empty if not stated."""
    return str(loaded.index.features.grid.slide.get("fingerprint") or "")


def suggested_path(session: Session) -> Path:
    """Return a path for saving the query, beside the slide or in the home directory."""
    metadata = session.metadata
    if metadata is None:
        return Path.home() / f"query{ENDING}"
    return writable_base(Path(metadata.path)) / f"{metadata.name}{ENDING}"


def save_query(
    context: SimilarityContext, path: Path, then: Callable[[Path], None]
) -> None:
    """Write the query to a file in the background.

    Parameters
    ----------
    context : SimilarityContext
        Context with the query.
    path : Path
        The file; without ``.json`` at the end, the suffix is added.
    then : callable
        Called with the path after the file was written.
    """
    session = context.session
    if (query := context.query) is None:
        session.report_error("There is no query yet: click on the slide")
        return
    by_label = {}
    for slot, one in query.results.items():
        loaded = session.features(slot)
        if one is not None and loaded is not None:
            label = (
                loaded.label
                if loaded.label not in by_label
                else f"{loaded.label} ({slot})"
            )
            by_label[label] = loaded.index.features, one.directions
    if not query.here:
        session.report_error("This query is of another slide: save it there")
        return
    try:
        made = make_query(query.spec.examples, by_label, query.spec.neighbourhood)
    except McmError as error:
        session.report_error(str(error))
        return
    if not path.name.endswith(".json"):
        path = path.with_name(path.name + ENDING)
    session.disk.submit(
        f"query {path}", lambda: write_query(path, made), then, session.report_error
    )


def load_query(context: SimilarityContext, path: Path) -> None:
    """Load a query from a file in the background, and run it.

    Parameters
    ----------
    context : SimilarityContext
        Context that runs the query.
    path : Path
        File of the query.
    """
    session = context.session

    made_with: list[EncoderQuery] = []

    def arrived(saved: QueryFile) -> None:
        made_with[:] = saved.encoders
        loaded = context.queries.encoders()
        context.queries.run(QuerySpec.of_file(saved, loaded), unanswered)

    def unanswered() -> None:
        names = ", ".join(one.label or one.fingerprint for one in made_with)
        session.report_error(
            f"{path.name} was made with {names}: compute or load such features"
        )

    session.disk.submit(
        "read query", lambda: read_query(path), arrived, session.report_error
    )
