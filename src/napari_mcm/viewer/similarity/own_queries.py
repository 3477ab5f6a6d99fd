"""The query of each slide, while that of another slide may be shown on it."""

from __future__ import annotations

from napari_mcm.viewer.similarity.query import QuerySpec


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
