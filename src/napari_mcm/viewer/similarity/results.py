"""Adds the area that the dock shows to the results table."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from napari_mcm.core.project import ResultRow
from napari_mcm.viewer.project.controller import project_of
from napari_mcm.viewer.project.results import results_of
from napari_mcm.viewer.similarity.query_text import count_examples

if TYPE_CHECKING:
    from napari_mcm.viewer.similarity.context import SimilarityContext


def add_result(context: SimilarityContext) -> None:
    """Add the area above the threshold to the results table, as it is now.

    Parameters
    ----------
    context : SimilarityContext
        Query, maps and shortcuts of the viewer.
    """
    row = measure(context)
    if row is None:
        context.session.report_error("There is no map yet: click on the slide")
    else:
        # It saves the row, whether or not its dock was ever open.
        project_of(context.session)
        results_of(context.session).add(row)


def measure(context: SimilarityContext) -> ResultRow | None:
    """Return the area above the threshold as a row; None without a map.

    Parameters
    ----------
    context : SimilarityContext
        Query, maps and shortcuts of the viewer.
    """
    session, query, areas = context.session, context.query, context.areas
    shown, measured = context.queries.shown_map(), areas.area
    slide, metadata = session.slide, session.metadata
    if query is None or shown is None or measured is None or slide is None:
        return None
    slot, heatmap = shown
    loaded = session.features(slot)
    compared = int(np.isfinite(heatmap.values).sum())
    words = count_examples(query.spec.examples) or "saved query"
    return ResultRow(
        slide=metadata.name if metadata is not None else slide.name,
        fingerprint=str(heatmap.grid.slide.get("fingerprint") or ""),
        query=words if query.here else f"{words} of {query.spec.name}",
        encoder=loaded.label if loaded is not None else "",
        context=heatmap.neighbourhood.describe(),
        threshold=areas.threshold,
        area_mm2=measured[0],
        tissue_percent=100 * measured[1] / compared if compared else None,
        patches=measured[1],
        added=datetime.now(UTC).isoformat(timespec="seconds"),
    )
