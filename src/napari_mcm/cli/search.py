"""Search the slides of a cohort for patches that are similar to a query.

The query is examples on slides of the cohort, regions, a picture, or a saved query. The
most similar patches of all slides are listed with slide, place and value, and slides by
their most similar patches and the area above a threshold.
"""

from __future__ import annotations

from collections.abc import Sequence

from napari_mcm.cli.drive import drive
from napari_mcm.cli.output import Outcome, table
from napari_mcm.core.search import PatchMatch, SearchConfig, SlideMatch, search
from napari_mcm.core.search.writers import as_plain

OPTIONS, POSITIONAL = SearchConfig, "features"

_SHOWN = 10
"""Lines of each table that are printed; files have all."""


def run(options: SearchConfig) -> Outcome:
    """Search, and print the best patches and slides."""
    done = drive(search(options), "run the same command again to resume")
    result = done.result
    rows = [("query", done.query["title"]), ("encoder", done.query["encoder"])]
    if result.matches:
        searched = f"{result.searched:,} patches on {len(result.matches):,} slides"
        if result.indexed:
            searched += f", {result.indexed:,} with the index"
        rows.append(("searched", searched))
    lines = [
        *table(rows),
        *_patch_lines(result.patches),
        *_slide_lines(result.matches),
        *table([("file", str(file)) for file in done.files]),
    ]
    return Outcome(
        {**as_plain(result, done.query), "files": done.files}, lines, result.skipped
    )


def _patch_lines(patches: Sequence[PatchMatch]) -> list[str]:
    if not patches:
        return []
    cells = [("patch", "cosine", "x,y", "slide")] + [
        (str(rank), f"{patch.value:.3f}", f"{patch.x},{patch.y}", patch.slide)
        for rank, patch in enumerate(patches[:_SHOWN], 1)
    ]
    return _columns(cells, len(patches))


def _slide_lines(matches: Sequence[SlideMatch]) -> list[str]:
    if not matches:
        return []
    cells = [("slide", "best", "mean", "mm²", "name")] + [
        (
            str(rank),
            f"{match.best:.3f}",
            f"{match.mean:.3f}",
            f"{'≥ ' if match.is_lower_bound else ''}{match.area_mm2:.4g}",
            match.name,
        )
        for rank, match in enumerate(matches[:_SHOWN], 1)
    ]
    return _columns(cells, len(matches))


def _columns(cells: Sequence[tuple[str, ...]], total: int) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        for row in cells
    ]
    more = total - (len(cells) - 1)
    return [line.rstrip() for line in lines] + [f"... and {more:,} more"] * (more > 0)
