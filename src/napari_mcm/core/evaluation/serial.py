"""The click test: whether a click finds its own place in the next section.

Two serial sections are registered to each other. Random tissue patches of the first are
queries; the patches of the second are ranked by cosine similarity of their features. A
query q is found at rank

    r_q = 1 + number of patches elsewhere that are at least as similar as the best
              patch at the place,

where patches "at the place" are those whose centre lies within 2, or within 0.75, patch
widths of where the registration maps the query's centre. Recall among the first k is the
mean of r_q ≤ k. A random order would find t_q of N patches at the place with probability

    1 - C(N - t_q, k) / C(N, k).

Ranks of each query are kept, so that encoders are compared query by query. Within 2
patch widths a smoother map gains on its own; within 0.75 it must point at the place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.evaluation.config import SerialConfig as SerialConfig
from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.registration import Registration

WIDE, NEAR = 2.0, 0.75
"""Distances in patch widths at which a patch counts as the query's own place."""

_CHUNK_BYTES = 64 << 20
"""Similarities that are computed at once."""

Ranks = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Places:
    """Queries in the first section, and their places in the second.

    Attributes
    ----------
    rows : ndarray of int64, shape (Q,)
        The queries' rows in the first feature set.
    centres_um : ndarray of float64, shape (Q, 2)
        Their centres (x, y) in the first section, in microns.
    mapped_um : ndarray of float64, shape (Q, 2)
        Where these lie in the second section, in microns.
    left_out : int
        Patches that were drawn, and left out because the second section has no patch
        within 0.75 patch widths of their place.
    """

    rows: NDArray[np.int64]
    centres_um: NDArray[np.float64]
    mapped_um: NDArray[np.float64]
    left_out: int

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, eq=False)
class ClickTest:
    """Ranks of each query's own place, for one encoder.

    Attributes
    ----------
    rows : ndarray of int64, shape (Q,)
        The queries' rows in the first feature set.
    centres_um : ndarray of float64, shape (Q, 2)
        Their centres (x, y) in the first section, in microns.
    wide, near : ndarray of int64, shape (Q,)
        Rank of the first hit within 2, and within 0.75, patch widths of the place.
    own : ndarray of int64, shape (Q,)
        Rank of the patch nearest to the place.
    wide_count, near_count : ndarray of int64, shape (Q,)
        Patches within these distances.
    candidates : int
        Patches of the second section that are ranked.
    left_out : int
        See :class:`Places`.
    """

    rows: NDArray[np.int64]
    centres_um: NDArray[np.float64]
    wide: Ranks
    near: Ranks
    own: Ranks
    wide_count: NDArray[np.int64]
    near_count: NDArray[np.int64]
    candidates: int
    left_out: int

    def __len__(self) -> int:
        return len(self.rows)

    def hits(self, k: int, within: float = WIDE) -> NDArray[np.bool_]:
        """Return which queries find their place among the first k patches.

        Parameters
        ----------
        k : int
            Number of patches that are looked at.
        within : {2.0, 0.75}, optional
            Distance in patch widths that counts as the place.

        Returns
        -------
        ndarray of bool, shape (Q,)
            True where it is found.
        """
        return np.asarray((self.wide if within == WIDE else self.near) <= k)

    def recall(self, k: int, within: float = WIDE) -> float:
        """Return the fraction of queries that find their place among the first k patches.

        Parameters
        ----------
        k : int
            Number of patches that are looked at.
        within : {2.0, 0.75}, optional
            Distance in patch widths that counts as the place.

        Returns
        -------
        float
            0 to 1.
        """
        return float(self.hits(k, within).mean())

    def chance(self, k: int, within: float = WIDE) -> float:
        """Return the recall that a random order would reach on average.

        Parameters
        ----------
        k : int
            Number of patches that are looked at.
        within : {2.0, 0.75}, optional
            Distance in patch widths that counts as the place.

        Returns
        -------
        float
            0 to 1.
        """
        counts = self.wide_count if within == WIDE else self.near_count
        total = self.candidates
        # The probability that k draws without replacement miss t patches of N.
        missed = np.ones(len(counts))
        for drawn in range(min(k, total)):
            missed *= np.clip((total - counts - drawn) / (total - drawn), 0, 1)
        return float(1 - missed.mean())

    @property
    def median_rank(self) -> float:
        """The median rank of the patch nearest to the place.

        Returns
        -------
        float
            1 is best; about half of the candidates by chance.
        """
        return float(np.median(self.own))

    def to_json(self) -> dict[str, Any]:
        """Return the test for JSON.

        Returns
        -------
        dict of str to Any
            See :meth:`from_json`.
        """
        arrays = {name: getattr(self, name).tolist() for name in _ARRAYS}
        centres = np.round(self.centres_um, 2).tolist()
        counts = {"candidates": self.candidates, "left_out": self.left_out}
        return {**counts, **arrays, "centres_um": centres}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ClickTest:
        """Return the test that :meth:`to_json` described.

        Parameters
        ----------
        content : mapping
            What it returned.

        Returns
        -------
        ClickTest
            The same ranks.

        Raises
        ------
        FeatureError
            If the content is damaged.
        """
        try:
            return cls(
                centres_um=np.asarray(content["centres_um"], np.float64).reshape(-1, 2),
                candidates=int(content["candidates"]),
                left_out=int(content["left_out"]),
                **{name: np.asarray(content[name], np.int64) for name in _ARRAYS},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FeatureError(f"a click test is incomplete ({error})") from None


_ARRAYS = ("rows", "wide", "near", "own", "wide_count", "near_count")


def choose_places(
    first: FeatureSet,
    second: FeatureSet,
    registration: Registration,
    config: SerialConfig | None = None,
    rows: NDArray[np.int64] | None = None,
) -> Places:
    """Choose random patches of the first section whose place lies on tissue of the second.

    Parameters
    ----------
    first, second : FeatureSet
        Features of both sections, of patches of one size.
    registration : Registration
        Map from the first section to the second.
    config : SerialConfig, optional
        Number of queries and random seed.
    rows : ndarray of int64, shape (M,), optional
        Rows of the first feature set to draw from; by default all with features.

    Returns
    -------
    Places
        In a random order that the seed decides.

    Raises
    ------
    FeatureError
        If patches differ in size, or no patch has a place in the second section.
    """
    config = config or SerialConfig()
    _check_pair(first, second)
    usable = (
        first.ok if rows is None else np.isin(np.arange(len(first)), rows) & first.ok
    )
    drawn = np.random.default_rng((config.query_seed, 53)).permutation(
        np.flatnonzero(usable)
    )
    centres = centres_um(first.grid)[drawn]
    mapped = registration.map_um(centres)
    targets = centres_um(second.grid)[second.ok]
    reach = NEAR * first.grid.patch_um
    found = np.zeros(len(drawn), bool)
    if len(targets) and len(drawn):
        found = cKDTree(targets).query(mapped)[0] <= reach
    if not found.any():
        raise FeatureError(
            f"no patch of {first.grid.slide.get('name')} has a place on tissue of "
            f"{second.grid.slide.get('name')}",
            hint="Are they sections of one block?",
        )
    kept = np.flatnonzero(found)[: config.queries]
    # Only what was drawn until there were enough counts as left out.
    left_out = int(kept[-1]) + 1 - len(kept)
    return Places(drawn[kept], centres[kept], mapped[kept], left_out)


def click_test(
    first: FeatureSet,
    second: FeatureSet,
    registration: Registration,
    config: SerialConfig | None = None,
    rows: NDArray[np.int64] | None = None,
) -> ClickTest:
    """Ask patches of one section in the next, and rank their own places.

    Parameters
    ----------
    first, second : FeatureSet
        Features of both sections by one encoder, averaged over the same neighbourhood.
    registration : Registration
        Map from the first section to the second.
    config : SerialConfig, optional
        Number of queries and random seed.
    rows : ndarray of int64, shape (M,), optional
        Rows of the first feature set to draw from; by default all with features.
        Encoders whose features are missing for other patches are paired by giving
        the rows that all of them have.

    Returns
    -------
    ClickTest
        Ranks per query. The same places are drawn for every encoder with features of
        the same patches.

    Raises
    ------
    FeatureError
        If the features do not match, or no patch has a place in the second section.
    """
    if first.features.shape[1] != second.features.shape[1]:
        raise FeatureError(
            f"features of {first.features.shape[1]} and {second.features.shape[1]} "
            "dimensions cannot be compared",
            hint="Extract both sections with one encoder",
        )
    if first.neighbourhood != second.neighbourhood:
        raise FeatureError(
            "features of the two sections are averaged over different neighbourhoods"
        )
    return rank_places(
        first, second, choose_places(first, second, registration, config, rows)
    )


def rank_places(first: FeatureSet, second: FeatureSet, places: Places) -> ClickTest:
    """Rank the places of given queries.

    Parameters
    ----------
    first, second : FeatureSet
        Features of both sections by one encoder.
    places : Places
        Queries and their places, from :func:`choose_places`.

    Returns
    -------
    ClickTest
        Ranks per query, in the places' order.
    """
    at = centres_um(second.grid)[second.ok]
    targets = _unit(second.features[second.ok])  # (N, D)
    queries = _unit(first.features[places.rows])  # (Q, D)
    patch = first.grid.patch_um
    chunk = max(_CHUNK_BYTES // (4 * len(targets)), 1)
    parts = []
    for start in range(0, len(places), chunk):
        part = slice(start, start + chunk)
        # (q, N) cosines, and distances in patch widths.
        cosine = queries[part] @ targets.T
        offset = places.mapped_um[part, None] - at[None]
        distance = np.hypot(offset[..., 0], offset[..., 1]) / patch
        parts.append(_rank(cosine, distance))
    wide, near, own, wide_count, near_count = np.concatenate(parts, axis=1)
    return ClickTest(
        places.rows,
        places.centres_um,
        wide,
        near,
        own,
        wide_count,
        near_count,
        len(targets),
        places.left_out,
    )


def centres_um(grid: PatchGrid) -> NDArray[np.float64]:
    """Return the centres of patches in microns.

    Parameters
    ----------
    grid : PatchGrid
        Patches of a slide.

    Returns
    -------
    ndarray of float64, shape (N, 2)
        x and y from the slide's upper left corner.
    """
    return np.asarray(grid.centres * np.asarray(grid.slide["mpp"], np.float64))


def _rank(
    cosine: NDArray[np.float32], distance: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return ranks within 2 and 0.75 widths and of the nearest patch, and both counts."""
    nearest = np.arange(len(distance)), distance.argmin(axis=1)
    alone = np.zeros(distance.shape, bool)
    alone[nearest] = True
    places = (distance <= WIDE, distance <= NEAR, alone)
    ranks = []
    for there in places:
        best = np.where(there, cosine, -np.inf).max(axis=1, keepdims=True)
        # A tie with a patch elsewhere counts against the place.
        ranks.append(1 + (~there & (cosine >= best)).sum(axis=1))
    return np.asarray([*ranks, *(there.sum(axis=1) for there in places[:2])], np.int64)


def _unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(length, 1e-12), np.float32)


def _check_pair(first: FeatureSet, second: FeatureSet) -> None:
    """Refuse features of patches that differ.

    Raises
    ------
    FeatureError
        If the patches differ in size or resolution.
    """
    one, other = first.grid, second.grid
    same = one.patch_size == other.patch_size and np.isclose(
        one.mpp, other.mpp, rtol=0.02
    )
    if not same:
        raise FeatureError(
            f"patches of {one.patch_size} px at {one.mpp:g} µm per pixel and of "
            f"{other.patch_size} px at {other.mpp:g} cannot be compared",
            hint="Extract both sections with the same --mpp and --patch-size",
        )
