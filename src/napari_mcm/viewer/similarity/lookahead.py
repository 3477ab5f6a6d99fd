"""Work that follows the cursor: one piece at a time, and always the newest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from napari_mcm.core.heatmaps.similarity import Limits
from napari_mcm.viewer.app.background import Background
from napari_mcm.viewer.similarity.query import Answer, QuerySpec, answer, answers

if TYPE_CHECKING:
    from napari_mcm.viewer.app.features import Loaded


class LatestOnlyWorker:
    """Does work for the newest of many positions, in a thread.

    While a piece of work is being done, later positions replace each other; when it is
    done it is shown, and the newest one is taken. So what is shown lags behind by one
    piece of work at most, and is never out of order.

    Parameters
    ----------
    work : callable
        Called in the thread with a position; gives what is to be shown.
    show : callable
        Called in this thread with what `work` gave.
    failed : callable
        Called in this thread with one line.
    """

    def __init__(
        self,
        work: Callable[[Any], Any],
        show: Callable[[Any], None],
        failed: Callable[[str], None],
    ) -> None:
        self._work, self._show, self._failed = work, show, failed
        self._thread = Background()
        self._next: Any = None
        self._busy = False

    def connect(self, position: Any) -> None:
        """Take a new position; an older one that was not begun is dropped."""
        self._next = position
        self._advance()

    def stop(self) -> None:
        """Drop what was not begun, and do not show what is being done."""
        self._next, self._busy = None, False
        self._thread.drop("follow")

    def _advance(self) -> None:
        if self._busy or self._next is None:
            return
        position, self._next = self._next, None
        self._busy = True
        work = partial(self._work, position)
        self._thread.submit("follow", work, self._arrived, self._could_not)

    def _arrived(self, result: Any) -> None:
        self._busy = False
        # The next is worked on while this one is drawn.
        self._advance()
        self._show(result)

    def _could_not(self, problem: str) -> None:
        self._busy = False
        self._failed(problem)
        self._advance()


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
        pool = ThreadPoolExecutor(2, thread_name_prefix="napari-mcm-speculative")
        futures = {
            slot: pool.submit(answer, one, spec, limits) for slot, one in loaded.items()
        }
        pool.shutdown(wait=False)
        self._begun = _same(loaded, spec, limits), futures

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
