"""Hidden patches filled by the blur of what is seen around them."""

import numpy as np
import pytest

from napari_mcm.core.mae.reconstruction import blur_over


@pytest.fixture
def slope():
    """A picture that rises evenly from left to right, 7 × 7 patches of 16 px."""
    ramp = np.linspace(20, 230, 112)[None, :, None]
    return np.broadcast_to(ramp, (112, 112, 3)).astype(np.uint8)


def only(*places):
    hidden = np.zeros((7, 7), bool)
    for place in places:
        hidden[place] = True
    return hidden


def test_visible_patches_stay_as_they_are(slope):
    hidden = np.random.default_rng(0).random((7, 7)) < 0.75
    filled = blur_over(slope, hidden)
    seen = ~np.kron(hidden, np.ones((16, 16), bool))
    assert (filled[seen] == slope[seen]).all()


def test_a_gap_in_a_smooth_picture_is_filled_in_its_colours(slope):
    filled = blur_over(slope, only((3, 3)))
    wrong = np.abs(filled.astype(int) - slope)
    assert 0 < wrong.max() < 20
    # Darker on the left and brighter on the right, as it is.
    gap = filled[48:64, 48:64, 0].mean(axis=0)
    assert (np.diff(gap) >= 0).all() and gap[-1] - gap[0] > 10


def test_far_from_anything_seen_the_colour_is_that_of_what_is(slope):
    hidden = ~only((0, 0))
    filled = blur_over(slope, hidden)
    assert np.abs(filled[100:, 100:].astype(int) - slope[:16, :16].mean()).max() < 16
