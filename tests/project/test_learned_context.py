"""The benchmark of learned context puts each patch's windows together correctly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from benchmarks.learned_parts.windows import (
    Filled,
    contextualise,
    places_of,
    windows_around,
)
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from napari_mcm.core.features import FeatureSet, Status
from napari_mcm.core.mcm.config import ContextConfig
from napari_mcm.core.mcm.model import ContextModel
from tests.core.features.made_features import made_grid

ROWS, COLUMNS = 7, 6


class WindowMean(nn.Module):
    """Answers each place with the mean of what its window shows."""

    def forward(self, features, visible, asked):
        owner = torch.nonzero(visible)[:, 0]
        sums = torch.zeros(len(visible), features.shape[1])
        sums.index_add_(0, owner, features)
        means = sums / visible.sum(dim=1, keepdim=True)
        return means[torch.nonzero(asked)[:, 0]]


class Echo(nn.Module):
    """Answers each place with the features that stand there."""

    def forward(self, features, visible, asked):
        whole = torch.zeros(*visible.shape, features.shape[1])
        whole[visible] = features
        return whole[asked]


@pytest.fixture
def features() -> FeatureSet:
    """A ragged piece of tissue: holes, and patches that could not be read."""
    whole = made_grid(ROWS, COLUMNS)
    rng = np.random.default_rng(4)
    kept = rng.random(len(whole)) < 0.75
    grid = replace(whole, xy=whole.xy[kept], lattice=whole.lattice[kept])
    values = rng.normal(size=(len(grid), 3)).astype(np.float32)
    status = np.zeros(len(grid), np.uint8)
    status[[2, 9]] = Status.BLANK
    values[status != Status.OK] = np.nan
    return FeatureSet(values, grid, status, {})


def window_means(features, s, offsets, hide):
    """The mean over windows of their means, patch by patch."""
    places = {
        tuple(p): i for i, p in enumerate(features.grid.lattice) if features.ok[i]
    }
    found = np.full(features.features.shape, np.nan)
    for (row, column), i in places.items():
        means = []
        for down in offsets:
            for right in offsets:
                window = [
                    places[row - down + r, column - right + c]
                    for r in range(s)
                    for c in range(s)
                    if (row - down + r, column - right + c) in places
                ]
                if hide:
                    window.remove(i)
                means.append(features.features[window].mean(axis=0))
        found[i] = np.mean(means, axis=0)
    return found


@pytest.mark.parametrize(
    ("s", "placements", "offsets"),
    [
        (3, "central", [1]),
        (4, "central", [1, 2]),
        (2, "central", [0, 1]),
        (3, "all", [0, 1, 2]),
        (4, "all", [0, 1, 2, 3]),
    ],
)
def test_a_patch_is_in_the_middle_of_its_windows(features, s, placements, offsets):
    assert places_of(s, placements).sum() == len(offsets) ** 2
    found = contextualise(WindowMean(), features, s)[placements].features
    assert_allclose(found, window_means(features, s, offsets, False), rtol=1e-5)
    # The same windows, whatever order their patches are shown in.
    again = contextualise(WindowMean(), features, s, shuffle=0)[placements].features
    assert_allclose(again, found, rtol=1e-5)
    # Patches without features have none afterwards; all others do.
    assert_array_equal(np.isfinite(found).all(axis=1), features.ok)


def test_a_masked_patch_is_not_shown(features):
    found = contextualise(WindowMean(), features, 4, hide=True)["central"].features
    expected = window_means(features, 4, [1], True)
    assert np.isfinite(expected[features.ok]).all()
    assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("shuffle", [None, 0])
@pytest.mark.parametrize("placements", ["central", "all"])
def test_outputs_return_to_their_own_patch(features, placements, shuffle):
    found = contextualise(Echo(), features, 4, shuffle=shuffle)[placements]
    assert_allclose(found.features, features.features, rtol=1e-6)


def test_windows_hold_tissue_and_reach_over_the_border(features):
    windows = windows_around(features, 4)
    assert (windows >= 0).any(axis=1).all()
    # Every patch stands once in every place of a window.
    for place in windows.T:
        assert_array_equal(np.sort(place[place >= 0]), np.flatnonzero(features.ok))
    # Row-major, as the position embeddings are: places less rows and columns agree.
    across = np.stack(np.divmod(np.arange(16), 4), axis=1)
    for window in windows:
        held = window >= 0
        corners = features.grid.lattice[window[held]] - across[held]
        assert len(np.unique(corners, axis=0)) == 1


def test_the_transformer_reads_positions_and_nothing_outside_the_window(features):
    config = ContextConfig(
        context_mode="masked", s=3, width=16, heads=2, depth=1, predictor_width=8
    )
    torch.manual_seed(0)
    head = ContextModel(3, 5, config)
    tokens = Filled(head)
    found = contextualise(tokens, features, 3)["central"].features
    assert found.shape == (len(features), 16)
    shuffled = contextualise(tokens, features, 3, shuffle=0)["central"].features
    assert not np.allclose(found[features.ok], shuffled[features.ok], atol=1e-3)
    # Only the windows of the patches around a changed one notice.
    values = features.features.copy()
    values[20] += 3
    moved = replace(features, features=values)
    other = contextualise(tokens, moved, 3)["central"].features
    changed = np.abs(other - found)[features.ok].max(axis=1) > 1e-5
    away = np.abs(features.grid.lattice - features.grid.lattice[20]).max(axis=1)
    assert features.ok[20]
    assert_array_equal(changed, away[features.ok] <= 1)
    # Predictions stand beside the tokens they are made from.
    both = Filled(head, predict=True)
    beside = contextualise(both, features, 3)["central"].features[features.ok]
    assert_allclose(beside[:, :16], found[features.ok], rtol=1e-5)
    with torch.inference_mode():
        predicted = head.predictor(torch.from_numpy(found[features.ok]))
    assert_allclose(beside[:, 16:], predicted, rtol=1e-4, atol=1e-5)
