"""What is asked of encoders, on any slide, and what they answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_mcm.core.errors import McmError
from napari_mcm.core.heatmaps.query import (
    ENDING,
    Examples,
    QueryFile,
    fingerprint_of,
    make_query,
    read_query,
    write_query,
)
from napari_mcm.core.heatmaps.similarity import Limits, rounded
from napari_mcm.viewer.app.persistence import writable_base
from napari_mcm.viewer.app.settings import preferences

if TYPE_CHECKING:
    from napari_mcm.core.heatmaps import Heatmap
    from napari_mcm.core.heatmaps.similarity import Directions
    from napari_mcm.viewer.app.features import Loaded
    from napari_mcm.viewer.app.session import Session
    from napari_mcm.viewer.similarity.context import SimilarityContext


@dataclass(frozen=True)
class QuerySpec:
    """Places on one slide, and what they are to the encoders that were asked.

    Attributes
    ----------
    examples : Examples
        The places, in level-0 pixels.
    slide, name : str
        Fingerprint and name of the slide they are on.
    directions : mapping
        Fingerprint of an encoder to what it looks for on other slides.
    """

    examples: Examples = Examples()
    slide: str = ""
    name: str = ""
    directions: Mapping[str, Directions] = field(default_factory=dict)

    @classmethod
    def of_file(cls, saved: QueryFile) -> QuerySpec:
        """Make a query from a saved one."""
        directions = {query.fingerprint: query.unit for query in saved.encoders}
        slide = saved.slide
        return cls(saved.examples, slide.fingerprint, slide.name, directions)

    def is_on(self, loaded: Loaded) -> bool:
        """Return whether features are of the slide that the places are on."""
        return self.slide == slide_of_features(loaded)


@dataclass(frozen=True, eq=False)
class Answer:
    """What one encoder says.

    Attributes
    ----------
    heatmap : Heatmap
        The map.
    like, unlike : sequence of int
        Patches that were asked for; none of a question from another slide.
    directions : Directions
        What was looked for.
    """

    heatmap: Heatmap
    like: tuple[int, ...]
    unlike: tuple[int, ...]
    directions: Directions

    @property
    def asked(self) -> tuple[int, ...]:
        """All patches that were pointed at."""
        return (*self.like, *self.unlike)


def answer(loaded: Loaded, spec: QuerySpec, limits: Limits) -> Answer | None:
    """Run the query on one encoder; None where it has no features at the places.

    Raises
    ------
    FeatureError
        If the examples cancel each other out.
    """
    from napari_mcm.core.heatmaps import heatmap_of
    from napari_mcm.core.heatmaps.similarity import title_of

    index = loaded.index
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
        # What is taken away leaves less: the usual range of plain queries is not its.
        limits = "robust"
    # The encoder's range is known: it is not looked for with each click.
    own: Limits = "fixed" if limits == "encoder" else limits
    heatmap = heatmap_of(index, directions, title, own, like)
    ends = loaded.limits if limits == "encoder" else heatmap.limits
    colours = preferences().colormap
    heatmap = replace(heatmap, limits=rounded(*ends), colormap=colours)
    return Answer(heatmap, tuple(like), tuple(unlike), directions)


def answers(
    asked: Mapping[str, Loaded], spec: QuerySpec, limits: Limits
) -> dict[str, Answer | None]:
    """Run the query on several encoders, in parallel as far as there are cores.

    Parameters
    ----------
    asked : mapping
        Slot to features.
    question, limits
        As :func:`answer` takes them.
    """
    if len(asked) < 2:
        return {s: answer(loaded, spec, limits) for s, loaded in asked.items()}
    begun = begin_answers(asked, spec, limits)
    return {slot: future.result() for slot, future in begun.items()}


def begin_answers(
    asked: Mapping[str, Loaded], spec: QuerySpec, limits: Limits
) -> dict[str, Future[Answer | None]]:
    """Begin to run the query on several encoders, in threads of its own.

    Parameters
    ----------
    asked : mapping
        Slot to features.
    spec, limits
        As :func:`answer` takes them.

    Returns
    -------
    dict of str to Future
        Slot to the answer to come.
    """
    pool = ThreadPoolExecutor(2, thread_name_prefix="napari-mcm: similarity")
    begun = {
        slot: pool.submit(answer, loaded, spec, limits)
        for slot, loaded in asked.items()
    }
    # The threads end with what they have begun.
    pool.shutdown(wait=False)
    return begun


def slide_of_features(loaded: Loaded) -> str:
    """Return the fingerprint of the slide that features are of."""
    return str(loaded.index.features.grid.slide.get("fingerprint") or "")


def suggested_path(session: Session) -> Path:
    """Return where a query would be saved: beside the slide, or at home."""
    metadata = session.metadata
    if metadata is None:
        return Path.home() / f"query{ENDING}"
    return writable_base(Path(metadata.path)) / f"{metadata.name}{ENDING}"


def save_query(
    context: SimilarityContext, path: Path, then: Callable[[Path], None]
) -> None:
    """Write the present query to a file, in the background.

    Parameters
    ----------
    context : SimilarityContext
        Which has the query.
    path : Path
        The file; gets its usual ending.
    then : callable
        Told where it is.
    """
    session = context.session
    if (query := context.query) is None:
        session.report_error("There is no query yet: click on the slide")
        return
    asked = {}
    for slot, one in query.answers.items():
        loaded = session.features(slot)
        if one is not None and loaded is not None:
            label = (
                loaded.label
                if loaded.label not in asked
                else f"{loaded.label} ({slot})"
            )
            asked[label] = loaded.index.features, one.directions
    if not query.here:
        session.report_error("This query is of another slide: save it there")
        return
    try:
        made = make_query(query.spec.examples, asked)
    except McmError as error:
        session.report_error(str(error))
        return
    if not path.name.endswith(".json"):
        path = path.with_name(path.name + ENDING)
    session.disk.submit(
        f"query {path}", lambda: write_query(path, made), then, session.report_error
    )


def load_query(context: SimilarityContext, path: Path) -> None:
    """Load a query from a file and run it."""
    session = context.session

    def arrived(saved: QueryFile) -> None:
        context.queries.run(QuerySpec.of_file(saved))
        if context.query is None:
            names = ", ".join(one.label or one.fingerprint for one in saved.encoders)
            session.report_error(
                f"{path.name} was made with {names}: compute or load such features"
            )

    session.disk.submit(
        "read query", lambda: read_query(path), arrived, session.report_error
    )
