"""Levels as napari cuts them: the right pixels, and those of the next pan at hand."""

from __future__ import annotations

import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_mcm.core.errors import TileError
from napari_mcm.core.slides import open_slide
from napari_mcm.viewer.layers import level_array
from napari_mcm.viewer.layers.level_array import LevelArray, _threads
from tests.viewer.conftest import wait_until


@pytest.fixture
def level(slide_path: Path) -> LevelArray:
    return LevelArray(open_slide(slide_path), 0)


@pytest.mark.parametrize(
    "key",
    [
        np.s_[:],
        np.s_[100:300, 200:700, :],
        np.s_[-100:, :50],
        np.s_[10:200:3, 5:600:7],
        np.s_[300:100:-4, 20:10:-1, ::-1],
        np.s_[17],
        np.s_[17, 30:40, 0],
        np.s_[..., 1],
        np.s_[5:5, 0:10],
        np.s_[990:5000, 1190:5000],
    ],
)
def test_it_is_cut_as_numpy_cuts(level: LevelArray, key: Any) -> None:
    whole = np.asarray(level)
    assert whole.shape == level.shape == (1000, 1200, 3)
    np.testing.assert_array_equal(level[key], whole[key])


def test_it_has_the_slides_pixels(slide_path: Path) -> None:
    with open_slide(slide_path) as slide:
        for index in range(len(slide.levels)):
            array = LevelArray(slide, index)
            np.testing.assert_array_equal(array, slide.as_dask(index).compute())
            assert array.size == np.prod(array.shape)


def test_a_place_beyond_it_is_an_error(level: LevelArray) -> None:
    with pytest.raises(IndexError):
        level[1000]


def test_the_next_pan_is_decoded_ahead(level: LevelArray) -> None:
    source = level._slide.levels[0].source
    level[0:256, 0:256]
    until = time.monotonic() + 10
    while len(source._cache._tiles) < 9:
        assert time.monotonic() < until, "tiles around the view were not decoded"
        time.sleep(0.01)
    # All threads idle: nothing beyond the margin is decoded.
    list(_threads().map(time.sleep, [0.01] * 16))
    places = {(row, column) for _, row, column in source._cache._tiles}
    assert places == {(row, column) for row in range(3) for column in range(3)}


def test_a_damaged_tile_is_grey_and_told_once(
    level: LevelArray, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    source = level._slide.levels[0].source
    decode = source.decode

    def damaged(row: int, column: int) -> Any:
        if (row, column) == (1, 1):
            raise TileError("is damaged", f"{level._slide.path}: tile 1, 1")
        return decode(row, column)

    monkeypatch.setattr(source, "decode", damaged)
    for _ in range(2):
        assert (level[256:512, 256:512] == 128).all()
    assert len([r for r in caplog.records if "damaged" in r.message]) == 1


def test_it_can_be_copied(level: LevelArray) -> None:
    again = pickle.loads(pickle.dumps(level))
    np.testing.assert_array_equal(again[50:60, 70:80], level[50:60, 70:80])


def test_tiles_around_a_view_wait_until_it_is_drawn(
    level: LevelArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(level_array, "PAUSE_S", 60.0)
    source = level._slide.levels[0].source
    level[0:256, 0:256]
    assert len(source._cache._tiles) == 1
    # The next view ends the wait, and drops the tiles around the one before.
    monkeypatch.setattr(level_array, "PAUSE_S", 0.0)
    level[768:1000, 1024:1200]
    wait_until(lambda: len(source._cache._tiles) > 2)
    list(_threads().map(time.sleep, [0.01] * 16))
    places = {(row, column) for _, row, column in source._cache._tiles}
    assert (1, 1) not in places and (2, 3) in places


def test_small_levels_are_decoded_when_a_slide_opens(
    level: LevelArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = level._slide.levels[0].source
    level.decode_ahead()
    wait_until(lambda: len(source._cache._tiles) == 20)
    monkeypatch.setattr(level_array, "MOST_AT_OPENING", 19)
    source._cache.clear()
    level.decode_ahead()
    list(_threads().map(time.sleep, [0.01] * 16))
    assert len(source._cache._tiles) == 0
