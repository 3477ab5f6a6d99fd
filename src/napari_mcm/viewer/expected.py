"""The answer to a click, begun while the button is still down."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from napari_mcm.core.heatmaps.ranges import Limits
from napari_mcm.viewer.question import Answer, Question, answers

if TYPE_CHECKING:
    from napari_mcm.viewer.tasks import Loaded

_Answers = dict[str, Answer | None]


class Expected:
    """Answers ahead of the question: a press is soon a click.

    A person holds the button for some 80 ms, in which there is time for what takes 15.
    Where the press becomes a drag, nobody asks for what was found.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="napari-mcm-expected")
        self._begun: tuple[object, Future[_Answers]] | None = None

    def begin(
        self, loaded: Mapping[str, Loaded], question: Question, limits: Limits
    ) -> None:
        """Look for the answers in a thread."""
        future = self._thread.submit(answers, loaded, question, limits)
        self._begun = _same(loaded, question, limits), future

    def answers(
        self, loaded: Mapping[str, Loaded], question: Question, limits: Limits
    ) -> _Answers:
        """Give the answers, those that were begun where they are to the same question.

        Raises
        ------
        FeatureError
            If the examples cancel each other out.
        """
        begun, self._begun = self._begun, None
        if begun is None or begun[0] != _same(loaded, question, limits):
            return answers(loaded, question, limits)
        return begun[1].result()


def _same(
    loaded: Mapping[str, Loaded], question: Question, limits: Limits
) -> tuple[object, ...]:
    """Give what tells questions apart; features by who they are, not what they hold."""
    asked = tuple((slot, id(one)) for slot, one in loaded.items())
    known = tuple(sorted(question.directions))
    return asked, question.examples, question.slide, known, limits
