"""The query of a search: examples on slides, pictures, or a saved query, as unit vectors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import ConfigError, FeatureError
from napari_mcm.core.features.feature_set import FeatureSet, NeighbourhoodConfig
from napari_mcm.core.features.format import slide_of
from napari_mcm.core.features.reading import read_features
from napari_mcm.core.heatmaps.config import settle_neighbourhood
from napari_mcm.core.heatmaps.examples import Examples, Point, Polygon
from napari_mcm.core.heatmaps.query import (
    fingerprint_of,
    make_query,
    read_query,
    write_query,
)
from napari_mcm.core.heatmaps.similarity_index import (
    Directions,
    SimilarityIndex,
    combine,
)
from napari_mcm.core.runtime.jobs import Job, Note
from napari_mcm.core.runtime.threads import run_in_thread
from napari_mcm.core.search.config import SearchConfig
from napari_mcm.core.search.files import FeatureFiles, encoder_of, encoders_of
from napari_mcm.core.search.picture import picture_features
from napari_mcm.core.tissue.geojson import read_regions

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry


@dataclass(frozen=True, eq=False)
class SearchQuery:
    """A query that slides are searched for.

    Attributes
    ----------
    encoder, label : str
        Fingerprint and name of the encoder that it belongs to.
    directions : ndarray of float32, shape (K, D)
        Unit vectors; none where only an index is built.
    neighbourhood : NeighbourhoodConfig
        Over which patches features are averaged.
    title : str
        What is looked for, in a few words.
    examples : dict of str to Examples
        Fingerprint of a slide to the centres of the examples on it.
    """

    encoder: str
    label: str
    directions: Directions
    neighbourhood: NeighbourhoodConfig
    title: str
    examples: dict[str, Examples] = field(default_factory=dict)


@dataclass
class _OnSlide:
    """The examples on one slide of the cohort."""

    like: list[Point] = field(default_factory=list)
    unlike: list[Point] = field(default_factory=list)
    regions: list[BaseGeometry] = field(default_factory=list)


def make_search_query(config: SearchConfig, files: FeatureFiles) -> Job[SearchQuery]:
    """Make the query that the options state, as a job.

    Parameters
    ----------
    config : SearchConfig
        The options.
    files : FeatureFiles
        Feature files of the cohort.

    Yields
    ------
    Event
        Progress and notes.

    Returns
    -------
    SearchQuery
        The query.

    Raises
    ------
    ConfigError
        If an example cannot be understood, or the encoder is ambiguous.
    FeatureError
        If a slide has no features, or an example is on no patch.
    """
    if config.query is not None:
        return (yield from _of_file(config, config.query, files))
    if not config.has_examples:
        mark, label = _only_encoder(config, files)
        return SearchQuery(
            mark, label, np.empty((0, 0), np.float32), config.neighbourhood, "no query"
        )
    return (yield from _of_examples(config, files))


def _of_file(config: SearchConfig, path: Path, files: FeatureFiles) -> Job[SearchQuery]:
    """Read a saved query, for the encoder that most files have.

    Raises
    ------
    FeatureError
        If no file has features of its encoders.
    """
    query = read_query(path)
    made = [one.fingerprint for one in query.encoders]
    counts = encoders_of(files)
    fitting = [(n, mark, name) for (mark, name), n in counts.items() if mark in made]
    if config.encoder is not None:
        fitting = [one for one in fitting if config.encoder in one[1:]]
    if not fitting:
        names = ", ".join(one.label or one.fingerprint for one in query.encoders)
        there = ", ".join(name for _, name in counts) or "none that is named"
        raise FeatureError(
            f"was made with other encoders ({names}) than the features ({there})",
            path,
            "Search features of one of them, or choose examples again",
        )
    _, mark, label = max(fitting, key=lambda one: one[0])
    if len(fitting) > 1:
        yield Note(f"searching features of {label}; --encoder chooses another")
    described = {"fingerprint": mark}
    around = settle_neighbourhood(config, query.neighbourhood_for(described), path)
    directions = query.of_encoder(described, around)
    assert directions is not None
    examples = {query.slide.fingerprint: query.examples} if len(query.examples) else {}
    title = f"query on {query.slide.name or path.name}"
    return SearchQuery(mark, label, directions, around, title, examples)


def _of_examples(config: SearchConfig, files: FeatureFiles) -> Job[SearchQuery]:
    """Combine the examples on slides and in pictures.

    Raises
    ------
    ConfigError
        If there is no similar example.
    """
    around = settle_neighbourhood(config)
    by_slide = _examples_by_slide(config, files)
    mark, label, chosen = _encoder_of_examples(config, files, list(by_slide))
    similar: list[NDArray[np.float32]] = []
    dissimilar: list[NDArray[np.float32]] = []
    examples: dict[str, Examples] = {}
    read: list[tuple[_OnSlide, FeatureSet]] = []
    for name, one in by_slide.items():
        features = yield from run_in_thread(
            "Reading the examples", read_features, chosen[name]
        )
        read.append((one, features))
        index = SimilarityIndex(features, around)
        like, unlike = _rows_of(index, one, name)
        if like:
            similar.append(index.units(like))
        if unlike:
            dissimilar.append(index.units(unlike))
        mark_of_slide = str(features.grid.slide["fingerprint"])
        examples[mark_of_slide] = _centres(features, like, unlike)
    if config.picture:
        source = next(iter(chosen.values()), None) or _most_usual(files, mark)
        made = yield from picture_features(
            config.picture, source, config.encoder, config.read, config.compute
        )
        for features in made:
            index = SimilarityIndex(features, around)
            similar.append(index.units(np.flatnonzero(index.valid).tolist()))
    if not similar:
        raise ConfigError("is missing", "similar example", "Give --at or --region")
    away = np.concatenate(dissimilar) if dissimilar else None
    directions = combine(np.concatenate(similar), away, config.pool)
    query = SearchQuery(mark, label, directions, around, _title(config), examples)
    _save(config, query, read)
    return query


def _save(
    config: SearchConfig, query: SearchQuery, read: list[tuple[_OnSlide, FeatureSet]]
) -> None:
    """Write the query to a file, if that is asked for.

    Raises
    ------
    ConfigError
        If its examples are not on one slide.
    """
    if config.save_query is None:
        return
    if len(read) != 1 or config.picture:
        raise ConfigError("needs examples on one slide of the cohort", "--save-query")
    ((on_slide, features),) = read
    examples = Examples(
        tuple(on_slide.like),
        tuple(on_slide.unlike),
        tuple(_outline(region) for region in on_slide.regions),
        config.pool,
    )
    named = {query.label: (features, query.directions)}
    write_query(config.save_query, make_query(examples, named, query.neighbourhood))


def _outline(region: BaseGeometry) -> Polygon:
    return tuple((float(x), float(y)) for x, y in region.exterior.coords)


def _centres(features: FeatureSet, like: list[int], unlike: list[int]) -> Examples:
    centres = features.grid.centres
    similar, away = (
        tuple((float(x), float(y)) for x, y in centres[rows]) for rows in (like, unlike)
    )
    return Examples(similar, away)


def _rows_of(
    index: SimilarityIndex, examples: _OnSlide, name: str
) -> tuple[list[int], list[int]]:
    """Return the rows of similar and of dissimilar examples, each once.

    Raises
    ------
    FeatureError
        If an example is on no patch with features.
    """
    import shapely

    rows = [_row_at(index, point, name) for point in examples.like]
    x, y = index.features.grid.centres.T
    inside = np.zeros(len(x), bool)
    for region in examples.regions:
        inside |= shapely.contains_xy(region, x, y)
    within = np.flatnonzero(inside & index.valid).tolist()
    if examples.regions and not within:
        raise FeatureError(
            "no patch with features has its centre in the region",
            name,
            "Draw a larger region, on tissue",
        )
    away = [_row_at(index, point, name) for point in examples.unlike]
    return list(dict.fromkeys([*rows, *within])), list(dict.fromkeys(away))


def _row_at(index: SimilarityIndex, point: Point, name: str) -> int:
    row = index.features.grid.index_at(*point)
    if row is None:
        raise FeatureError(
            f"there is no patch at {point[0]:g},{point[1]:g}",
            name,
            "Give a point on tissue, x,y in level-0 pixels",
        )
    if not index.valid[row]:
        raise FeatureError(
            f"the patch at {point[0]:g},{point[1]:g} has no features",
            name,
            "Choose a patch that is neither blank nor damaged",
        )
    return row


def _examples_by_slide(
    config: SearchConfig, files: FeatureFiles
) -> dict[str, _OnSlide]:
    """Parse the points and regions of the options.

    Raises
    ------
    FeatureError
        If a slide has no feature file.
    """
    found: dict[str, _OnSlide] = {}
    for text in config.at:
        name, point = _parse_point(text, "--at")
        found.setdefault(name, _OnSlide()).like.append(point)
    for text in config.not_at:
        name, point = _parse_point(text, "--dissimilar-at")
        found.setdefault(name, _OnSlide()).unlike.append(point)
    for text in config.region:
        name, path = _parse_region(text, files)
        found.setdefault(name, _OnSlide()).regions += [
            region for _, region in read_regions(path)
        ]
    for name in found:
        if not files.of_slide(name):
            known = ", ".join(sorted({slide_of(file) for file in files.files})[:5])
            raise FeatureError(
                f"is no slide of {config.features}", name, f"There are: {known}, ..."
            )
    return found


def _parse_point(text: str, option: str) -> tuple[str, Point]:
    name, _, place = text.rpartition(":")
    try:
        x, y = (float(number) for number in place.split(","))
        if not (name and np.isfinite([x, y]).all()):
            raise ValueError
    except ValueError:
        raise ConfigError(
            f"{text!r} is not SLIDE:X,Y", option, "For example slide_01:5120,2048"
        ) from None
    return name, (x, y)


def _parse_region(text: str, files: FeatureFiles) -> tuple[str, Path]:
    # A slide's name or a path may hold a colon: the first part that is a slide counts.
    parts = text.split(":")
    for cut in range(1, len(parts)):
        name = ":".join(parts[:cut])
        if files.of_slide(name):
            return name, Path(":".join(parts[cut:]))
    raise ConfigError(
        f"{text!r} is not SLIDE:FILE of a slide that has features",
        "--region",
        "For example slide_01:region.geojson",
    )


def _encoder_of_examples(
    config: SearchConfig, files: FeatureFiles, names: Iterable[str]
) -> tuple[str, str, dict[str, Path]]:
    """Return fingerprint and name of the encoder, and the file of each slide.

    Raises
    ------
    FeatureError
        If a slide has no features of the encoder of the others.
    """
    usual = None
    chosen: dict[str, Path] = {}
    for name in names:
        options = {
            fingerprint_of(encoder_of(file)): file for file in files.of_slide(name)
        }
        if usual is None:
            usual = _choose(config, files, set(options), name)
        if usual[0] not in options:
            raise FeatureError(f"has no features of {usual[1]}", name)
        chosen[name] = options[usual[0]]
    return (*(usual or _only_encoder(config, files)), chosen)


def _only_encoder(config: SearchConfig, files: FeatureFiles) -> tuple[str, str]:
    marks = {mark for mark, _ in encoders_of(files)}
    return _choose(config, files, marks, str(config.features))


def _choose(
    config: SearchConfig, files: FeatureFiles, marks: set[str], where: str
) -> tuple[str, str]:
    """Choose one encoder of several by --encoder; the only one without.

    Raises
    ------
    ConfigError
        If there are several, and none is chosen.
    FeatureError
        If there is none.
    """
    known = [(m, n) for (m, n), _ in encoders_of(files).most_common() if m in marks]
    if config.encoder is not None:
        named = [one for one in known if config.encoder in one]
        # Of one encoder, the option may state where its weights are now.
        known = named or (known if len({m for m, _ in known}) == 1 else [])
    if not known:
        raise FeatureError(
            "has no features whose encoder is known"
            if config.encoder is None
            else f"has no features of {config.encoder}",
            where,
            "Compute features: napari-mcm extract",
        )
    if len({mark for mark, _ in known}) > 1:
        names = ", ".join(name for _, name in known)
        raise ConfigError(
            f"has features of several encoders ({names})",
            where,
            "Choose with --encoder",
        )
    return known[0]


def _most_usual(files: FeatureFiles, mark: str) -> Path:
    """Return the first file of an encoder."""
    return next(f for f in files.files if fingerprint_of(encoder_of(f)) == mark)


def _title(config: SearchConfig) -> str:
    pictures = [path.name for path in config.picture]
    shown = [*config.at, *config.region, *pictures]
    more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
    away = f", away from {', '.join(config.not_at[:3])}" if config.not_at else ""
    return f"{', '.join(shown[:3])}{more}{away}"
