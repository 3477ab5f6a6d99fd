"""A drawn section, and the same tissue turned, mirrored and bent in a known way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from napari_mcm.core.slides import Slide, open_slide
from tests.core.conftest import write_pyramid

MPP, SIZE = 4.0, 1000  # px: 4 mm a side
CENTRE = SIZE * MPP / 2


def draw(seed: int) -> np.ndarray:
    """Tissue with an irregular outline, and stain that varies at several scales."""
    rng = np.random.default_rng(seed)

    def noise(sigma: float) -> np.ndarray:
        field = ndimage.gaussian_filter(rng.normal(size=(SIZE, SIZE)), sigma)
        return field / field.std()

    y, x = (np.mgrid[:SIZE, :SIZE] - SIZE / 2) / (0.36 * SIZE)
    outline = np.hypot(x * 0.9, y * 1.2) + 0.18 * noise(90)
    stain = 0.35 + 0.05 * noise(3) + 0.05 * noise(9) + 0.06 * noise(25)
    density = np.where(outline < 1, np.clip(stain, 0.1, 0.8), 0)
    # Purple: green is absorbed most.
    light = 243 * 10 ** -(density[..., None] * (0.9, 1.3, 0.7))
    return np.clip(light + rng.normal(0, 1, light.shape), 0, 255).astype(np.uint8)


def bend(points: np.ndarray, degrees: float, mirrored: bool) -> np.ndarray:
    """Where points (..., 2) in µm of the second section come from in the first."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if mirrored:
        turn = turn @ np.diag([-1.0, 1.0])
    local = (points - CENTRE - (120, -80)) * 1.02 @ turn.T
    wave = 45 * np.sin(local[..., ::-1] / 500)
    return local + wave + CENTRE


Pair = Callable[..., tuple[Slide, Slide]]


@pytest.fixture
def sections(tmp_path: Path) -> Pair:
    """Two sections; the second is the first, seen through :func:`bend`."""

    def make(degrees: float = 0, mirrored: bool = False, seed: int = 1) -> tuple:
        image = draw(1)
        index = np.mgrid[:SIZE, :SIZE][::-1]
        places = (np.moveaxis(index, 0, -1) + 0.5) * MPP
        source = bend(places, degrees, mirrored) / MPP - 0.5
        other = draw(seed)
        moved = np.stack(
            [
                ndimage.map_coordinates(
                    other[..., c].astype(float),
                    source[..., ::-1].transpose(2, 0, 1),
                    order=1,
                    cval=243,
                )
                for c in range(3)
            ],
            axis=-1,
        )
        first = write_pyramid(tmp_path / "first.ome.tif", image, MPP)
        second = write_pyramid(
            tmp_path / "second.ome.tif", np.rint(moved).astype(np.uint8), MPP
        )
        return open_slide(first), open_slide(second)

    return make
