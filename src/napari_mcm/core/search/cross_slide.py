"""Search the slides of a cohort for tissue that is similar to a query.

Each feature file of a folder or project is read in turn; files of another encoder, and
files that cannot be read, are skipped with a note. The query's unit vectors give the
cosine of every patch, with the context that the query was made with. The most similar
patches of all slides are ranked together; slides are ranked by the mean cosine of their
most similar patches, and for each slide the area of the patches above a threshold is
measured. Files that an index covers may be searched with it, see :mod:`.index`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import wait
from dataclasses import replace
from glob import escape
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from napari_mcm.core.errors import FeatureError, McmError
from napari_mcm.core.features.feature_set import PATCH_ALONE, NeighbourhoodConfig
from napari_mcm.core.features.mapped import MappedFeatures, rows_of_file
from napari_mcm.core.heatmaps.examples import Examples
from napari_mcm.core.heatmaps.heatmap import Heatmap
from napari_mcm.core.heatmaps.query import fingerprint_of
from napari_mcm.core.heatmaps.similarity_index import Directions
from napari_mcm.core.runtime.jobs import Job, Note, Progress
from napari_mcm.core.runtime.threads import Prefetcher
from napari_mcm.core.search.files import FeatureFiles, list_files
from napari_mcm.core.search.index import SearchIndex, default_folder
from napari_mcm.core.search.record import SearchRecord
from napari_mcm.core.search.result import (
    CrossSlideResult,
    PatchMatch,
    SlideMatch,
    best_patches,
)
from napari_mcm.core.search.scoring import index_of, score_patches
from napari_mcm.core.slides import open_slide

ENDING = ".features.zarr"
"""Ending of the feature files that are searched."""

EXACT_UP_TO = 5_000_000
"""Patches up to which all are compared; an index serves above, if there is one."""

_STAGE = "Searching slides"

_POLL_S = 0.1

_THREADS = min(4, os.cpu_count() or 1)

_SPARE = 32
"""Patches that an index gives beyond those listed: it ranks in half precision."""

_UNKNOWN = (0, 0, 0.0, 0.0, 0, 0.0)
"""Place of a patch of an index, until its file is read."""

Found = tuple[SlideMatch, tuple[PatchMatch, ...]]
"""A slide, and its most similar patches."""


class CrossSlideConfig(BaseModel):
    """Which slides are searched, and how each is summarised."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    features: Path = Field(
        description="Folder of feature files (.features.zarr), or a project (.mcm.json)."
    )
    count: int = Field(
        60, ge=1, le=10_000, description="Number of patches listed, of all slides."
    )
    per_slide: int | None = Field(
        None, ge=1, description="Number of patches listed per slide, at most."
    )
    above: float = Field(
        0.5,
        ge=-1,
        le=1,
        description="Minimum cosine of a patch for its area to count.",
        json_schema_extra={"flag": "threshold"},
    )
    top: int = Field(
        16,
        ge=1,
        description="Number of most similar patches per slide whose mean cosine ranks "
        "the slides.",
    )
    index: Literal["auto", "build", "off"] = Field(
        "auto",
        description="How an index is used: above 5 million patches where there is one "
        "(auto), built or updated first and used (build), or never (off).",
    )
    index_folder: Path | None = Field(
        None,
        description="Folder of the index; by default search-index in the folder of the "
        "feature files or of the project.",
    )
    neighbourhood: NeighbourhoodConfig = PATCH_ALONE


def search_slides(
    config: CrossSlideConfig,
    encoder: str,
    directions: Directions,
    examples: Mapping[str, Examples] | None = None,
    record: SearchRecord | None = None,
) -> Job[CrossSlideResult]:
    """Search all feature files of a folder or project for patches similar to a query.

    Parameters
    ----------
    config : CrossSlideConfig
        Files, threshold and number of patches.
    encoder : str
        Fingerprint of the encoder that the query belongs to, see
        :func:`~napari_mcm.core.heatmaps.query.fingerprint_of`. Features of other
        encoders are skipped.
    directions : ndarray of float32, shape (K, D)
        Unit vectors of the query, made with the neighbourhood of `config`; a patch's
        cosine is that to the nearest of them.
    examples : mapping of str to Examples, optional
        Fingerprint of a slide to the query's examples on it. These patches are not
        ranked.
    record : SearchRecord, optional
        Keeps what was found of each file, so that a cancelled search resumes.

    Yields
    ------
    Progress
        In slides.
    Note
        For each file that is skipped.

    Returns
    -------
    CrossSlideResult
        The patches, and one match per slide.
    """
    try:
        listed = list_files(config.features, encoder)
    except FeatureError as error:
        yield Note(str(error), "warning")
        return CrossSlideResult((), (str(error),))
    for problem in listed.problems:
        yield Note(problem)
    indexed = yield from _open_index(config, listed, encoder)
    search = _Search(config, encoder, directions, examples or {}, indexed)
    found, skipped = yield from _search_all(search, listed.files, record)
    matches = sorted((match for match, _ in found), key=lambda match: -match.mean)
    patches = best_patches(
        (patch for _, some in found for patch in some),
        config.count + (_SPARE if search.indexed else 0),
        config.per_slide,
    )
    if with_index := search.indexed:
        patches, matches = yield from search.refine(patches, matches)
    return CrossSlideResult(
        tuple(matches),
        (*listed.problems, *skipped),
        patches,
        sum(match.patches for match in matches),
        sum(match.patches for match in matches if match.features in with_index),
    )


