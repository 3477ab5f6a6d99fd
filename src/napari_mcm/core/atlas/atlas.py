"""The `Atlas`: patches of slides in clusters and on a 2-D map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.atlas.clusters import by_size, kmeans_clusters
from napari_mcm.core.atlas.config import AtlasConfig
from napari_mcm.core.atlas.kept_maps import place_of_map, read_map, write_map
from napari_mcm.core.atlas.neighbours import compute_apart
from napari_mcm.core.atlas.pca import reduce_features
from napari_mcm.core.atlas.sample import (
    AtlasSlide,
    Sample,
    align_slides,
    find_files,
    read_sample,
)
from napari_mcm.core.errors import McmError
from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.runtime.jobs import Job, Note
from napari_mcm.core.runtime.overall import portion
from napari_mcm.core.runtime.threads import run_in_thread


@dataclass(frozen=True, eq=False)
class Atlas:
    """Patches of one slide or of many, in clusters and on a 2-D map.

    Attributes
    ----------
    config : AtlasConfig
        What it was made with; its `features` are files.
    slides : tuple of AtlasSlide
        The slides.
    slide : ndarray of int32, shape (N,)
        Position of each patch's slide in `slides`.
    row : ndarray of int32, shape (N,)
        Row of each patch in the grid of its slide.
    reduced : ndarray of float32, shape (N, K)
        Principal components of the patches, at most 50.
    clusters : ndarray of int32, shape (N,)
        Cluster of each patch, from 0, the largest.
    map : ndarray of float32, shape (N, 2)
        Places (x, y) on the map, which has no units.
    available : int
        Number of patches with features, of which N were taken.
    """

    config: AtlasConfig
    slides: tuple[AtlasSlide, ...]
    slide: NDArray[np.int32]
    row: NDArray[np.int32]
    reduced: NDArray[np.float32]
    clusters: NDArray[np.int32]
    map: NDArray[np.float32]
    available: int

    def __len__(self) -> int:
        return len(self.row)

    @property
    def cluster_count(self) -> int:
        """Number of clusters.

        Returns
        -------
        int
        """
        return int(self.clusters.max(initial=-1)) + 1

    def patches_of(self, slide: int) -> NDArray[np.intp]:
        """Return the patches of one slide.

        Parameters
        ----------
        slide : int
            Position of the slide.

        Returns
        -------
        ndarray of int
            Positions in the arrays of the atlas, ascending.
        """
        return np.flatnonzero(self.slide == slide)

    def corner_of(self, patch: int) -> tuple[int, int]:
        """Return where a patch lies on its slide.

        Parameters
        ----------
        patch : int
            Position in the arrays of the atlas.

        Returns
        -------
        tuple of int
            Upper left corner (x, y) in level-0 pixels.
        """
        x, y = self.slides[self.slide[patch]].grid.xy[self.row[patch]]
        return int(x), int(y)


def make_atlas(
    config: AtlasConfig, loaded: Mapping[Path, FeatureSet] | None = None
) -> Job[Atlas]:
    """Read features, cluster the patches, and place them on a map.

    Parameters
    ----------
    config : AtlasConfig
        Feature files and options; `out` is not looked at.
    loaded : mapping of Path to FeatureSet, optional
        Features of some files that are in memory already.

    Yields
    ------
    Progress
        Of each step.
    Note
        Where not all patches are taken.

    Returns
    -------
    Atlas
        The same features and options always give the same one.

    Raises
    ------
    McmError
        If features cannot be read, are of several encoders, or a method needs the extra
        ``atlas``.
    """
    loaded = {file.absolute(): one for file, one in (loaded or {}).items()}
    files = find_files(config.features, loaded)
    config = config.model_copy(update={"features": files})
    apart = config.clusters.algorithm == "leiden", config.map.method == "umap"
    ends = np.cumsum([4.0, 2.0, 20.0 if apart[0] else 2.0, 40.0 if apart[1] else 0.1])
    at = [0.0, *(ends / ends[-1]).tolist()]
    reading = read_sample(files, config.neighbourhood, config.most, config.seed, loaded)
    sample = yield from portion(reading, at[0], at[1])
    if len(sample.row) < sample.available:
        yield Note(
            f"{len(sample.row):,} of {sample.available:,} patches, drawn at random"
        )
    reducing = run_in_thread(
        "Finding principal components", _reduce, sample, config, abandon=True
    )
    reduced = yield from portion(reducing, at[1], at[2])
    count = len(reduced)
    atlas = Atlas(
        config,
        sample.slides,
        sample.slide,
        sample.row,
        reduced,
        np.zeros(count, np.int32),
        np.zeros((count, 2), np.float32),
        sample.available,
    )
    atlas = yield from portion(find_clusters(atlas, config), at[2], at[3])
    return (yield from portion(place_patches(atlas, config), at[3], at[4]))


def _reduce(sample: Sample, config: AtlasConfig) -> NDArray[np.float32]:
    if config.align_slides:
        align_slides(sample)
    return reduce_features(sample.vectors, seed=config.seed)


def find_clusters(atlas: Atlas, config: AtlasConfig) -> Job[Atlas]:
    """Cluster the patches of an atlas anew.

    Parameters
    ----------
    atlas : Atlas
        The atlas.
    config : AtlasConfig
        Its `clusters` and `seed` count, and the number of neighbours.

    Yields
    ------
    Progress
        Of the step.

    Returns
    -------
    Atlas
        With other clusters, on the same map.

    Raises
    ------
    McmError
        If Leiden is not installed, or fails.
    """
    options = config.clusters
    if options.algorithm == "k-means":
        clusters = yield from run_in_thread(
            "Finding clusters by k-means",
            lambda: kmeans_clusters(atlas.reduced, options.count, config.seed),
            abandon=True,
        )
    else:
        found = yield from compute_apart(
            "leiden",
            atlas.reduced,
            {
                "neighbours": config.map.neighbours,
                "resolution": options.resolution,
                "seed": config.seed,
            },
        )
        clusters = by_size(found)
    kept = atlas.config.model_copy(update={"clusters": options, "seed": config.seed})
    return replace(atlas, clusters=clusters, config=kept)


def place_patches(atlas: Atlas, config: AtlasConfig) -> Job[Atlas]:
    """Place the patches of an atlas on a map by another method.

    A map by UMAP is kept in the folder ``atlas`` beside the features, and read from
    there the next time.

    Parameters
    ----------
    atlas : Atlas
        The atlas.
    config : AtlasConfig
        Its `map` and `seed` count.

    Yields
    ------
    Progress
        Of the step.
    Note
        If the map cannot be kept.

    Returns
    -------
    Atlas
        With the same clusters, on another map.

    Raises
    ------
    McmError
        If UMAP is not installed, or fails.
    """
    if config.map.method == "pca" or len(atlas) < 4:
        placed = np.zeros((len(atlas), 2), np.float32)
        shown = atlas.reduced[:, :2]
        placed[:, : shown.shape[1]] = shown
    else:
        placed = yield from _umap(atlas, config)
    kept = atlas.config.model_copy(update={"map": config.map, "seed": config.seed})
    return replace(atlas, map=placed, config=kept)


def _umap(atlas: Atlas, config: AtlasConfig) -> Job[NDArray[np.float32]]:
    options = {
        "neighbours": config.map.neighbours,
        "min_distance": config.map.min_distance,
        "seed": config.seed,
    }
    made = atlas.config
    drawn = {"most": made.most, "draw": made.seed, "method": "umap"}
    drawn["aligned"] = made.align_slides
    context = made.neighbourhood.model_dump()
    file = yield from run_in_thread(
        "Looking for a map",
        place_of_map,
        made.features,
        options | drawn | {"context": context},
    )
    placed = None if file is None else read_map(file, len(atlas))
    if placed is not None:
        return placed
    placed = yield from compute_apart("umap", atlas.reduced, options)
    try:
        if file is not None:
            write_map(file, placed)
    except McmError as error:
        yield Note(f"The map is not kept: {error}", "warning")
    return placed
