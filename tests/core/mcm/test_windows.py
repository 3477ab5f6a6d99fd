"""Windows of an epoch: every tissue patch, masked fairly, turned consistently."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mcm.core.mcm.window_pixels import choose_masked, read_window
from napari_mcm.core.mcm.windows import Source, plan_epoch
from napari_mcm.core.slides import open_slide
from napari_mcm.core.tissue import find_tissue


@pytest.fixture
def source(tissue_slide, config):
    slide = open_slide(tissue_slide)
    return Source(slide, find_tissue(slide, config.tissue))


def with_options(config, **options):
    update = {"optimiser": config.optimiser.model_copy(update=options)}
    return config.model_copy(update=update)


def test_an_epoch_sees_each_tissue_patch_at_most_once(source, config):
    refs = plan_epoch([source], config, 1.0, epoch=0)
    seen = np.concatenate([ref.index[ref.index >= 0] for ref in refs])
    assert len(seen) == len(set(seen))
    assert len(seen) > 0.6 * len(refs[0].grid)


def test_epochs_and_placements_lie_differently(source, config):
    first = plan_epoch([source], config, 1.0, 0)
    assert (
        len({plan_epoch([source], config, 1.0, e)[0].grid.origin for e in range(9)}) > 4
    )
    double = plan_epoch([source], with_options(config, placements=2), 1.0, 0)
    assert len(double) > 1.5 * len(first)


def test_the_same_seed_gives_the_same_windows(source, config):
    one, two = (plan_epoch([source], config, 1.0, 0) for _ in range(2))
    assert [ref.key for ref in one] == [ref.key for ref in two]
    first, again = read_window(one[0], config), read_window(two[0], config)
    np.testing.assert_array_equal(first.masked, again.masked)
    np.testing.assert_array_equal(first.visible_pixels, again.visible_pixels)
    other = plan_epoch([source], with_options(config, seed=1), 1.0, 0)
    assert [ref.key for ref in one] != [ref.key for ref in other]


def test_a_window_s_pixels_are_the_slide_s(source, config):
    config = with_options(config, flips=False)
    ref = plan_epoch([source], config, 1.0, 0)[0]
    window = read_window(ref, config)
    slots = np.flatnonzero(window.visible)
    for slot, pixels in zip(slots, window.visible_pixels, strict=True):
        corner = ref.grid.xy[ref.index.ravel()[slot]]
        expected = source.slide.read(corner, (32, 32), 1.0)
        np.testing.assert_array_equal(pixels, expected)


def test_turned_windows_are_turned_as_a_whole(source, config):
    plain = with_options(config, flips=False)
    seen = set()
    for ref in plan_epoch([source], config, 1.0, 0)[:12]:
        original, turned = (
            picture(read_window(ref, plain)),
            picture(read_window(ref, config)),
        )
        symmetries = [
            np.rot90(m, k) for k in range(4) for m in (original, original[:, ::-1])
        ]
        fits = [np.array_equal(turned, s, equal_nan=True) for s in symmetries]
        assert any(fits)
        seen.add(fits.index(True))
    assert len(seen) > 3


def picture(window, s=3, side=32):
    """Lay a window's patches out as one picture, NaN where there is no tissue."""
    tiles = np.full((s * s, side, side, 3), np.nan)
    tiles[window.visible] = window.visible_pixels
    tiles[window.masked] = window.masked_pixels
    grid = tiles.reshape(s, s, side, side, 3).swapaxes(1, 2)
    return grid.reshape(s * side, s * side, 3)


def test_masking_is_uniform_and_keeps_both_kinds():
    rng = np.random.default_rng(0)
    tissue = [0, 2, 3, 5, 7, 8]
    counts = np.zeros(9)
    for _ in range(3000):
        masked = choose_masked(tissue, 9, 0.5, rng)
        assert masked.sum() == 3
        counts += masked
    assert not counts[[1, 4, 6]].any()
    assert np.abs(counts[tissue] / 3000 - 0.5).max() < 0.04
    assert choose_masked([3, 4], 9, 0.99, rng).sum() == 1
    assert choose_masked([3, 4], 9, 0.01, rng).sum() == 1


def test_jitter_changes_all_patches_of_a_window_alike(source, config):
    plain = with_options(config, flips=False)
    strong = with_options(config, flips=False, jitter=0.4)
    for ref in plan_epoch([source], plain, 1.0, 0)[:3]:
        before, after = read_window(ref, plain), read_window(ref, strong)
        table = {}
        old = np.concatenate([before.visible_pixels, before.masked_pixels]).ravel()
        new = np.concatenate([after.visible_pixels, after.masked_pixels]).ravel()
        for a, b in zip(old[::97], new[::97], strict=True):
            assert table.setdefault(a, b) == b


def test_undecodable_patches_are_left_out_and_counted(source, config, monkeypatch):
    from napari_mcm.core.errors import TileError
    from napari_mcm.core.slides import Slide

    ref = plan_epoch([source], config, 1.0, 0)[0]
    whole = Slide.read
    bad = tuple(ref.grid.xy[ref.index[ref.index >= 0][0]])

    def read(self, xy, size, mpp):
        if tuple(xy) == bad:
            raise TileError("cannot be decoded")
        return whole(self, xy, size, mpp)

    monkeypatch.setattr(Slide, "read", read)
    window = read_window(ref, config)
    assert window.damaged == 1
    assert (window.visible | window.masked).sum() == (ref.index >= 0).sum() - 1
