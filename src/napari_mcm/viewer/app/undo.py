"""One key for undo, and several things that can be undone: in the order they were done."""

from __future__ import annotations

from typing import Protocol

from psygnal import Signal

MOST_STEPS = 300
"""Number of steps whose order is kept."""


class Undoable(Protocol):
    """What has steps of its own: the examples of a query, or the labels of patches."""

    @property
    def can_undo(self) -> bool:
        """Whether there is an earlier step."""

    @property
    def can_redo(self) -> bool:
        """Whether a step was undone."""

    def undo(self) -> None:
        """Go back by a step."""

    def redo(self) -> None:
        """Make the step again that was undone last."""


class UndoOrder:
    """Knows which of several things was changed last, and undoes that one.

    Steps of the order that cannot be undone now, such as those of another slide's query,
    are passed over, and kept.

    Attributes
    ----------
    moved : Signal
        Emitted when something is changed, undone or redone: what was said before is over.
    """

    moved = Signal()

    def __init__(self) -> None:
        self._parts: dict[str, Undoable] = {}
        self._done: list[str] = []
        self._undone: list[str] = []

    def register(self, name: str, part: Undoable) -> None:
        """Add a thing that can be undone.

        Parameters
        ----------
        name : str
            Identifies it in :meth:`note`.
        part : Undoable
            Its steps.
        """
        self._parts[name] = part

    def note(self, name: str) -> None:
        """Note that a thing was changed now; what was undone before stays undone."""
        self._done.append(name)
        del self._done[:-MOST_STEPS]
        self._undone = [one for one in self._undone if one != name]
        self.moved.emit()

    def undo(self, name: str = "") -> None:
        """Undo the last change of one thing, or of the one that was changed last.

        Parameters
        ----------
        name : str
            The thing; empty for any.
        """
        chosen = self._choose(self._done, name, "can_undo")
        if chosen:
            self._move(chosen, self._done, self._undone)
            self._parts[chosen].undo()
            self.moved.emit()

    def redo(self, name: str = "") -> None:
        """Redo what was undone last, of one thing or of any.

        Parameters
        ----------
        name : str
            The thing; empty for any.
        """
        chosen = self._choose(self._undone, name, "can_redo")
        if chosen:
            self._move(chosen, self._undone, self._done)
            self._parts[chosen].redo()
            self.moved.emit()

    def _choose(self, order: list[str], name: str, possible: str) -> str:
        # Steps without an order, such as those of a stored query, come last.
        for one in (name,) if name else (*reversed(order), *self._parts):
            if one in self._parts and getattr(self._parts[one], possible):
                return one
        return ""

    @staticmethod
    def _move(name: str, source: list[str], target: list[str]) -> None:
        if name in source:
            at = len(source) - 1 - source[::-1].index(name)
            del source[at]
        target.append(name)
