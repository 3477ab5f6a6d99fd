"""Query files, which store a query for other slides and other programs.

A file names the slide and the example positions on it, in level-0 pixels. For each
encoder, identified by its fingerprint, it holds the query's unit vectors, and over which
patches their features were averaged. With these the query applies to any slide with
features of that encoder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.feature_set import (
    PATCH_ALONE,
    FeatureSet,
    NeighbourhoodConfig,
)
from napari_mcm.core.heatmaps.examples import Examples
from napari_mcm.core.heatmaps.similarity_index import (
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

# A vector of this length is a unit vector of float32.
_ROUNDED = 1e-6


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
    # Left out for the patch alone: such files stay as earlier versions wrote and read
    # them.
    neighbourhood: NeighbourhoodConfig = Field(
        PATCH_ALONE,
        description="Over which patches features are averaged before the comparison.",
        exclude_if=lambda value: not value.radius,
    )

    @property
    def unit(self) -> Directions:
        """Return the directions, scaled to unit length.

        Returns
        -------
        ndarray of float32, shape (K, D)
            Unit vectors, whatever their length in the file. Those that this program
            wrote are as they were, to the last bit.
        """
        vectors = np.asarray(self.directions, np.float64)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors /= np.where(abs(lengths - 1) < _ROUNDED, 1, lengths)
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

    def neighbourhood_for(
        self, encoder: Mapping[str, Any]
    ) -> NeighbourhoodConfig | None:
        """Return over which patches the query's features were averaged.

        Parameters
        ----------
        encoder : mapping
            An encoder, as :attr:`FeatureSet.encoder` describes it.

        Returns
        -------
        NeighbourhoodConfig or None
            That of the encoder's directions; of the only one that the file has for any
            encoder where it has none for this one; None where those differ.
        """
        own = self._of_encoder(encoder)
        found = {query.neighbourhood for query in own or self.encoders}
        return own[0].neighbourhood if own else found.pop() if len(found) == 1 else None

    def of_encoder(
        self,
        encoder: Mapping[str, Any],
        neighbourhood: NeighbourhoodConfig = PATCH_ALONE,
    ) -> Directions | None:
        """Return the query's directions for an encoder and a neighbourhood.

        Parameters
        ----------
        encoder : mapping
            An encoder, as :attr:`FeatureSet.encoder` describes it.
        neighbourhood : NeighbourhoodConfig, optional
            Over which patches the features are averaged that the query is for.

        Returns
        -------
        ndarray of float32, shape (K, D), or None
            None where the file has none for both.
        """
        for query in self._of_encoder(encoder):
            if query.neighbourhood == neighbourhood:
                return query.unit
        return None

    def _of_encoder(self, encoder: Mapping[str, Any]) -> list[EncoderQuery]:
        wanted = fingerprint_of(encoder)
        return [q for q in self.encoders if wanted and q.fingerprint == wanted]

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
            If the query was made with other encoders and on another slide, or with
            another neighbourhood.
        """
        features, around = index.features, index.neighbourhood
        directions = self.of_encoder(features.encoder, around)
        if directions is not None:
            return directions
        made = self.neighbourhood_for(features.encoder)
        if made is not None and made != around:
            raise FeatureError(
                f"was made with context {made.describe()}, not {around.describe()}",
                source,
                f"Use --context {made.radius}, or save the query again",
            )
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


def encoder_query(
    fingerprint: str,
    label: str,
    directions: Directions,
    neighbourhood: NeighbourhoodConfig = PATCH_ALONE,
) -> EncoderQuery:
    """Store a query's directions for one encoder.

    Parameters
    ----------
    fingerprint : str
        The encoder's fingerprint.
    label : str
        The encoder's name for people.
    directions : ndarray of float32, shape (K, D)
        Unit vectors.
    neighbourhood : NeighbourhoodConfig, optional
        Over which patches their features were averaged.

    Returns
    -------
    EncoderQuery
        With nine significant digits per value: as many as float32 has.
    """
    rows = tuple(tuple(map(_short, row)) for row in directions)
    return EncoderQuery(
        fingerprint=fingerprint,
        label=label,
        directions=rows,
        neighbourhood=neighbourhood,
    )


def make_query(
    examples: Examples,
    queried: Mapping[str, tuple[FeatureSet, Directions]],
    neighbourhood: NeighbourhoodConfig = PATCH_ALONE,
) -> QueryFile:
    """Combine examples and directions to a query that can be saved.

    Parameters
    ----------
    examples : Examples
        The example positions.
    queried : mapping of str to tuple of (FeatureSet, ndarray)
        Label of each encoder to its features of the slide and the directions (K, D).
    neighbourhood : NeighbourhoodConfig, optional
        Over which patches those features were averaged for the directions.

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
        mark: encoder_query(
            mark,
            label,
            directions,
            # Features that are averages already stay what they are.
            features.neighbourhood if features.neighbourhood.radius else neighbourhood,
        )
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
    """Round to as many digits as tell all float32 numbers apart."""
    return float(f"{value:.9g}")
