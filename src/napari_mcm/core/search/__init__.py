"""Search over many slides: one query, asked of every feature file of a folder.

:func:`search_slides` is the job, :class:`CrossSlideConfig` its options. It returns a
:class:`CrossSlideResult` with one :class:`SlideMatch` per slide, and :func:`find_slide`
finds the slide file of a match.
"""

from napari_mcm.core.search.cross_slide import (
    CrossSlideConfig,
    CrossSlideResult,
    SlideMatch,
    find_slide,
    search_slides,
)

__all__ = [
    "CrossSlideConfig",
    "CrossSlideResult",
    "SlideMatch",
    "find_slide",
    "search_slides",
]
