"""The query of the dock *Similarity* as commands."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from napari_mcm.core.heatmaps.color_limits import Limits
from napari_mcm.core.heatmaps.config import SimilarityConfig
from napari_mcm.core.heatmaps.query import (
    ENDING,
    QueryFile,
    SlideIdentity,
    encoder_query,
    fingerprint_of,
    write_query,
)
from napari_mcm.core.runtime.command import Command
from napari_mcm.core.search import SearchConfig
from napari_mcm.core.slides import ReadConfig
from napari_mcm.viewer.app.commands import Commands, open_slide, output_folder
from napari_mcm.viewer.app.features import SLOTS
from napari_mcm.viewer.layers.metadata import SlideMetadata

if TYPE_CHECKING:
    from napari_mcm.viewer.similarity.context import SimilarityContext


def query_commands(context: SimilarityContext) -> Command | Commands:
    """Return the commands that draw the visible maps of the query.

    There is one command per encoder, and one for their difference. They read the query
    from a file, which this function writes in the background.

    Raises
    ------
    ValueError
        If there is no query or it cannot be saved; the message is one line.
    """
    metadata = open_slide(context.session)
    _shown_slot(context)
    query = _save_query(context, metadata)
    maps, drawn = context.queries.maps(), context.queries.drawn
    files = {s: _file_of(context, s) for s in SLOTS if maps.get(s) is not None}
    maps_to_draw: list[tuple[str, Path, Path | None]] = [
        (slot, file, None) for slot, file in files.items()
    ]
    if drawn.pair is not None and drawn.difference is not None:
        before, after = (files[slot] for slot in drawn.pair)
        maps_to_draw.append(("difference", after, before))
    configs = [
        SimilarityConfig(
            features=features,
            before=before,
            query=query,
            out=output_folder(metadata) / f"{metadata.name}.similarity.{slot}.png",
            slide=Path(metadata.path),
            limits=_limits(context),
            neighbourhood=context.queries.spec.neighbourhood,
            read=ReadConfig(mpp_override=metadata.mpp_override),
        )
        for slot, features, before in maps_to_draw
    ]
    commands = tuple(Command("similarity", config, "features") for config in configs)
    return commands[0] if len(commands) == 1 else Commands(commands)


def cross_slide_commands(context: SimilarityContext) -> Commands:
    """Return the command that repeats the search, and those that draw the maps it led to.

    Raises
    ------
    ValueError
        If no slide was found or there is no query; the message is one line.
    """
    metadata, matches = open_slide(context.session), context.cross_slide.matches
    asked = context.cross_slide.config
    if not matches or asked is None:
        raise ValueError("Search all slides first: the command names each slide found")
    _shown_slot(context)
    query, folder = _save_query(context, metadata), output_folder(metadata)
    search = SearchConfig(
        **{name: getattr(asked, name) for name in type(asked).model_fields}
        | {"query": query, "out": (folder / f"{metadata.name}.search.csv",)}
    )
    configs = [
        SimilarityConfig(
            features=match.features,
            query=query,
            above=context.areas.threshold,
            neighbourhood=context.queries.spec.neighbourhood,
            out=folder / f"{match.name}.similarity.png",
        )
        for match in matches
    ]
    maps = (Command("similarity", config, "features") for config in configs)
    return Commands((Command("search", search, "features"), *maps))


def _limits(context: SimilarityContext) -> Limits:
    """Return the range of colours in effect.

    The encoder's range does not apply to queries with dissimilar examples.
    """
    limits, examples = context.queries.limits, context.queries.spec.examples
    return "robust" if limits == "encoder" and examples.unlike else limits


def _file_of(context: SimilarityContext, slot: str) -> Path:
    loaded = context.session.features(slot)
    assert loaded is not None
    return loaded.path


def _shown_slot(context: SimilarityContext) -> str:
    if (shown := context.queries.shown_map()) is None:
        raise ValueError("There is no map yet: click on the slide")
    return shown[0]


def _save_query(context: SimilarityContext, metadata: SlideMetadata) -> Path:
    """Write the query to a file in the background, and return its path.

    The name contains a hash of the query, so that commands copied earlier keep theirs.
    """
    made = _query_file(context)
    mark = hashlib.blake2b(made.model_dump_json().encode(), digest_size=3).hexdigest()
    path = (
        output_folder(metadata) / f"{made.slide.name or metadata.name}-{mark}{ENDING}"
    )
    context.session.disk.submit(
        f"query {path}",
        lambda: write_query(path, made),
        lambda _: None,
        context.session.report_error,
    )
    return path


def _query_file(context: SimilarityContext) -> QueryFile:
    spec = context.queries.spec
    loaded = [
        one for slot in SLOTS if (one := context.session.features(slot)) is not None
    ]
    labels = {fingerprint_of(one.index.features.encoder): one.label for one in loaded}
    # Features that are averages already stay what they are.
    averaged = {
        fingerprint_of(features.encoder): features.neighbourhood
        for features in (one.index.features for one in loaded)
        if features.neighbourhood.radius
    }
    if not spec.directions:
        raise ValueError(
            "The features do not say which encoder made them: compute them here"
        )
    examples = spec.examples
    return QueryFile(
        slide=SlideIdentity(name=spec.name, fingerprint=spec.slide),
        like=examples.like,
        unlike=examples.unlike,
        regions=examples.regions,
        pool=examples.pool,
        encoders=tuple(
            encoder_query(
                mark,
                labels.get(mark, ""),
                directions,
                averaged.get(mark, spec.neighbourhood),
            )
            for mark, directions in spec.directions.items()
        ),
    )
