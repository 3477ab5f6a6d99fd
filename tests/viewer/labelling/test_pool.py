"""The patches that *Label next* chooses from."""

from __future__ import annotations

import numpy as np

from napari_mcm.core.features.feature_set import PATCH_ALONE
from napari_mcm.core.labelling import LabelSet, labels_of_rows
from napari_mcm.viewer.labelling.pool import MOST_OF_CLASS, MOST_RANDOM, pool_of
from tests.core.labelling.made_labels import make_features


def test_a_large_slide_gives_patches_of_every_predicted_class():
    features = make_features(rows=60, columns=100)
    probabilities = np.tile(np.float32([0.9, 0.06, 0.04]), (6000, 1))
    rare = [17, 4321]
    probabilities[rare] = [0.1, 0.1, 0.8]
    probabilities[:3000:10] = [0.1, 0.8, 0.1]
    labelled = np.asarray([5, 77, 5999])
    labels = LabelSet().with_names(["a"])
    labels = labels.with_labels(labels_of_rows(features.grid, labelled, "a"))
    pool = pool_of(features, probabilities, PATCH_ALONE, labels)
    # What a random sample of a fifth of the patches misses is added.
    assert set(rare) | set(labelled.tolist()) <= set(pool.rows.tolist())
    second = np.isin(pool.rows, np.arange(0, 3000, 10)).sum()
    assert second > MOST_OF_CLASS
    assert MOST_RANDOM < len(pool.rows) < MOST_RANDOM + 2 * MOST_OF_CLASS + 5
    assert (np.diff(pool.rows) > 0).all()
    np.testing.assert_array_equal(pool.features, features.features[pool.rows])
