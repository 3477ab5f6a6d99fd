"""What a query says of itself: a line for the dock, a few words for the canvas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_mcm.core.heatmaps.examples import Examples, patches_within

if TYPE_CHECKING:
    from napari_mcm.core.grid import PatchGrid
    from napari_mcm.viewer.similarity.history import ExampleKind
    from napari_mcm.viewer.similarity.query import Query

_NAMES: dict[ExampleKind, str] = {
    "like": "similar",
    "unlike": "dissimilar",
    "regions": "region",
}


def count_examples(examples: Examples) -> str:
    """Return the numbers of examples: ``2 similar, 1 dissimilar``."""
    parts = []
    for kind, text in _NAMES.items():
        if number := len(getattr(examples, kind)):
            plural = "s" if kind == "regions" and number > 1 else ""
            parts.append(f"{number} {text}{plural}")
    return ", ".join(parts)


def name_query(query: Query, here: bool | None = None) -> str:
    """Return a query in a few words, for the caption on the canvas.

    Parameters
    ----------
    query : Query
        The query.
    here : bool, optional
        Whether the examples are on the slide of the caption; by default as for the query.

    Returns
    -------
    str
        The numbers of examples, with their slide if it is another one. Not the place:
        napari draws a caption that changes with every click 8 ms slower.
    """
    count = count_examples(query.spec.examples) or "query"
    if not (query.here if here is None else here):
        return f"{count} of {query.spec.name}"
    return count


def describe_query(query: Query) -> str:
    """Return a query as one line: its examples, and where the newest one is.

    Place and number are always of the same example. Of a region, they are the patches in
    it and their area.
    """
    if not query.here:
        return f"Query from slide {query.spec.name}, run on this slide."
    examples = query.spec.examples
    count = count_examples(examples)
    lines = [] if count == "1 similar" else [count]
    if query.newest == "regions":
        lines += _describe_regions(query)
    elif query.newest:
        unit, at = ("µm", query.um) if query.um else ("px", query.xy)
        place = f"x {at[0]:,.1f} {unit}, y {at[1]:,.1f} {unit}"
        newest = f"newest ({_NAMES[query.newest]}): " if len(examples) > 1 else ""
        lines.append(newest + place)
        lines += [f"patch {row:,} of {total:,}" for row, total in _rows(query)]
    return " · ".join(dict.fromkeys(lines))


def _grids(query: Query) -> list[PatchGrid]:
    found = [one.heatmap.grid for one in query.results.values() if one is not None]
    return list({id(grid): grid for grid in found}.values())


def _rows(query: Query) -> list[tuple[int, int]]:
    """Return the patch of the newest example, and the number of patches, of each grid."""
    rows = [(grid.index_at(*query.xy), len(grid)) for grid in _grids(query)]
    return list(dict.fromkeys((row, total) for row, total in rows if row is not None))


def _describe_regions(query: Query) -> list[str]:
    lines = []
    for grid in _grids(query):
        patches = len(patches_within(grid, query.spec.examples.regions))
        width, height = grid.patch_size_level0
        text = f"{patches:,} of {len(grid):,} patches"
        if query.mpp is not None:
            area = patches * width * height * query.mpp[0] * query.mpp[1] / 1e6
            text += f", {area:,.3f} mm²"
        lines.append(text)
    return lines
