"""Scores of patches in ``layer.features``."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtWidgets import QApplication

from napari_mcm.viewer.app.features import LoadedFeatures
from napari_mcm.viewer.similarity.context import context_of
from napari_mcm.viewer.similarity.widget import SimilarityWidget
from tests.viewer.conftest import MPP, Click, wait_until
from tests.viewer.similarity.test_maps import centre_um, ready
from tests.viewer.similarity.test_query import again

__all__ = ["ready"]


def test_the_features_of_a_layer_are_the_scores_of_the_patches(
    ready: SimilarityWidget, click: Click, viewer: Any, loaded: LoadedFeatures
) -> None:
    session, scores = ready.session, context_of(ready.session).scores
    scores.make()
    assert "no map" in session.problem and scores.layer_of(session.slide) is None
    session.set_features(session.slide, "second", again(loaded, 1))
    click(centre_um(ready, 5))
    selected = viewer.layers.selection.active
    ready.query.table.trigger()
    wait_until(lambda: scores.layer_of(session.slide) is not None)
    layer = scores.layer_of(session.slide)
    assert not layer.visible and viewer.layers.selection.active is layer is not selected
    assert [str(unit) for unit in layer.units] == [
        str(unit) for unit in session.slide.units
    ]
    table, grid = layer.features, session.features("first").index.features.grid
    assert len(table) == len(grid)
    for slot in ("first", "second"):
        one = session.features(slot)
        values = table[f"similarity: {one.label}"]
        np.testing.assert_allclose(values, one.index.query(5), atol=1e-6)
    np.testing.assert_allclose(table["x_um"], (grid.xy[:, 0] + 25) * MPP)
    layer.visible = True
    # The number under a patch is that of its row, wherever it is asked.
    for row in (0, 30, len(grid) - 1):
        number = layer.get_value(centre_um(ready, row), world=True)
        assert table["patch"][table["index"] == number].tolist() == [row]


def test_the_table_follows_the_query_after_it_but_not_the_cursor(
    ready: SimilarityWidget, click: Click
) -> None:
    session, scores = ready.session, context_of(ready.session).scores
    index = session.features("first").index
    name = f"similarity: {session.features('first').label}"
    click(centre_um(ready, 5))
    scores.make()
    wait_until(lambda: scores.layer_of(session.slide) is not None)
    layer = scores.layer_of(session.slide)
    before = layer.features[name].copy()
    context_of(session).queries.cursor.follow(*index.features.grid.centres[70])
    QApplication.processEvents()
    assert layer.features[name].equals(before)
    click(centre_um(ready, 40))
    # Not at once: the map comes first.
    assert layer.features[name].equals(before)
    wait_until(lambda: not layer.features[name].equals(before))
    np.testing.assert_allclose(layer.features[name], index.query(40), atol=1e-6)
