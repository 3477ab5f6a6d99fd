"""Points, patches, regions and masks that are carried to a section whose map is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely

from napari_mcm.core.errors import RegistrationError
from napari_mcm.core.registration import (
    EdgeError,
    Registration,
    Residual,
    read_registration,
    section_map,
)
from napari_mcm.core.registration.carry import (
    carry_mask,
    carry_patches,
    carry_points,
    carry_region,
    describe_states,
)
from napari_mcm.core.registration.edges import measure_edges
from napari_mcm.core.registration.section import Section
from napari_mcm.core.slides import open_slide
from napari_mcm.core.tissue import TissueMask
from tests.core.conftest import write_pyramid

SIZE = 400  # px


@pytest.fixture
def pair(tmp_path):
    """Two slides of glass with different resolutions: only their places matter."""
    glass = np.full((SIZE, SIZE, 3), 243, np.uint8)
    glass[:5, :5] = 0
    first = open_slide(write_pyramid(tmp_path / "one.ome.tif", glass, 4.0))
    glass[:9, :9] = 0
    second = open_slide(write_pyramid(tmp_path / "two.ome.tif", glass, 2.0))
    return first, second


def registration_of(first, second, affine=None, flow=None) -> Registration:
    def identity(slide):
        return {
            "name": slide.name,
            "fingerprint": slide.fingerprint,
            "size": list(slide.size),
            "mpp": list(slide.mpp),
        }

    if affine is None:
        # A quarter turn, and 100 µm to the right.
        affine = np.array([[0.0, -1.0, 1000.0], [1.0, 0.0, 0.0]])
    flow = np.zeros((1, 1, 2), np.float32) if flow is None else flow
    height, width = flow.shape[:2]
    return Registration(
        affine,
        flow,
        (1600 / width, 1600 / height),
        1.0,
        1.0,
        Residual(1.0, 2.0, 9, 1.0, 1.0),
        identity(first),
        identity(second),
        {},
    )


def wavy_flow() -> np.ndarray:
    """Displacements of up to 40 µm that change over 300 µm."""
    y, x = (np.indices((100, 100)) + 0.5) * 16
    return np.stack([40 * np.sin(y / 300), 30 * np.cos(x / 250)], axis=-1).astype(
        np.float32
    )


def test_points_are_mapped_in_pixels_of_each_slide(pair):
    mapping = section_map(registration_of(*pair), *pair)
    # (x, y) = (100, 50) px is (400, 200) µm, turned (-200 + 1000, 400) µm.
    np.testing.assert_allclose(mapping.points([(100, 50)]), [(400, 200)])
    np.testing.assert_allclose(mapping.inverse.points([(400, 200)]), [(100, 50)])
    back = section_map(registration_of(*pair), *pair[::-1])
    assert back.backwards and back.source.name == "two"
    np.testing.assert_allclose(back.points([(400, 200)]), [(100, 50)])


def test_the_inverse_leads_back(pair):
    mapping = section_map(registration_of(*pair, flow=wavy_flow()), *pair)
    points = np.random.default_rng(0).uniform(0, SIZE, (500, 2))
    there = mapping.points(points)
    assert (
        np.abs(there - section_map(registration_of(*pair), *pair).points(points)).max()
        > 5
    )
    np.testing.assert_allclose(mapping.inverse.points(there), points, atol=1e-3)


def test_a_fold_has_no_place_and_says_so(pair):
    # The displacement falls faster than its argument grows: places there are mapped twice.
    x = (np.arange(100) + 0.5) * 16
    push = np.where(np.abs(x - 800) < 100, -3 * (x - 800), 0)
    flow = np.zeros((100, 100, 2), np.float32)
    flow[..., 0] = push
    mapping = section_map(registration_of(*pair, affine=np.eye(2, 3), flow=flow), *pair)
    found = carry_points(mapping.inverse, [(400 + 15, 400.0), (100.0, 400.0)])
    assert found.states[0] == "no place" and found.states[1] == "placed"


def test_the_linear_map_is_exact_at_its_point_and_close_around(pair):
    mapping = section_map(registration_of(*pair, flow=wavy_flow()), *pair)
    linear = mapping.linear_at((200.0, 180.0))
    near = np.array([(200.0, 180.0), (210.0, 176.0)])
    mapped = near @ linear[:, :2].T + linear[:, 2]
    np.testing.assert_allclose(mapped[0], mapping.points(near)[0], atol=1e-9)
    np.testing.assert_allclose(mapped[1], mapping.points(near)[1], atol=0.3)


def test_a_registration_of_other_slides_is_refused(pair, tmp_path):
    first, second = pair
    made = registration_of(*pair)
    other = np.full((SIZE, SIZE, 3), 200, np.uint8)
    third = open_slide(write_pyramid(tmp_path / "three.ome.tif", other, 4.0))
    with pytest.raises(RegistrationError, match="of one and two, not of one and three"):
        section_map(made, first, third)
    with pytest.raises(RegistrationError, match="not of one and one"):
        section_map(made, first, first)


def test_files_of_earlier_versions_are_read_and_those_of_later_ones_refused(
    pair, tmp_path
):
    made = registration_of(*pair, flow=wavy_flow())
    described = made.describe()
    for one in ("first", "second"):
        described[one] = {k: described[one][k] for k in ("name", "fingerprint")}
    del described["edges"]
    path = tmp_path / "old.npz"
    arrays = {"affine": made.affine, "flow": made.flow}
    np.savez_compressed(path, description=json.dumps(described), **arrays)
    again = section_map(read_registration(path), *pair)
    points = np.array([(100.0, 50.0), (30.0, 300.0)])
    np.testing.assert_array_equal(
        again.points(points), section_map(made, *pair).points(points)
    )
    assert np.isnan(again.registration.edges.median_um)
    described |= {"format": "napari-mcm registration", "version": 99}
    np.savez_compressed(path, description=json.dumps(described), **arrays)
    with pytest.raises(RegistrationError, match="newer version"):
        read_registration(path)


def half_tissue() -> TissueMask:
    """Tissue on the left half of the second slide, at 8 px."""
    mask = np.zeros((50, 50), bool)
    mask[:, :25] = True
    return TissueMask(mask, (8.0, 8.0))


def test_what_is_off_the_tissue_or_the_slide_is_kept_with_its_reason(pair):
    mapping = section_map(registration_of(*pair), *pair)
    # x' = 500 - 2 y, y' = 2 x in pixels of the second slide.
    points = [(100, 200), (100, 100), (100, 20), (300, 200)]
    found = carry_points(mapping, points, half_tissue())
    np.testing.assert_allclose(
        found.xy, [(100, 200), (300, 200), (460, 200), (100, 600)]
    )
    assert found.states == ("placed", "off tissue", "off slide", "off slide")
    assert describe_states(found.states, "points") == (
        "1 of 4 points placed; 1 off tissue, 2 off slide"
    )


def test_patches_keep_their_size_in_microns_and_their_centre(pair):
    mapping = section_map(registration_of(*pair), *pair)
    corners = np.array([(90, 190), (90, 160), (90, 90)])
    found = carry_patches(mapping, corners, np.array((20, 20)), half_tissue())
    np.testing.assert_allclose(found.size, [(40, 40)] * 3)
    np.testing.assert_allclose(found.xy[0] + found.size[0] / 2, (100, 200))
    # The second reaches from x = 140 to 180, and the third lies at 300.
    assert found.states == ("placed", "placed", "off tissue")


def test_regions_bend_with_the_flow(pair):
    mapping = section_map(registration_of(*pair, flow=wavy_flow()), *pair)
    square = shapely.box(60, 150, 140, 190)
    found = carry_region(mapping, square, half_tissue())
    assert found.state == "placed" and found.geometry.is_valid
    # Far more corners than four, all on the mapped outline.
    corners = shapely.get_coordinates(found.geometry)
    back = mapping.inverse.points(corners)
    assert len(corners) > 30
    assert shapely.distance(square.exterior, shapely.points(back)).max() < 0.01
    inner = shapely.points(mapping.points(np.array([(100.0, 170.0)])))[0]
    assert found.geometry.contains(inner)


def test_regions_count_the_tissue_under_them(pair):
    mapping = section_map(registration_of(*pair), *pair)
    # Their places: x' from 160 to 240, of which half is tissue; and 20 % of it.
    half = carry_region(mapping, shapely.box(80, 130, 120, 170), half_tissue())
    assert half.state == "placed" and half.on_tissue == pytest.approx(0.5, abs=0.02)
    few = carry_region(mapping, shapely.box(80, 118, 120, 158), half_tissue())
    assert few.state == "off tissue" and few.on_tissue == pytest.approx(0.2, abs=0.05)
    away = carry_region(mapping, shapely.box(300, 118, 320, 158), half_tissue())
    assert away.state == "off slide"
    # Smaller than a pixel of the mask, and a single point.
    assert (
        carry_region(mapping, shapely.box(100, 200, 101, 201), half_tissue()).state
        == "placed"
    )
    assert (
        carry_region(mapping, shapely.Point(100, 100), half_tissue()).state
        == "off tissue"
    )


def test_a_mask_arrives_where_its_outline_does(pair):
    mapping = section_map(registration_of(*pair, flow=wavy_flow()), *pair)
    mask = np.zeros((200, 200), bool)
    mask[70:90, 30:70] = True  # of 2 px
    carried = carry_mask(mapping, TissueMask(mask, (2.0, 2.0), "drawn"))
    outline = carry_region(mapping, shapely.box(60, 140, 140, 180)).geometry
    height, width = carried.mask.shape
    y, x = np.indices((height, width))
    centres = (np.stack([x, y], axis=-1).reshape(-1, 2) + 0.5) * carried.downsample
    truth = shapely.contains_xy(outline, *centres.T).reshape(height, width)
    assert truth.sum() > 500
    assert (truth != carried.mask).sum() < 0.02 * truth.sum()
    assert carried.source == "drawn"


def square_section(left: int) -> Section:
    tissue = np.zeros((100, 100), np.float32)
    tissue[40:60, left : left + 40] = 1
    return Section(tissue, tissue, (10.0, 10.0), np.full(3, 243, np.float32))


def test_edges_are_measured_from_both_sides_and_not_at_the_slides_border():
    sections = square_section(30), square_section(33)
    straight = np.zeros((1, 1, 2), np.float32)
    found = measure_edges(sections, np.eye(2, 3), straight, (1000.0, 1000.0))
    # Left and right edges lie 30 µm apart, upper and lower ones on each other.
    assert found.median_um == 0 and found.p90_um == pytest.approx(30)
    moved = np.array([[1.0, 0, 30.0], [0, 1.0, 0]])
    assert measure_edges(sections, moved, straight, (1000.0, 1000.0)).p90_um == 0
    full = np.ones((100, 100), np.float32)
    whole = Section(full, full, (10.0, 10.0), np.full(3, 243, np.float32))
    none = measure_edges((whole, whole), np.eye(2, 3), straight, (1000.0, 1000.0))
    assert np.isnan(none.median_um) and none.describe() == "not measured"
    assert EdgeError(3.2, 8.7).describe() == "median 3 µm, 90 % within 9 µm"
