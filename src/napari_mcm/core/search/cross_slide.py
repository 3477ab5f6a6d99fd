"""Search the slides of a cohort for tissue that is similar to a query.

Each feature file of a folder is read in turn; files of another encoder, and files that
cannot be read, are skipped with a note. The query's unit vectors give the cosine of
every patch, with the context that the query was made with. Slides are ranked by the mean
cosine of their most similar patches, and for each slide the area of the patches above a
threshold is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from napari_mcm.core.errors import FeatureError, McmError
from napari_mcm.core.features.feature_set import PATCH_ALONE, NeighbourhoodConfig
from napari_mcm.core.features.reading import read_features
from napari_mcm.core.heatmaps.query import fingerprint_of
from napari_mcm.core.heatmaps.similarity import heatmap_of
from napari_mcm.core.heatmaps.similarity_index import Directions, SimilarityIndex
from napari_mcm.core.runtime.jobs import Job, Note, Progress
from napari_mcm.core.runtime.threads import run_in_thread
from napari_mcm.core.slides import open_slide

ENDING = ".features.zarr"
"""Ending of the feature files that are searched."""

_STAGE = "Searching slides"


class CrossSlideConfig(BaseModel):
    """Which slides are searched, and how each is summarised."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    features: Path = Field(description="Folder of feature files (.features.zarr).")
    above: float = Field(
        0.5,
        ge=-1,
        le=1,
        description="Minimum cosine of a patch for its area to count.",
    )
    top: int = Field(
        16,
        ge=1,
        description="Number of most similar patches per slide whose mean cosine ranks "
        "the slides.",
    )
    neighbourhood: NeighbourhoodConfig = PATCH_ALONE


@dataclass(frozen=True)
class SlideMatch:
    """How similar the tissue of one slide is to the query.

    Attributes
    ----------
    name, fingerprint : str
        The slide.
    features : Path
        Its feature file.
    best : float
        Mean cosine of its most similar patches, at most ``CrossSlideConfig.top``.
    area_mm2 : float
        Area in mm² of the patches whose cosine is at least ``CrossSlideConfig.above``.
    patches : int
        Number of patches in the feature file.
    """

    name: str
    fingerprint: str
    features: Path
    best: float
    area_mm2: float
    patches: int


@dataclass(frozen=True)
class CrossSlideResult:
    """Slides that were searched.

    Attributes
    ----------
    matches : tuple of SlideMatch
        Most similar slide first.
    skipped : tuple of str
        One line for each file that could not be searched.
    """

    matches: tuple[SlideMatch, ...]
    skipped: tuple[str, ...]


def search_slides(
    config: CrossSlideConfig, encoder: str, directions: Directions
) -> Job[CrossSlideResult]:
    """Search all feature files of a folder for patches similar to a query.

    Parameters
    ----------
    config : CrossSlideConfig
        Folder, threshold and number of patches.
    encoder : str
        Fingerprint of the encoder that the query belongs to, see
        :func:`~napari_mcm.core.heatmaps.query.fingerprint_of`. Features of other
        encoders are skipped.
    directions : ndarray of float32, shape (K, D)
        Unit vectors of the query, made with the neighbourhood of `config`; a patch's
        cosine is that to the nearest of them.

    Yields
    ------
    Progress
        In slides.
    Note
        For each file that is skipped.

    Returns
    -------
    CrossSlideResult
        One match per slide.
    """
    files = sorted(config.features.glob(f"*{ENDING}"))
    matches: list[SlideMatch] = []
    skipped: list[str] = []
    for number, file in enumerate(files):
        yield Progress(_STAGE, number, len(files), "slides")
        found = yield from run_in_thread(
            _STAGE, _search_file, file, config, encoder, directions
        )
        if isinstance(found, SlideMatch):
            matches.append(found)
        else:
            skipped.append(f"{file.name}: {found}")
            yield Note(skipped[-1])
    matches.sort(key=lambda match: -match.best)
    return CrossSlideResult(tuple(matches), tuple(skipped))


def find_slide(match: SlideMatch, folders: Sequence[Path]) -> Path:
    """Find the slide file that features were made from.

    Parameters
    ----------
    match : SlideMatch
        The slide. Its file is recognised by its fingerprint, not by its name.
    folders : sequence of Path
        Where to look, besides the folders of the feature file.

    Returns
    -------
    Path
        The slide file.

    Raises
    ------
    FeatureError
        If no file there is that slide.
    """
    near = [match.features.parent, *match.features.parents[1:3], *folders]
    for folder in dict.fromkeys(near):
        for file in sorted(folder.glob(f"{escape(match.name)}*")):
            if file.name.endswith(ENDING):
                continue
            try:
                with open_slide(file) as slide:
                    if slide.fingerprint == match.fingerprint:
                        return file
            except McmError:
                continue
    raise FeatureError(
        f"slide {match.name} is not in {' or '.join(str(f) for f in folders)}",
        hint="Open it yourself: the query is then shown on it",
    )


def _search_file(
    file: Path, config: CrossSlideConfig, encoder: str, directions: Directions
) -> SlideMatch | str:
    """Search one file; return the reason where it is skipped."""
    try:
        features = read_features(file)
        if not encoder or fingerprint_of(features.encoder) != encoder:
            return "made with another encoder, skipped"
        if features.dim != directions.shape[1]:
            return f"has features of length {features.dim}, skipped"
        own, wanted = features.neighbourhood, config.neighbourhood
        if own.radius and own != wanted:
            return f"made with context {own.describe()}, skipped"
        heatmap = heatmap_of(SimilarityIndex(features, wanted), directions, "")
    except McmError as error:
        return str(error)
    best = heatmap.values[heatmap.best(config.top)]
    if not len(best):
        return "has no features"
    slide = heatmap.grid.slide
    return SlideMatch(
        name=str(slide.get("name", file.name)),
        fingerprint=str(slide.get("fingerprint", "")),
        features=file,
        best=float(best.mean()),
        area_mm2=heatmap.area_mm2(config.above),
        patches=len(features),
    )
