"""Colours of maps against the colours of stained tissue, for any colour vision."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from napari_mcm.viewer.layers import colormaps

# RGB of what maps lie on. H&E: eosin, haematoxylin, nuclei, collagen, red cells. IHC: DAB
# strong and weak, and the blue counterstain.
TISSUE = np.asarray(
    [
        (225, 160, 195),
        (115, 85, 155),
        (80, 50, 120),
        (235, 195, 215),
        (200, 70, 90),
        (140, 90, 50),
        (195, 155, 120),
        (170, 180, 205),
    ]
)
TISSUE = TISSUE / 255
# Machado, Oliveira and Fernandes (2009), doi:10.1109/TVCG.2009.113, severity 1, on linear
# RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def seen(rgb: np.ndarray, vision: str) -> np.ndarray:
    """RGB as somebody with that colour vision sees it, in CIELAB."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ np.asarray(VISION[vision]).T, 0, 1)
    back = np.where(
        linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055
    )
    return rgb2lab(np.clip(back, 0, 1))


def least_contrast(rgba: np.ndarray, opacity: float, vision: str) -> float:
    """Least difference (CIEDE2000) of tissue with and without a map over it."""
    alpha = rgba[:, None, 3:] * opacity
    over = alpha * rgba[:, None, :3] + (1 - alpha) * TISSUE
    under = np.broadcast_to(TISSUE, over.shape)
    return float(deltaE_ciede2000(seen(over, vision), seen(under, vision)).min())


@pytest.mark.parametrize("vision", VISION)
def test_similar_tissue_stands_out_on_any_stain(vision: str) -> None:
    high = np.linspace(0.7, 1, 7)
    least = {"mint": 7.0, "frost": 5.0}
    for name in colormaps.OWN:
        colours = colormaps.faded(name).map(high)
        assert least_contrast(colours, 0.7, vision) > least[name], name
    ends = colormaps.diverging().map([0.0, 0.1, 0.9, 1.0])
    assert least_contrast(ends, 0.7, vision) > 6
    less, more = seen(ends[:1, :3], vision), seen(ends[-1:, :3], vision)
    assert deltaE_ciede2000(less, more)[0] > 40


def test_the_colours_of_earlier_versions_did_not() -> None:
    """So the threshold above says something."""
    before = colormaps.faded("coolwarm").map(np.linspace(0.7, 1, 7))
    assert min(least_contrast(before, 0.7, vision) for vision in VISION) < 2


@pytest.mark.parametrize("name", colormaps.OWN)
def test_equal_steps_look_equal_and_get_lighter(name: str) -> None:
    lab = rgb2lab(colormaps.faded(name).map(np.linspace(0, 1, 11))[:, :3])
    steps = deltaE_ciede2000(lab[1:], lab[:-1])
    assert steps.max() / steps.min() < 1.5
    assert (np.diff(lab[:, 0]) > 2).all()


@pytest.mark.parametrize("name", colormaps.OWN)
def test_what_is_opaque_spans_many_colours(name: str) -> None:
    low, high = rgb2lab(colormaps.faded(name).map([0.4, 1.0])[:, :3])
    assert deltaE_ciede2000(low, high) > 38


def test_the_spotlight_is_clear_from_the_threshold_and_clearly_dark_below() -> None:
    at = colormaps.SPOTLIGHT_FROM
    alpha = colormaps.spotlight().map([0.0, at / 2, at - 0.01, at, 0.95, 1.0])[:, 3]
    np.testing.assert_allclose(alpha, [1, 0.8, 0.6, 0, 0, 0], atol=0.01)


@pytest.mark.parametrize("name", colormaps.COLORMAPS)
def test_dissimilar_tissue_fades_out(name: str) -> None:
    alpha = colormaps.faded(name).map(np.linspace(0, 1, 101))[:, 3]
    assert alpha[0] == 0 and (np.diff(alpha) >= 0).all() and alpha[60:].min() > 0.999
    assert np.abs(np.diff(alpha)).max() < 0.03


def test_a_difference_of_nothing_is_clear_and_both_ends_are_not() -> None:
    alpha = colormaps.diverging().map([0.0, 0.25, 0.5, 0.75, 1.0])[:, 3]
    assert alpha[0] == alpha[-1] == 1 and alpha[2] < 0.001
    assert alpha[1] == pytest.approx(alpha[3], abs=1e-3)


def test_an_unknown_name_gives_the_default_colours() -> None:
    unknown, usual = colormaps.faded("no such map"), colormaps.faded("mint")
    np.testing.assert_array_equal(unknown.colors, usual.colors)
    assert colormaps.faded("coolwarm").map([0.0])[0, 3] == 1
