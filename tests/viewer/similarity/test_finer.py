"""Finer maps of the view, with a real encoder of random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_mcm.core.encoders import ComputeConfig
from napari_mcm.core.features.feature_set import PATCH_ALONE, NeighbourhoodConfig
from napari_mcm.core.features.half_steps import SHIFTS
from napari_mcm.core.grid import GridConfig
from napari_mcm.core.runtime.jobs import run
from napari_mcm.viewer.app.features import (
    FeatureRequest,
    LoadedFeatures,
    compute_features,
)
from napari_mcm.viewer.similarity import finer
from napari_mcm.viewer.similarity.context import context_of
from napari_mcm.viewer.similarity.widget import SimilarityWidget
from tests.viewer.conftest import Click, wait_until
from tests.viewer.similarity.test_maps import centre_um, map_of


@pytest.fixture
def encoded(slide_path: Path, tmp_path: Path) -> LoadedFeatures:
    """Features of 100 px patches of the slide."""
    request = FeatureRequest(
        slide_path,
        None,
        "random:test_resnet",
        "random",
        GridConfig(patch_size=100),
        tmp_path / "features",
        compute=ComputeConfig(device="cpu", precision="float32"),
    )
    return run(compute_features(request))


def refined(widget: SimilarityWidget) -> None:
    """Press the button, and wait until the map is finer."""
    changed: list[bool] = []
    context_of(widget.session).finer.changed.connect(lambda: changed.append(True))
    widget.maps.look.finer.click()
    wait_until(lambda: changed or widget.session.problem, 120)
    assert changed, widget.session.problem


def test_the_map_gets_finer_where_the_canvas_looks(
    widget: SimilarityWidget, encoded: LoadedFeatures, click: Click, viewer: Any
) -> None:
    session, context = widget.session, context_of(widget.session)
    session.set_features(session.slide, "first", encoded)
    click(centre_um(widget, 10))
    grid, coarse = encoded.index.features.grid, map_of(widget).data.copy()
    area = context.areas.area
    # The canvas shows the upper left of the tissue.
    low = grid.xy.min(axis=0)
    viewer.scene.camera.zoom = 4
    half = np.asarray(viewer.canvas.size)[::-1] / 2 / 4 / 0.5
    corner = low + half
    viewer.scene.camera.center = tuple((corner * 0.5)[::-1])
    refined(widget)
    picture = map_of(widget).data.copy()
    assert picture.shape == (4 * coarse.shape[0], 4 * coarse.shape[1])
    blocks = np.kron(coarse, np.ones((4, 4)))
    differs = np.argwhere(~np.isclose(picture, blocks, equal_nan=True))
    assert len(differs)
    # In the view, and a quarter of a patch around centres that are in it.
    at = (differs[:, ::-1] + 0.5) * 25
    assert (np.abs(at - corner) <= half + 25 + 1e-6).all()
    # Each value is the cosine of that place's own features.
    half_steps = finer._known[encoded]
    query = encoded.index.directions(10)
    for shift in SHIFTS:
        index = half_steps.indexes[shift]
        values = index.compare(query)
        row, column = index.features.grid.lattice[3]
        cell = 4 * row + 1 + 2 * shift[1], 4 * column + 1 + 2 * shift[0]
        assert picture[cell] == pytest.approx(values[3], abs=1e-6)
    # Areas and values stay those of whole patches.
    assert context.areas.area == area
    np.testing.assert_array_equal(
        context.queries.maps()["first"].values, encoded.index.query(10)
    )
    # The next click is fine, too, without another job.
    click(centre_um(widget, 20))
    assert map_of(widget).data.shape == picture.shape
    assert not np.array_equal(map_of(widget).data, picture, equal_nan=True)
    widget.maps.look.finer.click()
    assert "as fine as it gets" in session.problem
    context.finer.clear()
    assert map_of(widget).data.shape == coarse.shape


def test_averages_need_all_neighbours(encoded: LoadedFeatures) -> None:
    grid, dim = encoded.index.features.grid, encoded.index.features.dim
    left, top = grid.xy.min(axis=0)
    wanted = finer.missing_in(encoded, (left, top, left + 400.0, top + 400.0))
    rng = np.random.default_rng(0)
    made = {}
    for shift, part in wanted.items():
        vectors = rng.standard_normal((len(part), dim), np.float32)
        status = np.zeros(len(part), np.uint8)
        made[shift] = type(encoded.index.features)(vectors, part, status, {})
    finer.add_half_steps(encoded, made)
    half = finer._known[encoded]
    around = NeighbourhoodConfig(radius=1)
    for shift, index in half.indexes.items():
        computed = {tuple(place) for place in index.features.grid.lattice.tolist()}
        exist = {tuple(place) for place in half.grids[shift].lattice.tolist()}
        expected = [
            all(
                (row + y, column + x) in computed or (row + y, column + x) not in exist
                for y in (-1, 0, 1)
                for x in (-1, 0, 1)
            )
            for row, column in index.features.grid.lattice.tolist()
        ]
        assert half._complete(shift, 1).tolist() == expected
        assert any(expected) and not all(expected)
        assert half._complete(shift, 0).all()
    heatmap = context_heatmap(encoded)
    query = encoded.index.directions(5)
    wide = half.detail(heatmap, query, around)
    alone = half.detail(heatmap, query, PATCH_ALONE)
    assert np.isfinite(wide).sum() == np.isfinite(alone).sum()


def context_heatmap(loaded: LoadedFeatures) -> Any:
    from napari_mcm.core.heatmaps import heatmap_of

    return heatmap_of(loaded.index, loaded.index.directions(5), "a map")


def test_it_says_why_features_cannot_be_refined(
    widget: SimilarityWidget, loaded: LoadedFeatures, click: Click
) -> None:
    context_of(widget.session).finer.refine()
    assert "no map" in widget.session.problem
    widget.session.set_features(widget.session.slide, "first", loaded)
    click(centre_um(widget, 5))
    context_of(widget.session).finer.refine()
    assert "do not state their encoder" in widget.session.problem
    assert not widget.session.jobs.status.busy