def find_slide(match: SlideMatch | PatchMatch, folders: Sequence[Path]) -> Path:
    """Find the slide file that features were made from.

    Parameters
    ----------
    match : SlideMatch or PatchMatch
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
    name = match.name if isinstance(match, SlideMatch) else match.slide
    near = [match.features.parent, *match.features.parents[1:3], *folders]
    for folder in dict.fromkeys(near):
        for file in sorted(folder.glob(f"{escape(name)}*")):
            if file.name.endswith(ENDING):
                continue
            try:
                with open_slide(file) as slide:
                    if slide.fingerprint == match.fingerprint:
                        return file
            except McmError:
                continue
    raise FeatureError(
        f"slide {name} is not in {' or '.join(str(f) for f in folders)}",
        hint="Open it yourself: the query is then shown on it",
    )


def _open_index(
    config: CrossSlideConfig, listed: FeatureFiles, encoder: str
) -> Job[SearchIndex | None]:
    """Open the index if it is to be used, and build it first if that is asked for."""
    if config.index == "off":
        return None
    folder = config.index_folder or default_folder(config.features)
    if config.index == "build":
        index = SearchIndex(folder, encoder, config.neighbourhood)
        yield from index.build(listed.files)
        return index
    patches = sum(rows_of_file(file) for file in listed.files)
    if patches <= EXACT_UP_TO:
        return None
    advice = f"{patches:,} patches: --index build makes searches faster"
    try:
        index = SearchIndex(folder, encoder, config.neighbourhood)
    except McmError:
        yield Note(f'{advice}, after pip install "napari-mcm[search]"')
        return None
    if not index.folder.is_dir():
        yield Note(advice)
        return None
    return index


class _Search:
    """One query, asked of one file after the other."""

    def __init__(
        self,
        config: CrossSlideConfig,
        encoder: str,
        directions: Directions,
        examples: Mapping[str, Examples],
        index: SearchIndex | None,
    ) -> None:
        self.config, self.encoder, self.directions = config, encoder, directions
        self.examples, self.index = examples, index
        self.stopped = threading.Event()
        self.indexed: set[Path] = set()
        # Enough for the ranking, and for the mean by slide.
        most = min(config.count, config.per_slide or config.count)
        self.wanted = max(most + _SPARE, config.top)

    def file(self, file: Path) -> Found | str:
        """Search one file; return the reason where it is skipped."""
        try:
            return self._with_index(file) or self._exactly(file)
        except McmError as error:
            return ". ".join(filter(None, (error.what, error.hint)))

    def _with_index(self, file: Path) -> Found | None:
        """Search the file's part of the index; None where it has none."""
        if self.index is None:
            return None
        answer = self.index.find(file, self.directions, self.wanted)
        # Examples must not be ranked, and only the file says which patches they are.
        if answer is None or answer[0].fingerprint in self.examples:
            return None
        info, rows, values = answer
        self.indexed.add(file)
        above = int(np.count_nonzero(values >= self.config.above))
        match = SlideMatch(
            name=info.slide,
            fingerprint=info.fingerprint,
            features=file,
            mean=float(values[: self.config.top].mean()),
            area_mm2=above * info.patch_mm2,
            patches=info.patches,
            best=float(values[0]),
            is_lower_bound=True,
        )
        patches = [
            PatchMatch(info.slide, info.fingerprint, file, row, value, *_UNKNOWN)
            for row, value in zip(rows.tolist(), values.tolist(), strict=True)
        ]
        return match, tuple(patches)

    def _exactly(self, file: Path) -> Found | str:
        """Score all patches of the file."""
        config, features = self.config, MappedFeatures(file)
        if not self.encoder or fingerprint_of(features.encoder) != self.encoder:
            name = features.encoder.get("spec")
            return f"made with another encoder{f' ({name})' if name else ''}, skipped"
        if features.dim != self.directions.shape[1]:
            return f"has features of length {features.dim}, skipped"
        values = score_patches(
            features, self.directions, config.neighbourhood, self.stopped.is_set
        )
        heatmap = Heatmap(values, features.grid, (-1.0, 1.0), "")
        rows = heatmap.best(self.wanted, self._examples_in(features))
        if not len(rows):
            return "has no features"
        best, slide = values[rows], features.grid.slide
        match = SlideMatch(
            name=str(slide.get("name", file.name)),
            fingerprint=str(slide.get("fingerprint", "")),
            features=file,
            mean=float(best[: config.top].mean()),
            area_mm2=heatmap.area_mm2(config.above),
            patches=len(features),
            best=float(best[0]),
        )
        return match, patches_of(features, rows, best)

    def _examples_in(self, features: MappedFeatures) -> list[int]:
        """Return the rows of the query's examples."""
        mark = str(features.grid.slide.get("fingerprint", ""))
        examples = self.examples.get(mark)
        found = examples.patches(features.grid) if examples is not None else None
        return [*found[0], *found[1]] if found else []

    def refine(
        self, patches: Sequence[PatchMatch], matches: Sequence[SlideMatch]
    ) -> Job[tuple[tuple[PatchMatch, ...], list[SlideMatch]]]:
        """Score the listed patches that an index found exactly, and rank them again."""
        config = self.config
        exact = [patch for patch in patches if patch.features not in self.indexed]
        by_file: dict[Path, list[int]] = {}
        for patch in patches:
            if patch.features in self.indexed:
                by_file.setdefault(patch.features, []).append(patch.row)
        for number, (file, rows) in enumerate(by_file.items()):
            yield Progress("Scoring what was found", number, len(by_file), "slides")
            features, ordered = MappedFeatures(file), np.sort(np.array(rows))
            inside, index = index_of(features, ordered, config.neighbourhood)
            values = index.compare(self.directions)[inside]
            exact += patches_of(features, ordered, values)
        best: dict[Path, float] = {}
        for patch in exact:
            best[patch.features] = max(best.get(patch.features, -1.0), patch.value)
        return best_patches(exact, config.count, config.per_slide), [
            replace(one, best=best.get(one.features, one.best))
            if one.features in self.indexed
            else one
            for one in matches
        ]


