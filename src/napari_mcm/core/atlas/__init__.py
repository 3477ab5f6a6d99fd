"""The atlas of a cohort: clusters of its patches, and a 2-D map of them.

:func:`make_atlas` is the job, :class:`AtlasConfig` its options, :class:`Atlas` what it
returns. :func:`find_clusters` and :func:`place_patches` change one part of an atlas,
:func:`write_atlas` writes it.
"""

from napari_mcm.core.atlas.atlas import (
    Atlas,
    find_clusters,
    make_atlas,
    place_patches,
)
from napari_mcm.core.atlas.clusters import kmeans_clusters, typical_patches
from napari_mcm.core.atlas.colours import distinct_colours
from napari_mcm.core.atlas.config import AtlasConfig, ClusterConfig, MapConfig
from napari_mcm.core.atlas.lasso import points_inside
from napari_mcm.core.atlas.neighbours import is_installed
from napari_mcm.core.atlas.pca import principal_axes, reduce_features
from napari_mcm.core.atlas.sample import AtlasSlide
from napari_mcm.core.atlas.writers import write_atlas

__all__ = [
    "Atlas",
    "AtlasConfig",
    "AtlasSlide",
    "ClusterConfig",
    "MapConfig",
    "distinct_colours",
    "find_clusters",
    "is_installed",
    "kmeans_clusters",
    "make_atlas",
    "place_patches",
    "points_inside",
    "principal_axes",
    "reduce_features",
    "typical_patches",
    "write_atlas",
]
