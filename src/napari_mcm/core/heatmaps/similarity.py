"""How alike patches look to an encoder: cosine of one patch to all others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.heatmaps.heatmap import Heatmap

Patches = int | Sequence[int]
ROBUST_PERCENTILES = (2.0, 98.0)
_NOWHERE = 1e-5


class SimilarityIndex:
    """Features made ready for queries: normalised once, then one product a query.

    Parameters
    ----------
    features : FeatureSet
        N patches with D features. They are copied, and left as they are.

    Attributes
    ----------
    features : FeatureSet
        What the index was made from.
    valid : ndarray of bool, shape (N,)
        Patches that have a direction: status ``OK``, finite and not all zero.
    """

    def __init__(self, features: FeatureSet) -> None:
        self.features = features
        unit = np.array(features.features, np.float32, order="C")
        lengths = np.sqrt(np.einsum("nd,nd->n", unit, unit))
        self.valid = features.ok & np.isfinite(lengths) & (lengths > 0)
        unit /= np.where(self.valid, lengths, 1)[:, None]
        unit[~self.valid] = 0
        self._unit = unit

    def query(self, index: Patches, against: Patches = ()) -> NDArray[np.float32]:
        """Compare all patches with one or several.

        Parameters
        ----------
        index : int or sequence of int
            Patches to be like; of several, the mean of their directions counts.
        against : int or sequence of int
            Patches to be unlike. Their mean direction is taken away from that of
            `index`, and the cosine to what is left is given.

        Returns
        -------
        ndarray of float32, shape (N,)
            Cosine similarity, -1 to 1; NaN for patches without features.

        Raises
        ------
        FeatureError
            If a patch asked for does not exist or has no features, or if together they
            cancel out: those to be like and unlike are the same, say.
        """
        direction = self._mean(index)
        if _listed(against):
            direction = direction - self._mean(against)
        length = float(np.linalg.norm(direction))
        if length < _NOWHERE:
            raise FeatureError(
                "the features of the patches asked for cancel each other out",
                hint="Choose other patches",
            )
        # As fast as a matrix product, without its second thread, which would compete
        # with whoever paints the answer.
        unit = direction / np.float32(length)
        cosine: NDArray[np.float32] = np.vecdot(self._unit, unit)
        np.clip(cosine, -1, 1, out=cosine)
        cosine[~self.valid] = np.nan
        return cosine

    def _mean(self, patches: Patches) -> NDArray[np.float32]:
        listed = _listed(patches)
        for patch in listed or [-1]:
            if not 0 <= patch < len(self.valid):
                raise FeatureError(f"patch {patch} of {len(self.valid)} does not exist")
            if not self.valid[patch]:
                raise FeatureError(
                    f"patch {patch} has no features to compare with",
                    hint="Choose a patch that could be read and is not blank",
                )
        return np.asarray(self._unit[listed].mean(axis=0))


def similarity(
    features: FeatureSet | SimilarityIndex,
    query: Patches,
    against: Patches = (),
    limits: Literal["fixed", "robust"] = "fixed",
) -> Heatmap:
    """Show how like a query patch all others are.

    Parameters
    ----------
    features : FeatureSet or SimilarityIndex
        N patches of one slide. Pass an index for many queries on the same features.
    query, against : int or sequence of int
        Patches to be like, and unlike (:meth:`SimilarityIndex.query`).
    limits : {"fixed", "robust"}
        Range of the colours: -1 to 1, which lets encoders be compared, or the 2nd to
        the 98th percentile of all patches but the queries, which shows the structure
        of features that all point much the same way.

    Returns
    -------
    Heatmap
        Its ``query`` is the first patch asked for.
    """
    index = (
        features if isinstance(features, SimilarityIndex) else SimilarityIndex(features)
    )
    values = index.query(query, against)
    shown = _listed(query)
    title = f"cosine similarity to {_name(shown)}"
    if _listed(against):
        title += f", away from {_name(_listed(against))}"
    ends = (-1.0, 1.0) if limits == "fixed" else _robust(values, shown)
    return Heatmap(values, index.features.grid, ends, title, query=shown[0])


def _robust(values: NDArray[np.float32], queries: list[int]) -> tuple[float, float]:
    others = np.delete(values, queries)
    others = others[np.isfinite(others)]
    if not len(others):
        return -1.0, 1.0
    low, high = (float(v) for v in np.percentile(others, ROBUST_PERCENTILES))
    return (low, high) if high - low > 1e-6 else (low - 1e-3, low + 1e-3)


def _listed(patches: Patches) -> list[int]:
    return [int(patches)] if isinstance(patches, int | np.integer) else list(patches)


def _name(patches: list[int]) -> str:
    plural = "es" if len(patches) > 1 else ""
    return f"patch{plural} {', '.join(map(str, patches))}"
