"""Frames of labels: where, in which colour, how wide, and with which digit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_mcm.viewer.layers.label_frames import (
    CASING,
    DIGIT,
    FIRST_CLASS,
    LINE_PX,
    NOTHING,
    FramedLabels,
    FramePicture,
    colormap,
)

COLOURS = ("#ff0000", "#00ff00")


def painted(
    boxes: Any, classes: Any, px: float, size: int = 200, step: float = 1
) -> Any:
    """Return the codes of a square picture from the origin on."""
    picture = FramePicture(lambda: px)
    picture.labels = FramedLabels(
        np.asarray(boxes, float), np.asarray(classes), COLOURS, (1, 7)
    )
    at = (np.arange(size) + 0.5) * step
    return (picture.paint(at, at).astype(int) - 1) // 2


def test_a_frame_has_its_place_its_class_and_a_clear_inside() -> None:
    codes = painted([(40, 60, 140, 150)], [1], 1.0)
    rows, columns = np.nonzero(codes != NOTHING)
    assert (columns.min(), columns.max() + 1) == (40, 140)
    assert (rows.min(), rows.max() + 1) == (60, 150)
    assert set(np.unique(codes)) == {NOTHING, CASING, DIGIT, FIRST_CLASS + 1}
    assert codes[120, 90] == NOTHING
    # From the left: casing, line, casing, inside.
    row = codes[120, 40:60]
    line = int(LINE_PX)
    wanted = [CASING, *[FIRST_CLASS + 1] * line, CASING]
    assert row[: line + 2].tolist() == wanted
    assert (row[line + 2 :] == NOTHING).all()


@pytest.mark.parametrize("px", [0.5, 1.0, 4.0])
def test_the_line_has_one_width_on_the_screen_at_any_zoom(px: float) -> None:
    # One pixel of the picture per pixel of the screen.
    codes = painted([(0, 0, 150 * px, 150 * px)], [0], px, step=px)
    assert (codes[75, :20] == FIRST_CLASS).sum() == LINE_PX


@pytest.mark.parametrize("side", [15, 40])
def test_the_digit_of_the_class_is_in_its_frame(side: int) -> None:
    one, seven = (
        painted([(10, 10, 10 + side, 10 + side)], [kind], 1.0) == DIGIT
        for kind in (0, 1)
    )
    assert one.any()
    assert seven.any()
    assert not np.array_equal(one, seven)
    # A seven begins with a bar, a one ends with one.
    rows = np.flatnonzero(seven.any(axis=1))
    assert seven[rows[0]].sum() > seven[rows[-1]].sum()
    rows = np.flatnonzero(one.any(axis=1))
    assert one[rows[0]].sum() < one[rows[-1]].sum()


def test_a_label_that_is_tiny_on_the_screen_is_still_seen() -> None:
    codes = painted([(100, 100, 102, 102)], [1], 1.0)
    assert (codes == FIRST_CLASS + 1).sum() >= 20


def test_what_is_out_of_sight_is_not_painted() -> None:
    assert (painted([(500, 0, 600, 100)], [0], 1.0) == NOTHING).all()
    assert (painted(np.empty((0, 4)), np.empty(0, int), 1.0) == NOTHING).all()


def test_each_code_has_the_colour_of_its_class() -> None:
    made, (low, high) = colormap(COLOURS)
    for number, colour in enumerate(COLOURS):
        value = 2 * (FIRST_CLASS + number) + 1
        rgba = made.map(np.asarray([(value - low) / (high - low)]))[0]
        rgb = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        assert np.allclose(rgba, [*rgb, 1.0], atol=1 / 255)
    nothing = made.map(np.asarray([(1 - low) / (high - low)]))[0]
    assert nothing[3] == 0
