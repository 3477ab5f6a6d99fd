"""The answer to a click, begun when the button goes down."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING

from napari_mcm.core.heatmaps.similarity import Limits
from napari_mcm.viewer.similarity.query import (
    Answer,
    QuerySpec,
    answers,
    begin_answers,
)

if TYPE_CHECKING:
    from napari_mcm.viewer.app.features import Loaded


_Answers = dict[str, Answer | None]


class SpeculativeQuery:
    """Answers ahead of the question: a press is soon a click.

    A person holds the button for some 80 ms, in which there is time for what takes 15.
    A press that becomes a drag cancels its query. A product that is being computed
    cannot be interrupted, so each query has threads of its own: no later one waits.
    """

    def __init__(self) -> None:
        self._begun: tuple[object, dict[str, Future[Answer | None]]] | None = None

    def begin(
        self, loaded: Mapping[str, Loaded], spec: QuerySpec, limits: Limits
    ) -> None:
        """Compute the answers in threads, in place of those that were begun before."""
        self.cancel()
        self._begun = (
            _same(loaded, spec, limits),
            begin_answers(loaded, spec, limits),
        )

    def cancel(self) -> None:
        """Drop what was begun; nothing waits for what is being computed."""
        begun, self._begun = self._begun, None
        for future in begun[1].values() if begun is not None else ():
            future.cancel()

    def answers(
        self, loaded: Mapping[str, Loaded], spec: QuerySpec, limits: Limits
    ) -> _Answers:
        """Return the answers, those that were begun where they are to the same question.

        Raises
        ------
        FeatureError
            If the examples cancel each other out.
        """
        begun = self._begun
        if begun is None or begun[0] != _same(loaded, spec, limits):
            self.cancel()
            return answers(loaded, spec, limits)
        self._begun = None
        return {slot: future.result() for slot, future in begun[1].items()}


def _same(
    loaded: Mapping[str, Loaded], spec: QuerySpec, limits: Limits
) -> tuple[object, ...]:
    """Return what tells questions apart; features by who they are, not what they hold."""
    asked = tuple((slot, id(one)) for slot, one in loaded.items())
    known = tuple(sorted(spec.directions))
    return asked, spec.examples, spec.slide, known, limits
