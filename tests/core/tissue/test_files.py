"""Masks go to files and come back; files of others are checked before use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy import ndimage

from napari_mcm.core.errors import ConfigError, GridError
from napari_mcm.core.slides import open_slide
from napari_mcm.core.tissue import (
    TissueConfig,
    TissueMask,
    find_tissue,
    read_mask,
    write_mask,
)
from napari_mcm.core.tissue.geojson import burn, outline


@pytest.fixture
def slide(write_slide):
    """1,600 × 1,200 px at 0.5 µm: 100 × 75 px at 8 µm."""
    with open_slide(write_slide(np.full((1200, 1600, 3), 243, np.uint8))) as slide:
        yield slide


def box(x, y, width, height):
    return [[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]]


def annotation(*rings, name="Tumor", **properties):
    return {
        "type": "Feature",
        "id": "0b1e",
        "geometry": {"type": "Polygon", "coordinates": list(rings)},
        "properties": {
            "objectType": "annotation",
            "classification": {"name": name, "color": [200, 0, 0]},
            **properties,
        },
    }


def write(path, content):
    path.write_text(json.dumps(content))
    return path


BLOBS = ndimage.gaussian_filter(np.random.default_rng(0).random((75, 100)), 3) > 0.5


def masks(height=12, width=9):
    return arrays(bool, (height, width))


@pytest.mark.parametrize("ending", [".geojson", ".png"])
def test_a_mask_comes_back_from_a_file_as_it_was(slide, tmp_path, ending):
    tissue = TissueMask.from_array(BLOBS, slide.size)
    write_mask(tmp_path / f"mask{ending}", tissue, slide)
    again = read_mask(tmp_path / f"mask{ending}", slide)
    np.testing.assert_array_equal(again.mask, tissue.mask)
    assert again.downsample == tissue.downsample == (16, 16)
    assert again.source == f"mask{ending}"
    assert [p.name for p in tmp_path.glob("*mask*")] == [f"mask{ending}"]


def test_another_resolution_moves_borders_by_a_pixel_at_most(slide, tmp_path):
    tissue = TissueMask.from_array(BLOBS, slide.size)
    write_mask(tmp_path / "mask.geojson", tissue, slide)
    fine = read_mask(tmp_path / "mask.geojson", slide, mpp=3).mask
    zoom = np.array(BLOBS.shape) / fine.shape
    y, x = ((np.indices(fine.shape).T + 0.5) * zoom).astype(int).T
    border = ndimage.binary_dilation(BLOBS) & ~ndimage.binary_erosion(BLOBS)
    assert (fine == BLOBS[y, x])[~border[y, x]].all()


@settings(max_examples=60, deadline=None)
@given(masks(), st.floats(0.3, 40), st.floats(0.3, 40))
def test_outlines_are_valid_exact_and_burn_back(mask, across, down):
    tissue = TissueMask(mask, (across, down))
    polygons = outline(tissue)
    assert all(polygon.is_valid and polygon.exterior.is_closed for polygon in polygons)
    area = sum(polygon.area for polygon in polygons)
    assert area == pytest.approx(mask.sum() * across * down)
    size = mask.shape[::-1]
    extent = (size[0] * across, size[1] * down)
    again = burn(shapely.MultiPolygon(polygons), extent, size)
    np.testing.assert_array_equal(again, mask)


@settings(max_examples=60, deadline=None)
@given(arrays(float, (5, 2), elements=st.floats(-4, 24)))
def test_pixels_are_inside_where_shapely_says_their_centres_are(corners):
    drawn = shapely.make_valid(shapely.Polygon(corners))
    mask = burn(drawn, (20, 10), (20, 10))
    y, x = np.indices((10, 20)) + 0.5
    centres = shapely.points(x, y)
    # On the line itself either answer is right.
    line = shapely.LineString([*corners, corners[0]])
    clear = shapely.distance(line, centres) > 1e-6
    np.testing.assert_array_equal(mask[clear], shapely.contains(drawn, centres)[clear])


def test_what_is_written_is_what_qupath_reads(slide, tmp_path):
    mask = np.zeros((75, 100), bool)
    mask[10:40, 20:60] = True
    mask[20:30, 30:40] = False
    write_mask(tmp_path / "m.geojson", TissueMask.from_array(mask, slide.size), slide)
    content = json.loads((tmp_path / "m.geojson").read_text())
    assert content["type"] == "FeatureCollection"
    (feature,) = content["features"]
    assert feature["type"] == "Feature"
    assert feature["properties"]["objectType"] == "annotation"
    assert feature["properties"]["classification"]["name"] == "Tissue"
    shell, hole = feature["geometry"]["coordinates"]
    assert shell[0] == shell[-1] and len(shell) == len(hole) == 5
    assert shapely.Polygon(shell).bounds == (320, 160, 960, 640)
    assert shapely.Polygon(hole).bounds == (480, 320, 640, 480)


def test_an_empty_mask_is_written_but_holds_no_polygons(slide, tmp_path):
    empty = TissueMask(np.zeros((75, 100), bool), (16, 16))
    write_mask(tmp_path / "m.geojson", empty, slide)
    assert json.loads((tmp_path / "m.geojson").read_text())["features"] == []
    assert read_mask(tmp_path / "m.geojson", slide).fraction == 0


SHAPES = {
    "collection": lambda f: {"type": "FeatureCollection", "features": [f]},
    "feature": lambda f: f,
    "geometry": lambda f: f["geometry"],
    "list": lambda f: [f],
    "several": lambda f: {
        "type": "MultiPolygon",
        "coordinates": [f["geometry"]["coordinates"]],
    },
}


@pytest.mark.parametrize("shape", SHAPES)
def test_geojson_comes_in_several_shapes(slide, tmp_path, shape):
    feature = annotation(box(160, 160, 320, 320), box(240, 240, 80, 80))
    path = write(tmp_path / "a.geojson", SHAPES[shape](feature))
    mask = read_mask(path, slide).mask
    assert mask.shape == (75, 100)
    assert mask.sum() == 20 * 20 - 5 * 5
    assert mask[10, 10] and not mask[17, 17]


@pytest.mark.parametrize(
    "name",
    [
        "Ignore*",
        "ignore",
        "Background",
        "Artefact",
        "artifacts",
        "Pen",
        "Pen mark",
        "Hole",
    ],
)
def test_some_classes_are_cut_out(slide, tmp_path, name):
    tissue = annotation(box(160, 160, 320, 320))
    cut = annotation(box(160, 160, 160, 320), name=name)
    assert (
        read_mask(write(tmp_path / "a.geojson", [cut, tissue]), slide).mask.sum() == 200
    )
    names = annotation(box(160, 160, 160, 320))
    names["properties"]["classification"] = {"names": [name]}
    assert (
        read_mask(write(tmp_path / "b.json", [tissue, names]), slide).mask.sum() == 200
    )


@pytest.mark.parametrize("name", ["Penetrating tumour", "Whole", "Region*", None])
def test_other_classes_are_tissue(slide, tmp_path, name):
    path = write(tmp_path / "a.geojson", annotation(box(160, 160, 320, 320), name=name))
    assert read_mask(path, slide).mask.sum() == 400


def test_detections_and_points_are_no_tissue(slide, tmp_path):
    tissue = annotation(box(160, 160, 320, 320))
    detection = annotation(box(800, 800, 160, 160), objectType="detection")
    tile = annotation(box(800, 800, 160, 160), objectType="tile")
    old = {**annotation(box(800, 800, 160, 160)), "id": "PathDetectionObject"}
    old["properties"] = {}
    point = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [9, 9]}}
    nothing = [detection, tile, old, point, {"type": "Feature", "geometry": None}]
    path = write(tmp_path / "a.geojson", [*nothing, tissue])
    assert read_mask(path, slide).mask.sum() == 400
    with pytest.raises(GridError, match="no polygons"):
        read_mask(write(tmp_path / "b.geojson", nothing), slide)


def test_overlapping_and_crossing_lines_are_no_holes(slide, tmp_path):
    one, two = (annotation(box(x, 160, 320, 320)) for x in (160, 320))
    path = write(tmp_path / "a.geojson", [one, two])
    assert read_mask(path, slide).mask.sum() == 30 * 20
    bow = [[160, 160], [480, 480], [480, 160], [160, 480], [160, 160]]
    assert read_mask(write(tmp_path / "b.geojson", annotation(bow)), slide).mask.any()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not GeoJSON"),
        ("[" * 100_000, "not GeoJSON"),
        ("3", "no polygons"),
        ("{}", "no polygons"),
        ('{"type": "FeatureCollection"}', "no polygons"),
        (json.dumps(annotation([[0, 0], [9, 9]])), "object 1: is a damaged Polygon"),
        (json.dumps(annotation([[0, 0], [9, float("nan")], [5, 5], [0, 0]])), "finite"),
        (json.dumps(annotation([["a", 0], [9, 9], [5, 5]])), "damaged Polygon"),
        (json.dumps(annotation(7)), "damaged Polygon"),
        (json.dumps(annotation()), "damaged Polygon"),
        (json.dumps(annotation(box(5000, 90000, 800, 800))), "mostly outside"),
        (json.dumps(annotation(box(-3000, 0, 4000, 4000))), "mostly outside"),
    ],
)
def test_damaged_geojson_is_refused_in_one_line(slide, tmp_path, content, message):
    path = tmp_path / "a.geojson"
    path.write_text(content)
    with pytest.raises(GridError, match=message) as error:
        read_mask(path, slide)
    assert "\n" not in str(error.value)
    assert "a.geojson" in str(error.value)


def test_lines_may_leave_the_slide_a_little(slide, tmp_path):
    path = write(tmp_path / "a.geojson", annotation(box(-80, -80, 480, 480)))
    assert read_mask(path, slide).mask.sum() == 25 * 25


def picture(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("name", ["m.png", "m.tif", "m.tiff"])
@pytest.mark.parametrize("kind", [bool, np.uint8])
def test_pictures_are_masks_at_any_resolution(slide, tmp_path, name, kind):
    array = np.kron(BLOBS, np.ones((2, 2), bool)).astype(kind)
    tissue = read_mask(picture(tmp_path / name, array), slide)
    np.testing.assert_array_equal(tissue.mask, array != 0)
    assert tissue.downsample == (8, 8)
    assert tissue.fraction == pytest.approx(BLOBS.mean())


def test_a_picture_of_another_shape_is_refused(slide, tmp_path):
    for shape in ((100, 75), (75, 104), (75, 96)):
        path = picture(tmp_path / "m.png", np.ones(shape, np.uint8))
        with pytest.raises(GridError, match="does not have the aspect ratio"):
            read_mask(path, slide)
    read_mask(picture(tmp_path / "m.png", np.ones((75, 101), np.uint8)), slide)
    read_mask(picture(tmp_path / "m.png", np.ones((4, 5), np.uint8)), slide)


def test_pictures_that_are_no_masks_are_refused_in_one_line(
    slide, tmp_path, monkeypatch
):
    colour = picture(tmp_path / "rgb.png", np.ones((75, 100, 3), np.uint8))
    text = tmp_path / "text.png"
    text.write_text("no picture")
    half = tmp_path / "half.png"
    noise = np.random.default_rng(0).integers(0, 255, (300, 400), np.uint8)
    half.write_bytes(picture(tmp_path / "whole.png", noise).read_bytes()[:5000])
    for path, message in (
        (colour, "1 or 8 bit"),
        (text, "not a picture"),
        (half, "damaged"),
        (tmp_path / "none.png", "no such mask"),
        (tmp_path / "none.geojson", "no such mask"),
        (tmp_path / "mask.npy", "is not a mask"),
    ):
        with pytest.raises(GridError, match=message) as error:
            read_mask(path, slide)
        assert path.name in str(error.value) and "\n" not in str(error.value)
    for limit in (60_000, 100_000):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(GridError, match="million pixels"):
            read_mask(tmp_path / "whole.png", slide)


def test_masks_are_not_written_as_anything(slide, tmp_path):
    with pytest.raises(ConfigError, match="geojson"):
        write_mask(tmp_path / "m.tif", find_tissue(slide), slide)


def test_labels_are_masks(slide):
    labels = np.zeros((150, 200), np.int32)
    labels[10:20, 10:20] = 7
    tissue = TissueMask.from_array(labels, slide.size, "drawn")
    assert tissue.source == "drawn"
    xy = np.array([[80, 80], [0, 0]])
    assert tissue.coverage(xy, (80, 80)).tolist() == [1, 0]
    for wrong in (np.zeros((0, 5)), np.zeros(7), np.zeros((2, 2, 2))):
        with pytest.raises(GridError, match="not a picture"):
            TissueMask.from_array(wrong, slide.size)


def test_masks_drawn_by_hand_come_before_the_search(slide, tmp_path):
    config = TissueConfig(masks=tmp_path, tissue_mpp=16)
    found = find_tissue(slide, config)
    assert found.source == "found" and found.mask.shape == (38, 50)
    drawn = write(tmp_path / f"{slide.name}.geojson", annotation(box(0, 0, 1600, 600)))
    tissue = find_tissue(slide, config)
    assert tissue.source == drawn.name
    assert tissue.mask.shape == (38, 50) and tissue.fraction == 0.5
    alone = find_tissue(slide, TissueConfig(masks=drawn))
    assert alone.fraction == pytest.approx(0.5, abs=0.01)
    picture(tmp_path / f"{slide.name}.png", np.ones((75, 100), np.uint8))
    with pytest.raises(GridError, match="two masks"):
        find_tissue(slide, config)
    with pytest.raises(GridError, match="--masks"):
        find_tissue(slide, TissueConfig(masks=Path("/nowhere")))


def test_regions_of_a_pathologist_are_read(shared_data):
    folder = shared_data / "slides" / "her2st"
    with open_slide(folder / "her2st_C2.svs") as slide:
        drawn = read_mask(folder / "C2_regions.geojson", slide)
        found = find_tissue(slide)
    content = json.loads((folder / "C2_regions.geojson").read_text())
    shapes = [shapely.geometry.shape(f["geometry"]) for f in content["features"]]
    area = shapely.union_all([s for s in shapes if s.area > 0]).area
    assert drawn.mask.sum() * np.prod(drawn.downsample) == pytest.approx(area, rel=0.01)
    assert found.mask[drawn.mask].mean() > 0.95
