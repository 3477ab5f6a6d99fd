"""Options of a similarity map."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from napari_mcm.core.heatmaps.similarity import Limits, Pool
from napari_mcm.core.slides import ReadConfig

Point = tuple[float, float]


class SimilarityConfig(BaseModel):
    """Features, query points or a saved query, and where the heatmap goes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    features: Path = Field(description="Feature file of a slide.")
    at: tuple[Point, ...] = Field(
        (),
        description="Point of the query patch in level-0 pixels; see --pool for "
        "several.",
    )
    not_at: tuple[Point, ...] = Field(
        (), description="Point of a patch to be unlike, in level-0 pixels."
    )
    query: Path | None = Field(
        None,
        description="Saved query (.query.json) in place of --at: of this slide, or of "
        "another one and this encoder.",
    )
    pool: Pool = Field(
        "mean",
        description="Of several points, their mean direction counts (Rocchio), or the "
        "nearest of them.",
    )
    save_query: Path | None = Field(
        None, description="File to save the query in, for other slides."
    )
    above: float | None = Field(
        None,
        ge=-1,
        le=1,
        description="Write only patches of at least this cosine, and say their area.",
    )
    out: Path = Field(description="File to write: .png, .ome.tif or .geojson.")
    slide: Path | None = Field(
        None, description="Slide to show underneath in a figure."
    )
    limits: Limits = Field(
        "fixed",
        description="Range of the colours: -1 to 1; the 2nd to the 98th percentile of "
        "the map; or those of many queries to this encoder.",
    )
    before: Path | None = Field(
        None,
        description="Feature file of another encoder, of the same patches: the map shows "
        "what the first finds more alike, and less.",
    )
    read: ReadConfig = ReadConfig()
