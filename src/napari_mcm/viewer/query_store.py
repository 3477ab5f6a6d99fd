"""The present query in a file, and files as the present query."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from napari_mcm.core.errors import McmError
from napari_mcm.core.heatmaps.query_file import (
    ENDING,
    QueryFile,
    make_query,
    read_query,
    write_query,
)
from napari_mcm.viewer.places import writable_base
from napari_mcm.viewer.question import Question

if TYPE_CHECKING:
    from napari_mcm.viewer.session import Session


def suggested_path(session: Session) -> Path:
    """Tell where a query would be saved: beside the slide, or at home."""
    facts = session.facts
    if facts is None:
        return Path.home() / f"query{ENDING}"
    return writable_base(Path(facts.path)) / f"{facts.name}{ENDING}"


def save_query(session: Session, path: Path, then: Callable[[Path], None]) -> None:
    """Write the present query to a file, in the background.

    Parameters
    ----------
    session : Session
        Which has the query.
    path : Path
        The file; gets its usual ending.
    then : callable
        Told where it is.
    """
    if (query := session.query) is None:
        session.complain("There is no query yet: click on the slide")
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
        session.complain("This query is of another slide: save it there")
        return
    try:
        made = make_query(query.question.examples, asked)
    except McmError as error:
        session.complain(str(error))
        return
    if not path.name.endswith(".json"):
        path = path.with_name(path.name + ENDING)
    session.disk.submit(
        f"query {path}", lambda: write_query(path, made), then, session.complain
    )


def load_query(session: Session, path: Path) -> None:
    """Make the query of a file the present one."""

    def arrived(saved: QueryFile) -> None:
        session.queries.ask(Question.of_file(saved))
        if session.query is None:
            names = ", ".join(one.label or one.fingerprint for one in saved.encoders)
            session.complain(
                f"{path.name} was made with {names}: compute or load such features"
            )

    session.disk.submit(
        "read query", lambda: read_query(path), arrived, session.complain
    )
