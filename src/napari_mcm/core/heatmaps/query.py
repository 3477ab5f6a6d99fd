"""Queries as small files, for other slides, other programs and another day.

A file names the slide and the places that were pointed at, in level-0 pixels, and for
each encoder that was asked, by its fingerprint, what was looked for: unit vectors. With
these it can be asked of any slide with features of that encoder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.heatmaps.similarity import (
    MOST_NEAREST,
    Directions,
    Pool,
    SimilarityIndex,
)
from napari_mcm.core.runtime.files import write_text

FORMAT: Literal["napari-mcm query"] = "napari-mcm query"

ENDING = ".query.json"

MOST_BYTES = 32 * 2**20

_MOST_POINTS, _MOST_VALUES = 10_000, 16_384

_NOWHERE = 1e-5


Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e9, le=1e9)]

Place = tuple[Number, Number]

Outline = Annotated[tuple[Place, ...], Field(min_length=3, max_length=_MOST_POINTS)]

Vector = Annotated[tuple[Number, ...], Field(min_length=1, max_length=_MOST_VALUES)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SlideIdentity(_Part):
    """The slide that was pointed at."""

    name: str = Field(max_length=1000)
    fingerprint: str = Field(max_length=200)


class EncoderQuery(_Part):
    """What an encoder was asked for."""

    fingerprint: str = Field(min_length=1, max_length=200)
    label: str = Field("", max_length=1000)
    directions: tuple[Vector, ...] = Field(min_length=1, max_length=MOST_NEAREST)

    @property
    def unit(self) -> Directions:
        """The directions (K, D), each of length 1 whatever the file says."""
        vectors = np.asarray(self.directions, np.float64)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors.astype(np.float32)


class QueryFile(_Part):
    """A query as it stands in a file."""

    format: Literal["napari-mcm query"] = FORMAT
    version: Literal[1] = 1
    slide: SlideIdentity
    like: tuple[Place, ...] = Field((), max_length=_MOST_POINTS)
    unlike: tuple[Place, ...] = Field((), max_length=_MOST_POINTS)
    regions: tuple[Outline, ...] = Field((), max_length=_MOST_POINTS)
    pool: Pool = "mean"
    encoders: tuple[EncoderQuery, ...] = Field(min_length=1, max_length=64)

    @property
    def examples(self) -> Examples:
        """The places."""
        return Examples(self.like, self.unlike, self.regions, self.pool)

    def of_encoder(self, encoder: Mapping[str, Any]) -> Directions | None:
        """Give what an encoder is asked for; None where the file does not say."""
        wanted = fingerprint_of(encoder)
        for query in self.encoders:
            if wanted and query.fingerprint == wanted:
                return query.unit
        return None

    def ask(self, index: SimilarityIndex, source: object = None) -> Directions:
        """Give what features are asked for: by their encoder, or by the places.

        Parameters
        ----------
        index : SimilarityIndex
            Features of any slide.
        source : object
            What errors name: the file.

        Raises
        ------
        FeatureError
            If the query was made with other encoders, on another slide.
        """
        features = index.features
        directions = self.of_encoder(features.encoder)
        if directions is not None:
            return directions
        if self.is_of(features) and (found := self.examples.directions(index)):
            return found[0]
        names = ", ".join(query.label or query.fingerprint for query in self.encoders)
        raise FeatureError(
            f"was made with other encoders ({names}) than these features",
            source,
            "Use features of one of them, or point at patches anew",
        )

    def is_of(self, features: FeatureSet) -> bool:
        """Tell whether the places are on the slide of some features."""
        return features.grid.slide.get("fingerprint") == self.slide.fingerprint


def fingerprint_of(encoder: Mapping[str, Any]) -> str:
    """Give an encoder's fingerprint as features state it; empty where they do not."""
    return str(encoder.get("fingerprint") or "")


def encoder_query(fingerprint: str, label: str, directions: Directions) -> EncoderQuery:
    """Put down what an encoder is asked for."""
    rows = tuple(tuple(map(_short, row)) for row in directions)
    return EncoderQuery(fingerprint=fingerprint, label=label, directions=rows)


def make_query(
    examples: Examples,
    asked: Mapping[str, tuple[FeatureSet, Directions]],
) -> QueryFile:
    """Put a query together for a file.

    Parameters
    ----------
    examples : Examples
        Where was pointed at.
    asked : mapping of str to tuple
        Label of each encoder to its features of the slide and what they were asked for.

    Raises
    ------
    FeatureError
        If no encoder states a fingerprint.
    """
    queries = {
        mark: encoder_query(mark, label, directions)
        for label, (features, directions) in asked.items()
        if (mark := fingerprint_of(features.encoder))
    }
    if not queries:
        raise FeatureError(
            "the features do not say which encoder made them",
            hint="Compute features here; those of other tools often name no weights",
        )
    slide = next(iter(asked.values()))[0].grid.slide
    return QueryFile(
        slide=SlideIdentity(
            name=str(slide.get("name", "")),
            fingerprint=str(slide.get("fingerprint", "")),
        ),
        like=examples.like,
        unlike=examples.unlike,
        regions=examples.regions,
        pool=examples.pool,
        encoders=tuple(queries.values()),
    )


