"""Options of classifiers of patches."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from napari_mcm.core.features.feature_set import PATCH_ALONE, NeighbourhoodConfig


class ClassifierConfig(BaseModel):
    """How a classifier of patches is trained, and when it is unsure."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    regularization: float = Field(
        1.0,
        gt=0,
        le=1e6,
        description="Strength of the L2 penalty on the weights: more for smoother maps.",
    )
    unsure_below: float = Field(
        0.6,
        ge=0,
        le=1,
        description="Smallest probability of the likeliest class for a patch to count as "
        "that class; below, it is unsure.",
    )
    neighbourhood: NeighbourhoodConfig = PATCH_ALONE


OutputFormat = Literal["csv", "geojson", "regions", "ome-tiff"]


class TrainPatchesConfig(BaseModel):
    """A label file, the features of its slides, and where to write the classifier."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    labels: Path | None = Field(None, description="Label file (.labels.json).")
    features: tuple[Path, ...] = Field(
        (),
        description="Feature files of the labelled slides, or folders of them; slides "
        "without labels are passed over.",
    )
    out: Path | None = Field(
        None, description="Classifier file to write (.classifier.safetensors)."
    )
    seed: int = Field(
        0, ge=0, description="Random seed of the folds of the held-out accuracy."
    )
    classifier: ClassifierConfig = ClassifierConfig()


class ClassifyPatchesConfig(BaseModel):
    """A classifier, the feature files of a cohort, and an output folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    classifier: Path | None = Field(
        None, description="Classifier file (.classifier.safetensors)."
    )
    features: tuple[Path, ...] = Field(
        (),
        description="Feature files, or folders of them; in folders, files of other "
        "encoders are skipped.",
    )
    out: Path | None = Field(
        None,
        description="Folder for the table of areas, and files of each slide. Finished "
        "slides are kept when the same command runs again.",
    )
    write: tuple[OutputFormat, ...] = Field(
        (),
        description="Files to write for each slide: csv (a row per patch), geojson (a "
        "tile per patch, for QuPath), regions (GeoJSON with an annotation per region), "
        "ome-tiff (labels, a pixel per patch).",
    )
    unsure_below: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Smallest probability of a class, 0 to 1; below, a patch is unsure. "
        "By default the classifier's own.",
    )


class MergeLabelsConfig(BaseModel):
    """Label files of several people, and where to write what they agree on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    labels: tuple[Path, ...] = Field(
        (), description="Label files, one for each person."
    )
    out: Path | None = Field(None, description="Merged label file to write.")
    disagreements: Path | None = Field(
        None, description="Table of the places that differ to write (CSV)."
    )


class ImportLabelsConfig(BaseModel):
    """Outlined regions, the features of their slides, and a label file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    regions: tuple[Path, ...] = Field(
        (),
        description="GeoJSON files of regions with classes, in level-0 pixels, as QuPath "
        "exports them; or one folder, with files named after the slides.",
    )
    features: tuple[Path, ...] = Field(
        (),
        description="Feature files of these slides, or folders of them: their patches "
        "are labelled.",
    )
    out: Path | None = Field(
        None,
        description="Label file to write; labels that it holds are kept, and replaced "
        "where a region lies over them.",
    )
    author: str = Field("", description="Who outlined the regions.")
    covered: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Smallest fraction of a patch that a class must cover, 0 to 1; 0: the "
        "patch's centre lies in the region.",
        json_schema_extra={"flag": "min-coverage"},
    )
