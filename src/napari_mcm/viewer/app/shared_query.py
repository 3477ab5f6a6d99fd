"""The query that the maps show, for docks that ask it of other patches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from psygnal import Signal

from napari_mcm.core.features.feature_set import PATCH_ALONE, NeighbourhoodConfig
from napari_mcm.core.heatmaps.query import fingerprint_of
from napari_mcm.core.heatmaps.similarity_index import Directions
from napari_mcm.viewer.app.session import Session


@dataclass(frozen=True, eq=False)
class SharedQuery:
    """A query in the feature spaces of encoders.

    Attributes
    ----------
    directions : mapping of str to Directions
        Key of an encoder, see :func:`encoder_key`, to the unit vectors of the query.
    limits : mapping of str to tuple of float
        Key of an encoder, see :func:`encoder_key`, to the range of colours of its map.
    neighbourhood : NeighbourhoodConfig
        Which patches features are averaged over.
    """

    directions: Mapping[str, Directions] = field(default_factory=dict)
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    neighbourhood: NeighbourhoodConfig = PATCH_ALONE


class QueryOfSession:
    """Holds the query that the maps of a session show.

    Parameters
    ----------
    session : Session
        Session of the viewer.

    Attributes
    ----------
    query : SharedQuery or None
        The query; None if there is none.
    changed : Signal
        Emitted when it changed.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        self.query: SharedQuery | None = None

    def use(self, query: SharedQuery | None) -> None:
        """Share a query, or none."""
        if query is not self.query:
            self.query = query
            self.changed.emit()


def query_of(session: Session) -> QueryOfSession:
    """Return the shared query of a session, and create it on first use."""
    return session.part(QueryOfSession)


def encoder_key(encoder: Mapping[str, Any]) -> str:
    """Return what tells encoders apart: the fingerprint, or the name without one.

    Parameters
    ----------
    encoder : mapping
        As the features describe it.
    """
    return fingerprint_of(encoder) or str(encoder.get("spec") or "")
