"""Search over many slides: one query, asked of every feature file of a cohort.

:func:`search` is the job of the verb, with a :class:`SearchConfig`: it makes the query of
examples, a saved query or a picture. :func:`search_slides` is the job for a query that is
made, with a :class:`CrossSlideConfig`. Both rank patches of all slides
(:class:`PatchMatch`) and slides (:class:`SlideMatch`); :func:`find_slide` finds the slide
file of a match. :class:`SearchIndex` serves cohorts of many millions of patches.
"""

from napari_mcm.core.search.config import SearchConfig
from napari_mcm.core.search.cross_slide import (
    CrossSlideConfig,
    find_slide,
    search_slides,
)
from napari_mcm.core.search.index import IndexReport, SearchIndex
from napari_mcm.core.search.result import CrossSlideResult, PatchMatch, SlideMatch
from napari_mcm.core.search.run import SearchOutcome, search
from napari_mcm.core.search.writers import write_result

__all__ = [
    "CrossSlideConfig",
    "CrossSlideResult",
    "IndexReport",
    "PatchMatch",
    "SearchConfig",
    "SearchIndex",
    "SearchOutcome",
    "SlideMatch",
    "find_slide",
    "search",
    "search_slides",
    "write_result",
]
