"""The options of a search, with its query."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from napari_mcm.core.encoders.compute import ComputeConfig
from napari_mcm.core.errors import ConfigError
from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.core.heatmaps.config import DEFAULT_RADIUS
from napari_mcm.core.heatmaps.similarity_index import Pool
from napari_mcm.core.search.cross_slide import CrossSlideConfig
from napari_mcm.core.slides import ReadConfig

OUTPUTS = (".json", ".csv", ".geojson")


class SearchConfig(CrossSlideConfig):
    """Search the slides of a cohort for patches that are similar to a query."""

    at: tuple[str, ...] = Field(
        (),
        description="Similar example: SLIDE:X,Y, a point on a slide of the cohort in "
        "level-0 pixels; --pool combines several.",
    )
    not_at: tuple[str, ...] = Field(
        (),
        description="Dissimilar example: SLIDE:X,Y.",
        json_schema_extra={"flag": "dissimilar-at"},
    )
    region: tuple[str, ...] = Field(
        (),
        description="Similar region: SLIDE:FILE, outlines in a GeoJSON file, in level-0 "
        "pixels.",
    )
    picture: tuple[Path, ...] = Field(
        (),
        description="Picture or slide whose tissue is the example; the encoder of the "
        "features encodes it at their resolution. --mpp-override states its own.",
    )
    query: Path | None = Field(
        None, description="Saved query (.query.json) in place of examples."
    )
    pool: Pool = Field(
        "mean",
        description="How to combine several examples: by their mean direction (Rocchio), "
        "or by the nearest of them.",
    )
    encoder: str | None = Field(
        None,
        description="Encoder of the features, where there are several, or its weights "
        "where they have moved.",
    )
    save_query: Path | None = Field(
        None, description="File to save the query to, for use on other slides."
    )
    out: tuple[Path, ...] = Field(
        (),
        description="File to write: .json (all), .csv (patches, and slides in "
        "NAME.slides.csv) or .geojson (one file per slide, for QuPath).",
    )
    read: ReadConfig = ReadConfig()
    compute: ComputeConfig = ComputeConfig()
    neighbourhood: NeighbourhoodConfig = NeighbourhoodConfig(radius=DEFAULT_RADIUS)

    @property
    def has_examples(self) -> bool:
        """Whether there is any example.

        Returns
        -------
        bool
        """
        return bool(self.at or self.region or self.picture)

    def check(self) -> None:
        """Check that the options state one query, and files that can be written.

        Raises
        ------
        ConfigError
            If they do not; the message names the option.
        """
        examples = "--at, --region, --picture"
        if self.query is not None and (self.has_examples or self.not_at):
            raise ConfigError(f"cannot be given with {examples}", "--query")
        if self.query is not None and self.save_query is not None:
            raise ConfigError("cannot be given with --query", "--save-query")
        # Without a query an index can be built.
        asks = self.query is not None or self.has_examples
        if not asks and (self.index != "build" or self.not_at):
            raise ConfigError("is missing", "query", f"Give {examples} or --query")
        for path in self.out:
            if not path.name.lower().endswith(OUTPUTS):
                raise ConfigError(
                    f"ends in none of {', '.join(OUTPUTS)}",
                    path,
                    "Its ending chooses the format",
                )
