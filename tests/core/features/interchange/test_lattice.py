"""Rows and columns are found from corners alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.interchange.assemble import find_lattice


def holey(rows: int, columns: int, seed: int) -> np.ndarray:
    """A lattice of which a part is missing; the first row and column have one."""
    there = np.random.default_rng(seed).random((rows, columns)) < 0.6
    there[0, :], there[:, 0] = True, True
    return np.argwhere(there)


@settings(max_examples=60, deadline=None)
@given(
    step=st.floats(20, 900),
    left=st.integers(0, 5000),
    top=st.integers(0, 5000),
    rows=st.integers(2, 60),
    columns=st.integers(2, 90),
    seed=st.integers(0, 99),
)
def test_a_rounded_lattice_is_found(
    step: float, left: int, top: int, rows: int, columns: int, seed: int
) -> None:
    index = holey(rows, columns, seed)
    xy = np.rint(index[:, ::-1] * step + (left, top))
    # What other tools state is rounded.
    found = find_lattice(xy, (round(step), round(step)))
    moved = found.index - found.index.min(axis=0)
    assert np.array_equal(moved, index)
    assert found.misfit <= 1 and not found.crowded
    assert found.step == pytest.approx((step, step), abs=0.51)


@pytest.mark.parametrize("part", [0.25, 0.5, 0.75])
def test_overlap_shortens_the_step(part: float) -> None:
    index = holey(20, 30, 1)
    found = find_lattice(index[:, ::-1] * 512 * part + 100.0, (512, 512))
    assert found.step == (512 * part, 512 * part)
    assert found.misfit == 0 and not found.crowded


def test_lonely_patches_stand_on_a_lattice_of_their_size() -> None:
    xy = np.asarray([(0, 0), (2048, 0), (1024, 1536), (4096, 512)], float)
    found = find_lattice(xy, (512, 512))
    assert found.step == (512, 512)
    assert found.index.tolist() == [[0, 0], [0, 4], [3, 2], [1, 8]]


def test_one_patch() -> None:
    found = find_lattice(np.asarray([[700.0, 100.0]]), (512, 512))
    assert found.index.tolist() == [[0, 1]] and found.origin == (188, 100)


def test_what_lies_anywhere_is_refused() -> None:
    xy = np.random.default_rng(0).integers(0, 5000, (300, 2)).astype(float)
    with pytest.raises(FeatureError, match="lie on no lattice"):
        find_lattice(xy, (512, 512))


def test_a_lattice_larger_than_any_slide_is_refused() -> None:
    xy = np.asarray([[0.0, 0.0], [2.0**31, 2.0**31]])
    with pytest.raises(FeatureError, match="too small"):
        find_lattice(xy, (1, 1))
