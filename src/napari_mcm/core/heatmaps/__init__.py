"""Similarity and attention maps: one value per patch, as figures and as files."""

from napari_mcm.core.heatmaps.examples import Examples
from napari_mcm.core.heatmaps.heatmap import Heatmap, difference
from napari_mcm.core.heatmaps.query import (
    QueryFile,
    make_query,
    read_query,
    write_query,
)
from napari_mcm.core.heatmaps.similarity import heatmap_of, similarity, usual_range
from napari_mcm.core.heatmaps.similarity_index import SimilarityIndex
from napari_mcm.core.heatmaps.writers import write_heatmap

__all__ = [
    "Examples",
    "Heatmap",
    "QueryFile",
    "SimilarityIndex",
    "difference",
    "heatmap_of",
    "make_query",
    "read_query",
    "similarity",
    "usual_range",
    "write_heatmap",
    "write_query",
]
