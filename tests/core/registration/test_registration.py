"""Registration of sections whose true correspondence is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from napari_mcm.core.errors import RegistrationError, SlideError
from napari_mcm.core.registration import (
    Registration,
    RegistrationConfig,
    read_registration,
    register_sections,
    write_registration,
)
from napari_mcm.core.registration.section import correlate, sample
from napari_mcm.core.runtime.jobs import run
from napari_mcm.core.slides import open_slide
from napari_mcm.core.tissue import find_tissue
from tests.core.conftest import write_pyramid
from tests.core.registration.conftest import bend

REAL = Path(__file__).parents[4] / "shared/data/slides"


def true_error_um(found: Registration, first, degrees: float, mirrored: bool):
    """Distances between tissue points and where the truth puts their mapped places."""
    mask = find_tissue(first).mask
    rows = np.argwhere(mask)[:: max(int(mask.sum()) // 500, 1)]
    extent = np.asarray(first.size) * first.mpp
    points = (rows[:, ::-1] + 0.5) * extent / mask.shape[::-1]
    back = bend(found.map_um(points), degrees, mirrored)
    return np.linalg.norm(back - points, axis=1)


@pytest.mark.parametrize(
    ("degrees", "mirrored"), [(0, False), (140, False), (-65, True)]
)
def test_a_bent_section_is_mapped_within_a_fraction_of_a_patch(
    sections, degrees, mirrored
):
    first, second = sections(degrees, mirrored)
    found = run(register_sections(first, second))
    error = true_error_um(found, first, degrees, mirrored)
    assert np.median(error) < 6 and np.percentile(error, 95) < 25
    assert found.mirrored == mirrored
    # What it says of itself is of the same size as the truth.
    assert found.residual.matched > 0.8 and found.residual.median_um < 12
    assert found.overlap > 0.95


def test_the_flow_is_what_follows_the_bend(sections):
    first, second = sections(20)
    found = run(register_sections(first, second, RegistrationConfig(error_blocks=0)))
    straight = Registration(
        **{
            **vars(found),
            "flow": np.zeros((1, 1, 2), np.float32),
            "flow_mpp": (4e3, 4e3),
        }
    )
    bent = np.median(true_error_um(found, first, 20, False))
    assert bent < 0.5 * np.median(true_error_um(straight, first, 20, False))
    assert found.residual.blocks == 0 and np.isnan(found.error_um)


def test_sections_of_different_tissue_are_refused_in_a_line(sections):
    with pytest.raises(
        RegistrationError, match="does not correspond to second"
    ) as caught:
        run(register_sections(*sections(seed=2)))
    assert "\n" not in str(caught.value)


def test_glass_alone_and_unknown_resolution_are_refused(sections, tmp_path):
    first, _ = sections()
    empty = np.full((600, 600, 3), 243, np.uint8)
    glass = open_slide(write_pyramid(tmp_path / "glass.ome.tif", empty, 4.0))
    with pytest.raises(RegistrationError, match="no tissue"):
        run(register_sections(first, glass))
    blind = open_slide(write_pyramid(tmp_path / "blind.ome.tif", empty, None))
    with pytest.raises(SlideError, match="mpp"):
        run(register_sections(blind, first))


def test_a_file_gives_the_registration_back_and_nothing_else(sections, tmp_path):
    pair = sections(30)
    found = run(register_sections(*pair))
    path = tmp_path / "registration.npz"
    write_registration(path, found)
    again = read_registration(path)
    points = np.random.default_rng(0).uniform(0, 4000, (50, 2))
    np.testing.assert_array_equal(again.map_um(points), found.map_um(points))
    assert again.describe() == found.describe()
    assert json.loads(json.dumps(again.describe())) == again.describe()
    # The same sections give the same map.
    other = run(register_sections(*pair))
    np.testing.assert_array_equal(other.map_um(points), found.map_um(points))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(RegistrationError, match="cannot be read"):
        read_registration(path)
    with pytest.raises(RegistrationError, match="cannot be read"):
        read_registration(tmp_path / "none.npz")


def test_correlation_is_numpys_where_all_weighs_the_same():
    a, b = np.random.default_rng(0).normal(size=(2, 20, 30)).astype(np.float32)
    ones = np.ones_like(a)
    truth = np.corrcoef(a.ravel(), b.ravel())[0, 1]
    assert correlate(a, b, ones) == pytest.approx(truth, abs=1e-5)
    half = ones.copy()
    half[:, 15:] = 0
    truth = np.corrcoef(a[:, :15].ravel(), b[:, :15].ravel())[0, 1]
    assert correlate(a, b, half) == pytest.approx(truth, abs=1e-5)


def test_pixels_are_read_at_their_centres():
    image = np.arange(12, dtype=np.float32).reshape(3, 4)
    at = np.array([[0.5 * 2, 0.5 * 5], [2.5 * 2, 1.5 * 5], [2.0 * 2, 1.5 * 5]])
    np.testing.assert_allclose(sample(image, (2.0, 5.0), at), [0, 6, 5.5])


@pytest.mark.skipif(not REAL.is_dir(), reason="needs real sections")
def test_real_serial_sections_match_within_a_nucleus_or_two():
    names = ("crc_section1.ome.tiff", "crc_section3.ome.tiff")
    pair = [open_slide(REAL / "crc_sections" / name) for name in names]
    found = run(register_sections(*pair))
    assert found.residual.matched > 0.9
    assert found.residual.median_um < 15 and found.residual.p90_um < 40
