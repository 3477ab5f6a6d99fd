"""Measures neighbourhood averages ahead of their use, in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.viewer.app.background import BackgroundWorker

if TYPE_CHECKING:
    from napari_mcm.viewer.app.features import LoadedFeatures

_RADII = range(1, 4)

_WANTED, _AHEAD = "wanted", "ahead"


class NeighbourhoodPreparation:
    """Prepares features for queries with context: what is wanted now, then the rest.

    Features of slides that are no longer active are left as they are within a fraction
    of a second, so that closed slides free their memory.

    Parameters
    ----------
    report_error : callable
        Called with a message of one line if something fails.

    Attributes
    ----------
    waiting : bool
        Whether a query waits for its neighbourhood.
    changed : Signal
        Emitted when `waiting` changed.
    """

    changed = Signal()

    def __init__(self, report_error: Callable[[str], None]) -> None:
        self._report_error = report_error
        self._worker = BackgroundWorker("context")
        self._active: tuple[LoadedFeatures, ...] = ()
        # Read in the thread: replaced as a whole, never changed.
        self._wanted: tuple[tuple[LoadedFeatures, ...], NeighbourhoodConfig] | None
        self._wanted = None

    @property
    def waiting(self) -> bool:
        """Whether a query waits for its neighbourhood."""
        return self._wanted is not None

    def activate(self, features: Iterable[LoadedFeatures]) -> None:
        """Prepare all neighbourhoods of some features, and stop preparing others.

        Parameters
        ----------
        features : iterable of LoadedFeatures
            Features of the active slide; none to stop.
        """
        self._active = tuple(features)
        if self._wanted is not None and not set(self._wanted[0]) <= set(self._active):
            self._end_waiting()
        if any(
            not one.is_ready(NeighbourhoodConfig(radius=radius))
            for one in self._active
            for radius in _RADII
        ):
            self._start_ahead()
        else:
            self._worker.drop(_AHEAD)

    def when_ready(
        self,
        features: Iterable[LoadedFeatures],
        neighbourhood: NeighbourhoodConfig,
        then: Callable[[], None],
    ) -> None:
        """Call a function once features are ready for queries with a neighbourhood.

        A later call replaces one that still waits.

        Parameters
        ----------
        features : iterable of LoadedFeatures
            Features that the query is run on.
        neighbourhood : NeighbourhoodConfig
            The neighbourhood.
        then : callable
            Called in the GUI thread without arguments; at once where all is ready.
        """
        needed = tuple(features)
        if all(one.is_ready(neighbourhood) for one in needed):
            self._worker.drop(_WANTED)
            self._end_waiting()
            then()
            return
        self._active = tuple(dict.fromkeys((*self._active, *needed)))
        self._wanted = (needed, neighbourhood)
        self.changed.emit()

        def ready(_: object) -> None:
            self._end_waiting()
            then()

        def failed(problem: str) -> None:
            self._end_waiting()
            self._report_error(problem)

        self._worker.submit(
            _WANTED, lambda: self._prepare(needed, (neighbourhood,)), ready, failed
        )
        # What is prepared ahead makes way, and goes on afterwards.
        self._start_ahead()

    def _start_ahead(self) -> None:
        features = self._active
        ahead = tuple(NeighbourhoodConfig(radius=radius) for radius in _RADII)
        self._worker.submit(
            _AHEAD,
            lambda: self._prepare(features, ahead),
            lambda _: None,
            self._report_error,
        )

    def _prepare(
        self,
        features: tuple[LoadedFeatures, ...],
        neighbourhoods: tuple[NeighbourhoodConfig, ...],
    ) -> None:
        """Prepare in the thread, until something else is wanted."""
        for neighbourhood in neighbourhoods:
            for one in features:
                for _ in one.prepare(neighbourhood):
                    if not self._is_due(one, neighbourhood):
                        break

    def _is_due(
        self, features: LoadedFeatures, neighbourhood: NeighbourhoodConfig
    ) -> bool:
        wanted = self._wanted
        if wanted is not None:
            return features in wanted[0] and neighbourhood == wanted[1]
        return features in self._active

    def _end_waiting(self) -> None:
        if self._wanted is not None:
            self._wanted = None
            self.changed.emit()
