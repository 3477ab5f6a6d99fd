"""Queries as they were: their examples for undo and redo, and the own one of each slide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from psygnal import Signal

from napari_mcm.core.heatmaps.examples import Examples

if TYPE_CHECKING:
    from napari_mcm.viewer.similarity.query import QuerySpec

MOST_STEPS = 100
"""Number of steps that are kept."""

ExampleKind = Literal["like", "unlike", "regions", ""]
"""A field of :class:`Examples`; empty where none is known."""

_KINDS: tuple[ExampleKind, ...] = ("like", "unlike", "regions")


_NONE = Examples()


class ExampleHistory:
    """All examples of queries on each slide, and which of them are current.

    Attributes
    ----------
    slide : str
        Fingerprint of the slide whose steps can be undone.
    changed : Signal
        Emitted when there is more or less to undo or to redo.
    added : Signal
        Emitted when the user made a step.
    """

    changed = Signal()
    added = Signal()

    def __init__(self) -> None:
        self.slide = ""
        self._steps = [Examples()]
        self._at = 0
        self._others: dict[str, tuple[list[Examples], int]] = {}

    def switch(self, slide: str) -> None:
        """Continue with the steps of another slide, which start with no examples.

        Parameters
        ----------
        slide : str
            Fingerprint of the slide.
        """
        if slide != self.slide:
            self._others[self.slide] = self._steps, self._at
            self.slide = slide
            self._steps, self._at = self._others.pop(slide, ([Examples()], 0))
            self.changed.emit()

    def restart(self, slide: str, examples: Examples = _NONE) -> None:
        """Start with examples that are stored, or add them to the steps of the slide.

        Parameters
        ----------
        slide : str
            Fingerprint of the slide. The steps of another one than :attr:`slide` stay as
            they are, if it has any.
        examples : Examples
            The first step, which cannot be undone.
        """
        if slide != self.slide:
            self._others.setdefault(slide, ([examples], 0))
        elif len(self._steps) > 1 or len(self._steps[0]):
            self.add(slide, examples)
        else:
            self._steps = [examples]
            self.changed.emit()

    def add(self, slide: str, examples: Examples) -> None:
        """Add a step, and forget those that were undone.

        Parameters
        ----------
        slide : str
            Fingerprint of the slide.
        examples : Examples
            The examples from now on.
        """
        self.switch(slide)
        if examples != self._steps[self._at]:
            self._steps[self._at + 1 :] = [examples]
            del self._steps[: -MOST_STEPS - 1]
            self._at = len(self._steps) - 1
            self.added.emit()
            self.changed.emit()

    def step(self, by: int) -> Examples | None:
        """Return an earlier or a later step; None if there is none.

        Parameters
        ----------
        by : int
            -1 for what undo leads to, 1 for what redo leads to, 0 for the current one.
        """
        at = self._at + by
        return self._steps[at] if 0 <= at < len(self._steps) else None

    def moved(self, by: int, away: bool) -> int | None:
        """Return by how many steps undo and redo move; None for not at all.

        Parameters
        ----------
        by : int
            -1 for undo, 1 for redo.
        away : bool
            Whether the query of another slide is shown over the current step: undo brings
            that step back.
        """
        if not away or not len(self._steps[self._at]):
            return by
        return 0 if by < 0 else None

    def move(self, by: int) -> None:
        """Make an earlier or a later step the current one.

        Parameters
        ----------
        by : int
            As :meth:`step` takes it.
        """
        self._at += by
        self.changed.emit()

    @property
    def at_start(self) -> bool:
        """Whether the first step is the current one."""
        return self._at == 0

    @property
    def newest(self) -> ExampleKind:
        """Kind of the example that was added last; empty if it is not known."""
        examples = self._steps[self._at]
        for before in reversed(self._steps[: self._at]):
            for kind in _KINDS:
                if len(getattr(examples, kind)) > len(getattr(before, kind)):
                    return kind
            examples = before
        return only_kind(self._steps[self._at])


def only_kind(examples: Examples) -> ExampleKind:
    """Return the kind of examples if all are of one kind, else an empty string."""
    kinds = [kind for kind in _KINDS if getattr(examples, kind)]
    return kinds[0] if len(kinds) == 1 else ""


class OwnQueries:
    """Knows the newest query with examples on each slide, and what it replaced."""

    def __init__(self) -> None:
        self._own: dict[str, QuerySpec] = {}
        self._replaced: dict[str, QuerySpec] = {}

    def note(self, spec: QuerySpec, here: bool) -> None:
        """Note a query that was answered.

        Parameters
        ----------
        spec : QuerySpec
            The query.
        here : bool
            Whether its examples are on the slide that it was run on. If not, only what is
            new of a known query is noted, such as its context.
        """
        # Slides that features do not name would be one and the same.
        if spec.slide and (here or is_same(self._own.get(spec.slide), spec)):
            self._own[spec.slide] = spec

    def note_replaced(self, slide: str, spec: QuerySpec) -> None:
        """Note the query of another slide that a slide's first own one replaces."""
        self._replaced[slide] = spec

    def forget(self, slide: str) -> None:
        """Forget the query of a slide, which was cleared."""
        self._own.pop(slide, None)

    def of(self, slide: str) -> QuerySpec | None:
        """Return the own query of a slide; None if it has none."""
        return self._own.get(slide)

    def replaced_on(self, slide: str) -> QuerySpec | None:
        """Return the query of another slide that the first own one replaced."""
        return self._replaced.get(slide)


def is_same(one: QuerySpec | None, other: QuerySpec) -> bool:
    """Return whether two queries have the same examples, whatever their context."""
    if one is None:
        return False
    return one.slide == other.slide and one.examples == other.examples
