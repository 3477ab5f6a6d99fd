"""Values of the points of an atlas: similarity to the query, and attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.reading import read_features
from napari_mcm.core.heatmaps import SimilarityIndex
from napari_mcm.viewer.app.shared_query import SharedQuery, encoder_key
from napari_mcm.viewer.project.memory import memory_of

if TYPE_CHECKING:
    from napari_mcm.core.atlas import Atlas, AtlasSlide
    from napari_mcm.core.features.feature_set import FeatureSet
    from napari_mcm.core.heatmaps import Heatmap
    from napari_mcm.core.labelling.classifier import PatchClassifier
    from napari_mcm.viewer.app.features import LoadedFeatures
    from napari_mcm.viewer.app.session import Session

Values = NDArray[np.float32]


def loaded_features(session: Session, atlas: Atlas) -> dict[int, LoadedFeatures]:
    """Return features in memory of the atlas' slides and files, by position."""
    memory, found = memory_of(session), {}
    for number, slide in enumerate(atlas.slides):
        layer = memory.layer_of(slide.fingerprint)
        own = [] if layer is None else session.features_of(layer).values()
        for one in own:
            if one.path.absolute() == slide.features:
                found[number] = one
    return found


def similarities(
    atlas: Atlas, query: SharedQuery, loaded: Mapping[int, LoadedFeatures]
) -> tuple[Values, tuple[float, float]] | None:
    """Return the similarity of each point to the query; call this in a thread.

    Parameters
    ----------
    atlas : Atlas
        The atlas.
    query : SharedQuery
        The query.
    loaded : mapping of int to LoadedFeatures
        From :func:`loaded_features`; features of other slides are read.

    Returns
    -------
    tuple or None
        Values (N,), and the limits of the colour bar; None if the query was asked of
        another encoder.

    Raises
    ------
    FeatureError
        If features cannot be read, or were replaced by those of other patches.
    """
    values = np.full(len(atlas), np.nan, np.float32)
    key = ""
    for number, slide in enumerate(atlas.slides):
        one = loaded.get(number)
        features = _features_of(slide, one)
        key = encoder_key(features.encoder)
        directions = query.directions.get(key)
        if directions is None:
            return None
        index = (
            SimilarityIndex(features, query.neighbourhood)
            if one is None
            else one.index_at(query.neighbourhood)
        )
        patches = atlas.patches_of(number)
        values[patches] = index.compare(directions)[atlas.row[patches]]
    return values, query.limits[key]


def predicted_classes(
    atlas: Atlas,
    classifier: PatchClassifier,
    names: Sequence[str],
    loaded: Mapping[int, LoadedFeatures],
) -> NDArray[np.int32]:
    """Return the class of each point by a classifier; call this in a thread.

    Parameters
    ----------
    atlas : Atlas
        The atlas.
    classifier : PatchClassifier
        The classifier.
    names : sequence of str
        Names of classes.
    loaded : mapping of int to LoadedFeatures
        From :func:`loaded_features`; features of other slides are read.

    Returns
    -------
    ndarray of int32, shape (N,)
        An index into `names`; -1 for unsure.

    Raises
    ------
    FeatureError
        If the features are of another encoder than the classifier, or were replaced.
    """
    from napari_mcm.core.labelling.maps import patch_probabilities

    # The last is that of unsure.
    index = [list(names).index(n) if n in names else -1 for n in classifier.names]
    table = np.asarray([*index, -1], np.int32)
    found = np.full(len(atlas), -1, np.int32)
    for number, slide in enumerate(atlas.slides):
        features = _features_of(slide, loaded.get(number))
        decided = classifier.decide(patch_probabilities(classifier, features))
        patches = atlas.patches_of(number)
        found[patches] = table[np.maximum(decided, -1)][atlas.row[patches]]
    return found


def attention(session: Session, atlas: Atlas) -> tuple[Values, tuple[float, float]]:
    """Return the attention of each point on slides whose attention is drawn.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    atlas : Atlas
        The atlas.

    Returns
    -------
    tuple
        Values (N,), NaN elsewhere; and the limits of the colour bar.
    """
    values = np.full(len(atlas), np.nan, np.float32)
    limits = (0.0, 1.0)
    for number, slide in enumerate(atlas.slides):
        heatmap = _attention_on(session, slide.fingerprint)
        if heatmap is None:
            continue
        limits = heatmap.limits
        patches = atlas.patches_of(number)
        values[patches] = _at_corners(heatmap, slide.grid.xy[atlas.row[patches]])
    return values, limits


def _features_of(slide: AtlasSlide, loaded: LoadedFeatures | None) -> FeatureSet:
    """Return the features of a slide, which may be read."""
    features = (
        read_features(slide.features) if loaded is None else loaded.index.features
    )
    if features.grid.fingerprint != slide.grid.fingerprint:
        raise FeatureError(
            "has other patches than the atlas was made of",
            slide.features,
            "Make the atlas anew",
        )
    return features


def _attention_on(session: Session, fingerprint: str) -> Heatmap | None:
    layers = session.layers
    slide = memory_of(session).layer_of(fingerprint)
    layer = None if slide is None else layers.map_of(slide, "attention")
    return None if layer is None else layers.look.heatmap_in(layer)


def _at_corners(heatmap: Heatmap, corners: NDArray[np.int64]) -> Values:
    """Return the values of the patches with these corners; NaN where there is none."""
    own = {(int(x), int(y)): i for i, (x, y) in enumerate(heatmap.grid.xy)}
    rows = [own.get((int(x), int(y)), -1) for x, y in corners]
    values = np.append(heatmap.values, np.float32(np.nan))
    return np.asarray(values[rows], np.float32)
