"""Area averaging is exact at any ratio, and quick."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mcm.core.slides.resample import area_average


def exact(image, box, size):
    """The definition, in float64: integrals of the image between edges, by axis."""

    def mean_between(values, edges):
        count = len(values)
        sums = np.concatenate([np.zeros((1, *values.shape[1:])), values.cumsum(axis=0)])
        flat = sums.reshape(count + 1, -1)
        at = np.stack([np.interp(edges, np.arange(count + 1), c) for c in flat.T], 1)
        at = at.reshape(len(edges), *values.shape[1:])
        widths = np.diff(edges).reshape(-1, *[1] * (values.ndim - 1))
        return np.diff(at, axis=0) / widths

    left, top, right, bottom = box
    rows = mean_between(image.astype(float), np.linspace(top, bottom, size[1] + 1))
    turned = mean_between(rows.swapaxes(0, 1), np.linspace(left, right, size[0] + 1))
    return turned.swapaxes(0, 1)


@pytest.mark.parametrize(
    ("shape", "box", "size"),
    [
        ((64, 64), (0, 0, 64, 64), (32, 32)),
        ((64, 64), (0, 0, 64, 64), (64, 64)),
        ((50, 71), (0.25, 0.75, 70.6, 49.1), (31, 23)),
        ((33, 47), (0.999, 0.001, 46.3, 32.5), (46, 32)),
        ((90, 90), (3.3, 2.2, 88.8, 77.7), (5, 7)),
        ((12, 10), (1.5, 2.5, 8.5, 9.5), (20, 30)),
        ((3, 400), (0, 0, 400, 3), (1, 1)),
    ],
)
def test_every_pixel_is_the_mean_over_its_area(shape, box, size):
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    result = area_average(image, box, size)
    assert result.shape == (size[1], size[0], 3)
    assert result.dtype == np.uint8
    # Half a grey level is rounding; float32 may tip what lies at the very half.
    assert np.abs(result - exact(image, box, size)).max() <= 0.501


def test_one_colour_stays_that_colour():
    for value in (0, 1, 128, 254, 255):
        image = np.full((327, 327, 3), value, np.uint8)
        assert (
            area_average(image, (0.4, 0.1, 326.9, 326.7), (224, 224)) == value
        ).all()


def test_a_hair_beyond_the_edge_repeats_the_last_pixel():
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5
    inside = area_average(image, (0, 0, 4, 4), (2, 2))
    beyond = area_average(image, (0, 0, 4 + 1e-7, 4 + 1e-7), (2, 2))
    np.testing.assert_array_equal(inside, beyond)