def patches_of(
    features: MappedFeatures, rows: NDArray[np.int64], values: NDArray[np.float32]
) -> tuple[PatchMatch, ...]:
    """Describe patches of a feature file.

    Parameters
    ----------
    features : MappedFeatures
        The file.
    rows : ndarray of int64, shape (n,)
        The patches.
    values : ndarray of float32, shape (n,)
        Their cosines.

    Returns
    -------
    tuple of PatchMatch
        In the order of `rows`.
    """
    grid = features.grid
    width, height = grid.patch_size_level0
    return tuple(
        PatchMatch(
            str(grid.slide.get("name", features.path.name)),
            str(grid.slide.get("fingerprint", "")),
            features.path,
            int(row),
            float(value),
            int(grid.xy[row, 0]),
            int(grid.xy[row, 1]),
            width,
            height,
            grid.patch_size,
            grid.mpp,
        )
        for row, value in zip(rows, values, strict=True)
    )


def _search_all(
    search: _Search, files: Sequence[Path], record: SearchRecord | None
) -> Job[tuple[list[Found], list[str]]]:
    """Search files in threads, some ahead; what is found is kept in their order."""
    found: list[Found] = []
    skipped: list[str] = []

    def one(file: Path) -> Found | str:
        known = record.find(file) if record is not None else None
        return known or search.file(file)

    coming = Prefetcher(one, _THREADS, "search")
    waiting = iter(files)
    try:
        for number, _ in enumerate(files):
            while len(coming) <= _THREADS and (file := next(waiting, None)) is not None:
                coming.add(file)
            file, future = coming.take()
            progress = Progress(_STAGE, number, len(files), "slides")
            yield progress
            while not wait([future], timeout=_POLL_S).done:
                yield progress
            result = future.result()
            if isinstance(result, str):
                skipped.append(f"{file.name}: {result}")
                yield Note(skipped[-1])
                continue
            found.append(result)
            if record is not None:
                record.add(file, *result)
    finally:
        search.stopped.set()
        coming.close(wait=True)
    return found, skipped