def write_query(path: Path, query: QueryFile) -> Path:
    """Write a query to a file, in one go."""
    write_text(Path(path), query.model_dump_json() + "\n")
    return Path(path)


def read_query(path: Path) -> QueryFile:
    """Read a query, and check all that it says.

    Raises
    ------
    FeatureError
        If it is none, is damaged, or was written by a later version.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise _refused(path, f"is larger than {MOST_BYTES >> 20} MiB")
        content = json.loads(raw)
    except OSError as error:
        raise _refused(path, f"cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError):
        raise _refused(path, "is no JSON") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise _refused(path, "holds no query")
    if content.get("version") != 1:
        version = str(content.get("version"))[:20]
        raise _refused(path, f"has version {version}, this program knows version 1")
    try:
        query = QueryFile.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise _refused(path, f"{where}: {first['msg']}") from None
    _check_vectors(path, query)
    return query


def _check_vectors(path: Path, query: QueryFile) -> None:
    for encoder in query.encoders:
        if len({len(vector) for vector in encoder.directions}) > 1:
            raise _refused(path, "vectors of one encoder have different lengths")
        lengths = np.linalg.norm(np.asarray(encoder.directions), axis=1)
        if (lengths < _NOWHERE).any():
            raise _refused(path, "a vector has no direction: all its values are 0")


def _refused(path: Path, reason: str) -> FeatureError:
    return FeatureError(
        reason, path, "Save the query anew: Similarity widget, or --save-query"
    )


def _short(value: float) -> float:
    """As many digits as a cosine of float32 features can show."""
    return float(f"{value:.8g}")


Point = tuple[float, float]

Polygon = tuple[Point, ...]


@dataclass(frozen=True)
class Examples:
    """Places on one slide, in level-0 pixels.

    Attributes
    ----------
    like, unlike : tuple of tuple of float
        Points (x, y) in patches to be like, and to be unlike.
    regions : tuple of tuple of tuple of float
        Outlines; patches whose centre lies in one are to be like, too.
    pool : {"mean", "max"}
        Of all patches to be like, their mean counts, or whichever is nearest.
    """

    like: tuple[Point, ...] = ()
    unlike: tuple[Point, ...] = ()
    regions: tuple[Polygon, ...] = ()
    pool: Pool = "mean"

    def __len__(self) -> int:
        return len(self.like) + len(self.unlike) + len(self.regions)

    def more(self, point: Point, like: bool = True) -> Examples:
        """Give the same with one more point."""
        if like:
            return replace(self, like=(*self.like, point))
        return replace(self, unlike=(*self.unlike, point))

    def patches(self, grid: PatchGrid) -> tuple[list[int], list[int]] | None:
        """Find the patches of a grid that are meant.

        Returns
        -------
        tuple of list of int or None
            Those to be like and unlike; None where a point meets no patch, or no patch
            is to be like.
        """
        like = [grid.index_at(*point) for point in self.like]
        unlike = [grid.index_at(*point) for point in self.unlike]
        within = patches_within(grid, self.regions)
        found = [patch for patch in like if patch is not None]
        away = [patch for patch in unlike if patch is not None]
        if len(found) + len(away) < len(like) + len(unlike):
            return None
        found = list(dict.fromkeys([*found, *within.tolist()]))
        return (found, list(dict.fromkeys(away))) if found else None

    def directions(
        self, index: SimilarityIndex
    ) -> tuple[Directions, list[int], list[int]] | None:
        """Say what is asked of an encoder; None where it has no features there.

        Returns
        -------
        tuple or None
            Directions (K, D), and the patches that are to be like and unlike. Patches
            of a region that could not be read are left out.

        Raises
        ------
        FeatureError
            If the examples cancel each other out.
        """
        patches = self.patches(index.features.grid)
        if patches is None:
            return None
        like, unlike = patches
        points = [index.features.grid.index_at(*point) for point in self.like]
        if not all(index.valid[patch] for patch in (*points, *unlike)):
            return None
        like = [patch for patch in like if index.valid[patch]]
        if not like:
            return None
        return index.directions(like, unlike, self.pool), like, unlike


def patches_within(grid: PatchGrid, regions: Sequence[Polygon]) -> NDArray[np.int64]:
    """Find the patches whose centres lie in any of some outlines.

    Parameters
    ----------
    grid : PatchGrid
        N patches.
    regions : sequence of sequence of tuple of float
        Outlines in level-0 pixels; of one that crosses itself, what lies within an odd
        number of turns.

    Returns
    -------
    ndarray of int64
        Their indices, ascending.
    """
    import shapely

    inside = np.zeros(len(grid), bool)
    x, y = grid.centres.T
    for ring in regions:
        if len(ring) >= 3:
            # As drawn, not made valid: GEOS counts crossings of the line, so that an
            # odd number of turns is inside; make_valid would join the turns.
            outline = shapely.Polygon(ring)
            shapely.prepare(outline)
            inside |= shapely.contains_xy(outline, x, y)
    return np.flatnonzero(inside)
