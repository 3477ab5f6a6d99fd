"""Similarity and attention as values on the grid, as pictures and as files."""

from napari_mcm.core.heatmaps.heatmap import Heatmap
from napari_mcm.core.heatmaps.similarity import SimilarityIndex, similarity
from napari_mcm.core.heatmaps.writers import write_heatmap

__all__ = ["Heatmap", "SimilarityIndex", "similarity", "write_heatmap"]
