"""Query files, which store a query for other slides and other programs.

A file names the slide and the example positions on it, in level-0 pixels. For each
encoder, identified by its fingerprint, it holds the query's unit vectors. With these the
query applies to any slide with features of that encoder.
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

# Shorter vectors are rounding error, as in `similarity`.
_NOWHERE = 1e-5


Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e9, le=1e9)]

Place = tuple[Number, Number]

Outline = Annotated[tuple[Place, ...], Field(min_length=3, max_length=_MOST_POINTS)]

Vector = Annotated[tuple[Number, ...], Field(min_length=1, max_length=_MOST_VALUES)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SlideIdentity(_Part):
    """Identify the slide of the examples."""

    name: str = Field(max_length=1000, description="Name of the slide.")
    fingerprint: str = Field(max_length=200, description="Hash of its content.")


class EncoderQuery(_Part):
    """State a query in the feature space of one encoder."""

    fingerprint: str = Field(
        min_length=1, max_length=200, description="Hash of the encoder."
    )
    label: str = Field(
        "", max_length=1000, description="The encoder's name for people."
    )
    directions: tuple[Vector, ...] = Field(
        min_length=1,
        max_length=MOST_NEAREST,
        description="Vectors of the query, of which the nearest counts.",
    )

    @property
    def unit(self) -> Directions:
        """Return the directions, scaled to unit length.

        Returns
        -------
        ndarray of float32, shape (K, D)
            Unit vectors, whatever their length in the file.
        """
        vectors = np.asarray(self.directions, np.float64)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors.astype(np.float32)


class QueryFile(_Part):
    """Store a query, as its file does."""

    format: Literal["napari-mcm query"] = FORMAT
    version: Literal[1] = 1
    slide: SlideIdentity
    like: tuple[Place, ...] = Field(
        (),
        max_length=_MOST_POINTS,
        description="Points in similar patches, in level-0 pixels.",
    )
    unlike: tuple[Place, ...] = Field(
        (),
        max_length=_MOST_POINTS,
        description="Points in dissimilar patches, in level-0 pixels.",
    )
    regions: tuple[Outline, ...] = Field(
        (),
        max_length=_MOST_POINTS,
        description="Outlines of similar regions, in level-0 pixels.",
    )
    pool: Pool = Field("mean", description="How similar examples are combined.")
    encoders: tuple[EncoderQuery, ...] = Field(
        min_length=1, max_length=64, description="The query for each encoder."
    )

    @property
    def examples(self) -> Examples:
        """Return the example positions.

        Returns
        -------
        examples : Examples
            On the slide that the file names.
        """
        return Examples(self.like, self.unlike, self.regions, self.pool)

    def of_encoder(self, encoder: Mapping[str, Any]) -> Directions | None:
        """Return the query's directions for an encoder.

        Parameters
        ----------
        encoder : mapping
            An encoder, as :attr:`FeatureSet.encoder` describes it.

        Returns
        -------
        ndarray of float32, shape (K, D), or None
            None where the file has none for this encoder.
        """
        wanted = fingerprint_of(encoder)
        for query in self.encoders:
            if wanted and query.fingerprint == wanted:
                return query.unit
        return None

    def ask(self, index: SimilarityIndex, source: object = None) -> Directions:
        """Return the query's directions for features, by their encoder or by the examples.

        Parameters
        ----------
        index : SimilarityIndex
            Features of any slide.
        source : object, optional
            The file, for error messages.

        Returns
        -------
        ndarray of float32, shape (K, D)
            Unit vectors.

        Raises
        ------
        FeatureError
            If the query was made with other encoders and on another slide.
        """
        features = index.features
        directions = self.of_encoder(features.encoder)
        if directions is not None:
            return directions
        if self.is_of(features) and (query := self.examples.directions(index)):
            return query[0]
        names = ", ".join(query.label or query.fingerprint for query in self.encoders)
        raise FeatureError(
            f"was made with other encoders ({names}) than these features",
            source,
            "Use features of one of them, or choose example patches again",
        )

    def is_of(self, features: FeatureSet) -> bool:
        """Return whether the examples are on the slide of some features.

        Parameters
        ----------
        features : FeatureSet
            Features of any slide.

        Returns
        -------
        bool
            By the slide's fingerprint.
        """
        return features.grid.slide.get("fingerprint") == self.slide.fingerprint


def fingerprint_of(encoder: Mapping[str, Any]) -> str:
    """Return an encoder's fingerprint.

    Parameters
    ----------
    encoder : mapping
        An encoder, as :attr:`FeatureSet.encoder` describes it.

    Returns
    -------
    str
        "" where it has none.
    """
    return str(encoder.get("fingerprint") or "")


def encoder_query(fingerprint: str, label: str, directions: Directions) -> EncoderQuery:
    """Store a query's directions for one encoder.

    Parameters
    ----------
    fingerprint : str
        The encoder's fingerprint.
    label : str
        The encoder's name for people.
    directions : ndarray of float32, shape (K, D)
        Unit vectors.

    Returns
    -------
    EncoderQuery
        With eight significant digits per value.
    """
    rows = tuple(tuple(map(_short, row)) for row in directions)
    return EncoderQuery(fingerprint=fingerprint, label=label, directions=rows)


def make_query(
    examples: Examples,
    queried: Mapping[str, tuple[FeatureSet, Directions]],
) -> QueryFile:
    """Combine examples and directions to a query that can be saved.

    Parameters
    ----------
    examples : Examples
        The example positions.
    queried : mapping of str to tuple of (FeatureSet, ndarray)
        Label of each encoder to its features of the slide and the directions (K, D).

    Returns
    -------
    QueryFile
        For all encoders that have a fingerprint.

    Raises
    ------
    FeatureError
        If no encoder has a fingerprint.
    """
    queries = {
        mark: encoder_query(mark, label, directions)
        for label, (features, directions) in queried.items()
        if (mark := fingerprint_of(features.encoder))
    }
    if not queries:
        raise FeatureError(
            "the features do not state the fingerprint of their encoder",
            hint="Compute features here; files of other tools often lack it",
        )
    slide = next(iter(queried.values()))[0].grid.slide
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
    """Write a query to a file.

    Parameters
    ----------
    path : Path
        The file, by convention ``.query.json``.
    query : QueryFile
        The query.

    Returns
    -------
    Path
        The file.
    """
    write_text(Path(path), query.model_dump_json() + "\n")
    return Path(path)


def read_query(path: Path) -> QueryFile:
    """Read a query from a file and check all of it.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    QueryFile
        The query.

    Raises
    ------
    FeatureError
        If it is not a query, is damaged, or was written by a later version.
    """
    path = Path(path)
    try:
        query = _parse(path)
        _check_vectors(query)
    except FeatureError as error:
        hint = "Save the query again, in the Similarity widget or with --save-query"
        raise FeatureError(error.what, path, hint) from None
    return query


def _parse(path: Path) -> QueryFile:
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)  # one too many shows a larger file
        if len(raw) > MOST_BYTES:
            raise FeatureError(f"is larger than {MOST_BYTES >> 20} MiB")
        content = json.loads(raw)
    except OSError as error:
        raise FeatureError(f"cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError):
        raise FeatureError("is not JSON") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise FeatureError("holds no query")
    if content.get("version") != 1:
        version = str(content.get("version"))[:20]
        raise FeatureError(f"has version {version}, this program reads version 1")
    try:
        return QueryFile.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise FeatureError(f"{where}: {first['msg']}") from None


def _check_vectors(query: QueryFile) -> None:
    for encoder in query.encoders:
        if len({len(vector) for vector in encoder.directions}) > 1:
            raise FeatureError("vectors of one encoder have different lengths")
        lengths = np.linalg.norm(np.asarray(encoder.directions), axis=1)
        if (lengths < _NOWHERE).any():
            raise FeatureError("a vector has no direction: all its values are 0")


def _short(value: float) -> float:
    """Round to as many digits as a cosine of float32 features can show."""
    return float(f"{value:.8g}")


Point = tuple[float, float]

Polygon = tuple[Point, ...]


@dataclass(frozen=True)
class Examples:
    """Example positions on one slide, in level-0 pixels.

    Attributes
    ----------
    like, unlike : tuple of tuple of float
        Points (x, y) in similar and in dissimilar patches.
    regions : tuple of tuple of tuple of float
        Outlines; patches whose centre lies inside are similar examples, too.
    pool : {"mean", "max"}
        Whether the mean of all similar examples counts, or the nearest one.
    """

    like: tuple[Point, ...] = ()
    unlike: tuple[Point, ...] = ()
    regions: tuple[Polygon, ...] = ()
    pool: Pool = "mean"

    def __len__(self) -> int:
        return len(self.like) + len(self.unlike) + len(self.regions)

    def more(self, point: Point, like: bool = True) -> Examples:
        """Return the examples with one more point.

        Parameters
        ----------
        point : tuple of float
            Position (x, y) in level-0 pixels.
        like : bool, optional
            Whether it is a similar example.

        Returns
        -------
        examples : Examples
            A copy.
        """
        if like:
            return replace(self, like=(*self.like, point))
        return replace(self, unlike=(*self.unlike, point))

    def patches(self, grid: PatchGrid) -> tuple[list[int], list[int]] | None:
        """Return the patches of a grid that contain the examples.

        Parameters
        ----------
        grid : PatchGrid
            Patches of the slide.

        Returns
        -------
        tuple of list of int or None
            Similar and dissimilar patches; None where a point is in no patch, or there is
            no similar patch.
        """
        like = [grid.index_at(*point) for point in self.like]
        unlike = [grid.index_at(*point) for point in self.unlike]
        within = patches_within(grid, self.regions)
        similar = [patch for patch in like if patch is not None]
        dissimilar = [patch for patch in unlike if patch is not None]
        if len(similar) + len(dissimilar) < len(like) + len(unlike):  # all or none
            return None
        similar = list(dict.fromkeys([*similar, *within.tolist()]))  # each patch once
        return (similar, list(dict.fromkeys(dissimilar))) if similar else None

    def directions(
        self, index: SimilarityIndex
    ) -> tuple[Directions, list[int], list[int]] | None:
        """Return the query's directions for an encoder's features of the slide.

        Parameters
        ----------
        index : SimilarityIndex
            Features of the slide.

        Returns
        -------
        tuple or None
            Directions (K, D), and the similar and dissimilar patches. Patches of a region
            that have no features are left out. None where a point has no features.

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
    """Return the patches whose centres lie inside one of several outlines.

    Parameters
    ----------
    grid : PatchGrid
        N patches.
    regions : sequence of tuple of tuple of float
        Outlines in level-0 pixels. Of one that crosses itself, the inside is what lies
        within an odd number of turns.

    Returns
    -------
    ndarray of int64, shape (M,)
        Indices of patches, ascending.
    """
    import shapely

    inside = np.zeros(len(grid), bool)
    x, y = grid.centres.T
    for corners in regions:
        if len(corners) >= 3:
            # As drawn, not made valid: GEOS counts crossings of the line, so that an
            # odd number of turns is inside; make_valid would join the turns.
            outline = shapely.Polygon(corners)
            shapely.prepare(outline)
            inside |= shapely.contains_xy(outline, x, y)
    return np.flatnonzero(inside)
