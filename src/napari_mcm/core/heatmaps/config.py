"""The options of a similarity map."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.core.heatmaps.color_limits import Limits
from napari_mcm.core.heatmaps.similarity_index import Pool
from napari_mcm.core.slides import ReadConfig

DEFAULT_RADIUS = 1
"""Context of a query where none is chosen, in the viewer and on the command line."""

Point = tuple[float, float]


class SimilarityConfig(BaseModel):
    """Compute a heatmap of the similarity to query points, or to a saved query."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    features: Path = Field(description="Feature file of a slide.")
    at: tuple[Point, ...] = Field(
        (),
        description="Point in a similar example patch, in level-0 pixels; --pool "
        "combines several.",
    )
    not_at: tuple[Point, ...] = Field(
        (),
        description="Point in a dissimilar example patch, in level-0 pixels.",
        json_schema_extra={"flag": "dissimilar-at"},
    )
    query: Path | None = Field(
        None,
        description="Saved query (.query.json) in place of --at, made on this slide or "
        "with this encoder.",
    )
    pool: Pool = Field(
        "mean",
        description="How to combine several points: by their mean direction (Rocchio), "
        "or by the nearest of them.",
    )
    save_query: Path | None = Field(
        None, description="File to save the query to, for use on other slides."
    )
    above: float | None = Field(
        None,
        ge=-1,
        le=1,
        description="Write only patches of at least this cosine, and report their area.",
        json_schema_extra={"flag": "threshold"},
    )
    out: Path = Field(description="File to write: .png, .ome.tif or .geojson.")
    slide: Path | None = Field(
        None, description="Slide to show underneath in a figure."
    )
    limits: Limits = Field(
        "fixed",
        description="Range of the colours: -1 to 1 (fixed); the 2nd to the 98th "
        "percentile of the map (robust), or of many queries to this encoder (encoder).",
    )
    before: Path | None = Field(
        None,
        description="Feature file of another encoder, of the same patches; the map shows "
        "the similarity by the first encoder less that by this one.",
        json_schema_extra={"flag": "compare-with"},
    )
    read: ReadConfig = ReadConfig()
    neighbourhood: NeighbourhoodConfig = NeighbourhoodConfig(radius=DEFAULT_RADIUS)

    def neighbourhood_of(
        self, made: NeighbourhoodConfig | None = None, source: object = None
    ) -> NeighbourhoodConfig:
        """Return over which patches features are averaged.

        Parameters
        ----------
        made : NeighbourhoodConfig, optional
            What the saved query, or the feature file, is made with.
        source : object, optional
            Its file, for the error message.

        Returns
        -------
        NeighbourhoodConfig
            As the options say; what they leave open is as `made` says, or the default.

        Raises
        ------
        ConfigError
            If the options say otherwise than `made`.
        """
        return settle_neighbourhood(self, made, source)


class _HasNeighbourhood(Protocol):
    """Options of a query, with its context."""

    @property
    def neighbourhood(self) -> NeighbourhoodConfig:
        """Over which patches features are averaged."""

    @property
    def model_fields_set(self) -> set[str]:
        """The options that were set."""


def settle_neighbourhood(
    options: _HasNeighbourhood,
    made: NeighbourhoodConfig | None = None,
    source: object = None,
) -> NeighbourhoodConfig:
    """Return over which patches features are averaged, for a query's options.

    Parameters
    ----------
    options : BaseModel
        Options with a field ``neighbourhood``.
    made : NeighbourhoodConfig, optional
        What the saved query, or the feature file, is made with.
    source : object, optional
        Its file, for the error message.

    Returns
    -------
    NeighbourhoodConfig
        As the options say; what they leave open is as `made` says, or the default.

    Raises
    ------
    ConfigError
        If the options say otherwise than `made`.
    """
    given = "neighbourhood" in options.model_fields_set
    own = options.neighbourhood.model_dump(exclude_unset=True) if given else {}
    usual = made or NeighbourhoodConfig(radius=DEFAULT_RADIUS)
    chosen = usual.model_copy(update=own)
    if made is None or chosen.describe() == made.describe():
        return made or chosen
    raise ConfigError(
        f"was made with context {made.describe()}, not {chosen.describe()}",
        source,
        f"Leave out --context, or give --context {made.radius}",
    )
