"""Queries that start when the mouse button goes down, ahead of the click."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING

from napari_mcm.core.heatmaps.color_limits import Limits
from napari_mcm.viewer.similarity.query import (
    QueryResult,
    QuerySpec,
    query_all,
    start_queries,
)

if TYPE_CHECKING:
    from napari_mcm.viewer.app.features import LoadedFeatures


_Results = dict[str, QueryResult | None]
"""Slot to result."""


class SpeculativeQuery:
    """A query that starts when the button is pressed, before the click is complete.

    Users hold the button for about 80 ms, and a query takes about 15 ms, so its result is
    ready when they release it. A press that becomes a drag cancels the query. NumPy's
    matrix product cannot be interrupted; each query has its own threads, so that the next
    one never waits.
    """

    def __init__(self) -> None:
        self._started: tuple[object, dict[str, Future[QueryResult | None]]] | None = (
            None
        )

    def begin(
        self, loaded: Mapping[str, LoadedFeatures], spec: QuerySpec, limits: Limits
    ) -> None:
        """Start a query in threads, and cancel the previous one.

        Parameters
        ----------
        loaded : mapping
            Slot to features.
        spec : QuerySpec
            The query.
        limits : Limits
            How the range of colours is chosen.
        """
        self.cancel()
        self._started = (
            _key(loaded, spec, limits),
            start_queries(loaded, spec, limits),
        )

    def cancel(self) -> None:
        """Cancel the query; do not wait for a computation that is running."""
        started, self._started = self._started, None
        for future in started[1].values() if started is not None else ():
            future.cancel()

    def results(
        self, loaded: Mapping[str, LoadedFeatures], spec: QuerySpec, limits: Limits
    ) -> _Results:
        """Return the results of a query, and reuse the started one if it is the same.

        Parameters
        ----------
        loaded, spec, limits
            As :meth:`begin` takes them.

        Raises
        ------
        FeatureError
            If the examples cancel each other out.
        """
        started = self._started
        if started is None or started[0] != _key(loaded, spec, limits):
            self.cancel()
            return query_all(loaded, spec, limits)
        self._started = None
        return {slot: future.result() for slot, future in started[1].items()}


def _key(
    loaded: Mapping[str, LoadedFeatures], spec: QuerySpec, limits: Limits
) -> tuple[object, ...]:
    """Return a key that is equal for equal queries.

    Features are compared by identity: comparing their values would be slow.
    """
    features = tuple((slot, id(one)) for slot, one in loaded.items())
    encoders = tuple(sorted(spec.directions))
    asked = spec.examples, spec.slide, encoders, spec.neighbourhood
    return features, *asked, limits
