"""The whole search: from options to files."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.core.runtime.jobs import Job
from napari_mcm.core.search.config import SearchConfig
from napari_mcm.core.search.cross_slide import CrossSlideConfig, search_slides
from napari_mcm.core.search.files import list_files
from napari_mcm.core.search.index import SearchIndex, default_folder
from napari_mcm.core.search.query import SearchQuery, make_search_query
from napari_mcm.core.search.record import SearchRecord
from napari_mcm.core.search.result import CrossSlideResult
from napari_mcm.core.search.writers import write_result


@dataclass(frozen=True)
class SearchOutcome:
    """What the verb ``search`` has done.

    Attributes
    ----------
    result : CrossSlideResult
        What was found; nothing where only an index was built.
    query : dict
        What was searched for, as JSON types.
    files : tuple of Path
        Files that were written.
    """

    result: CrossSlideResult
    query: dict[str, Any]
    files: tuple[Path, ...] = ()


def search(config: SearchConfig) -> Job[SearchOutcome]:
    """Search a cohort for the query that the options state, as a job.

    Parameters
    ----------
    config : SearchConfig
        The options. Without a query, only the index is built.

    Yields
    ------
    Event
        Progress in slides, and a note for each file that is skipped.

    Returns
    -------
    SearchOutcome
        What was found.

    Raises
    ------
    FeatureError
        If there are no feature files, or none of them could be searched.
    McmError
        If the query cannot be made.
    """
    config.check()
    files = list_files(config.features)
    query = yield from make_search_query(config, files)
    described = _describe(query)
    if not len(query.directions):
        folder = config.index_folder or default_folder(config.features)
        listed = list_files(config.features, query.encoder)
        index = SearchIndex(folder, query.encoder, query.neighbourhood)
        yield from index.build(listed.files)
        return SearchOutcome(CrossSlideResult((), listed.problems), described)
    record = _record(config, query)
    result = yield from search_slides(
        _options(config, query.neighbourhood),
        query.encoder,
        query.directions,
        query.examples,
        record,
    )
    if not result.matches:
        reason = result.skipped[0] if result.skipped else "there are no slides"
        raise FeatureError(
            f"no slide could be searched ({reason})",
            config.features,
            f"Compute features with {query.label}",
        )
    written = [
        file for path in config.out for file in write_result(path, result, described)
    ]
    if record is not None:
        record.remove()
    return SearchOutcome(result, described, tuple(written))


def _options(
    config: SearchConfig, neighbourhood: NeighbourhoodConfig
) -> CrossSlideConfig:
    names = set(CrossSlideConfig.model_fields) - {"neighbourhood"}
    return CrossSlideConfig(
        **{name: getattr(config, name) for name in names}, neighbourhood=neighbourhood
    )


def _describe(query: SearchQuery) -> dict[str, Any]:
    return {
        "title": query.title,
        "encoder": query.label,
        "encoder_fingerprint": query.encoder,
        "context": query.neighbourhood.radius,
        "context_weights": query.neighbourhood.weights,
        "directions": len(query.directions),
    }


def _record(config: SearchConfig, query: SearchQuery) -> SearchRecord | None:
    """Open the file that a cancelled search resumes from, beside the first output."""
    if not config.out:
        return None
    digest = blake2b(query.directions.tobytes(), digest_size=8)
    options = (config.count, config.per_slide, config.above, config.top)
    around = query.neighbourhood.describe()
    digest.update(f"{query.encoder} {around} {options} {query.examples}".encode())
    path = config.out[0]
    return SearchRecord(
        path.with_name(f".{path.name}.partial.jsonl"), digest.hexdigest()
    )
