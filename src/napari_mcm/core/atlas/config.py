"""The options of an atlas."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from napari_mcm.core.features.feature_set import NeighbourhoodConfig

MapMethod = Literal["pca", "umap"]
"""How the features become two numbers per patch."""

ClusterMethod = Literal["k-means", "leiden"]
"""How patches are put into clusters."""


class ClusterConfig(BaseModel):
    """How patches are put into clusters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    algorithm: ClusterMethod = Field(
        "k-means",
        description="Mini-batch k-means, or Leiden on the graph of the nearest "
        "neighbours, which finds their number itself and needs the extra atlas.",
        json_schema_extra={"flag": "cluster-by"},
    )
    count: int = Field(
        10,
        ge=2,
        le=200,
        description="Number of clusters of k-means.",
        json_schema_extra={"flag": "clusters"},
    )
    resolution: float = Field(
        1.0,
        gt=0,
        le=100,
        description="Of Leiden: a larger number gives more and smaller clusters.",
    )


class MapConfig(BaseModel):
    """How patches are placed on the 2-D map."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: MapMethod = Field(
        "pca",
        description="The first two principal components, or UMAP, which needs the extra "
        "atlas and minutes for 20,000 patches.",
        json_schema_extra={"flag": "map"},
    )
    neighbours: int = Field(
        15,
        ge=2,
        le=200,
        description="Of UMAP and Leiden: nearest patches that count as neighbours.",
    )
    min_distance: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Of UMAP: smallest distance of neighbours on the map.",
    )


class AtlasConfig(BaseModel):
    """Cluster the patches of slides, and place them on a 2-D map."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    features: tuple[Path, ...] = Field(
        min_length=1,
        description="Feature files of slides, by one encoder; or folders of them.",
    )
    out: Path | None = Field(
        None,
        description="Folder to write to: clusters.csv with one row per patch, and one "
        "GeoJSON file per slide.",
    )
    most: int = Field(
        100_000,
        ge=100,
        le=5_000_000,
        description="Most patches of the atlas. Of more, so many are drawn at random, "
        "from each slide in proportion.",
    )
    seed: int = Field(0, ge=0, description="Seed of all random choices.")
    align_slides: bool = Field(
        False,
        description="Subtract the mean features of each slide first, so that slides of "
        "other stains do not become clusters of their own. For slides that hold the same "
        "kinds of tissue.",
    )
    clusters: ClusterConfig = ClusterConfig()
    map: MapConfig = MapConfig()
    neighbourhood: NeighbourhoodConfig = NeighbourhoodConfig(radius=1)
