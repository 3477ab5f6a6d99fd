"""Exports are read back by other code than wrote them."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import shapely
import tifffile

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.labelling import ClassifierConfig, labels_of_rows, rows_of_labels
from napari_mcm.core.labelling.exports import SlideAreas, write_areas, write_classes
from napari_mcm.core.labelling.label_set import LabelSet
from napari_mcm.core.labelling.regions import import_regions
from napari_mcm.core.labelling.slide_classes import SlideClasses
from napari_mcm.core.tissue.geojson import read_regions
from tests.core.labelling.made_labels import MPP, make_grid

NAMES, COLORS = ("tumour", "stroma"), ("#0072b2", "#e69f00")


@pytest.fixture
def classes() -> SlideClasses:
    """Give a slide of 3 x 4 patches with two regions of tumour, and one unsure patch."""
    grid = make_grid(rows=3, columns=4, step=154.3)
    decided = np.array([0, 0, 1, 0, 0, 1, 1, 0, -1, -2, 1, 0])
    p = np.linspace(0.4, 0.95, 12, dtype=np.float32)
    probabilities = np.stack([p, 1 - p], axis=1)
    probabilities[9] = np.nan
    around = ClassifierConfig().neighbourhood
    return SlideClasses(grid, NAMES, COLORS, probabilities, decided, around)


def test_tiles_have_classification_and_measurements(classes, tmp_path) -> None:
    path = write_classes(classes, tmp_path / "a.geojson")
    features = json.loads(path.read_text(encoding="utf-8"))["features"]
    assert len(features) == 11  # one patch has no features
    first, unsure = features[0], features[8]
    assert first["properties"]["objectType"] == "tile"
    assert first["properties"]["classification"] == {
        "name": "tumour",
        "color": [0, 0x72, 0xB2],
    }
    assert first["properties"]["measurements"] == {
        "probability": 0.4,
        "p tumour": 0.4,
        "p stroma": 0.6,
    }
    assert unsure["properties"]["classification"]["name"] == "unsure"
    assert len({one["id"] for one in features}) == 11
    tiles = [shapely.geometry.shape(one["geometry"]) for one in features]
    # Neighbours share their edges: no gap, no overlap.
    whole = shapely.union_all(tiles)
    assert whole.area == sum(one.area for one in tiles)
    assert whole.bounds == (0, 0, 617, 463)


def test_regions_are_connected_patches_of_one_class(classes, tmp_path) -> None:
    path = write_classes(classes, tmp_path / "a.regions.geojson")
    features = json.loads(path.read_text(encoding="utf-8"))["features"]
    found = [
        (
            one["properties"]["classification"]["name"],
            one["properties"]["measurements"]["patches"],
        )
        for one in features
    ]
    assert {one["properties"]["objectType"] for one in features} == {"annotation"}
    assert sorted(found) == [("stroma", 4), ("tumour", 3), ("tumour", 3), ("unsure", 1)]
    cell = (154.3 * MPP / 1000) ** 2
    for one in features:
        measured = one["properties"]["measurements"]
        assert measured["area mm2"] == pytest.approx(measured["patches"] * cell)
        drawn = shapely.geometry.shape(one["geometry"])
        assert drawn.is_valid
        assert drawn.area == pytest.approx(measured["patches"] * 154.3**2, rel=0.01)


def test_regions_that_were_exported_are_imported_as_the_same_labels(
    classes, tmp_path
) -> None:
    path = write_classes(classes, tmp_path / "a.regions.geojson")
    assert {name for name, _ in read_regions(path)} == {*NAMES, "unsure"}
    text = path.read_text(encoding="utf-8").replace('"unsure"', '"other"')
    path.write_text(text, encoding="utf-8")
    labels, count = import_regions(LabelSet(), path, classes.grid, "bo")
    assert count == 11
    rows, found = rows_of_labels(labels, classes.grid)
    names = np.array([*NAMES, "other"])[classes.decided[rows]]
    assert [labels.names[k] for k in found] == names.tolist()
    assert {(one.author, one.source) for one in labels.labels} == {("bo", "import")}
    # Classes keep the colours that they have in QuPath.
    colors = {one.name: one.color for one in labels.classes}
    assert colors == {"tumour": "#0072b2", "stroma": "#e69f00", "other": "#9a9a9a"}


def test_imported_regions_replace_the_labels_under_them(classes, tmp_path) -> None:
    path = write_classes(classes, tmp_path / "a.regions.geojson")
    path.write_text(
        path.read_text(encoding="utf-8").replace('"unsure"', '"other"'), "utf-8"
    )
    before = LabelSet().with_names(["mine"])
    before = before.with_labels(labels_of_rows(classes.grid, [0, 9], "mine"))
    labels, _ = import_regions(before, path, classes.grid)
    kept = [one for one in labels.labels if one.label == "mine"]
    assert [(one.x, one.y) for one in kept] == [(154, 309)]  # patch 9, in no region


def test_the_table_of_patches_has_all_bits(classes, tmp_path) -> None:
    path = write_classes(classes, tmp_path / "a.csv")
    with path.open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    assert [int(row["patch"]) for row in rows] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11]
    assert rows[8]["class"] == "unsure"
    p = np.array([[row["p_tumour"], row["p_stroma"]] for row in rows], np.float32)
    assert p.tobytes() == classes.probabilities[classes.shown].tobytes()
    total = sum(float(row["area_mm2"]) for row in rows)
    assert total == pytest.approx(sum(one.mm2 for one in classes.areas()))


def test_labels_are_a_pixel_per_patch_at_their_place(classes, tmp_path) -> None:
    path = write_classes(classes, tmp_path / "a.ome.tif")
    with tifffile.TiffFile(path) as opened:
        found, described = opened.asarray(), tifffile.xml2dict(opened.ome_metadata)
    assert found.tolist() == [[1, 1, 2, 1], [1, 2, 2, 1], [3, 0, 2, 1]]
    image = described["OME"]["Image"]
    assert image["Pixels"]["PhysicalSizeX"] == pytest.approx(154.3 * MPP)
    assert json.loads(image["Description"]) == {
        "0": "no features",
        "1": "tumour",
        "2": "stroma",
        "3": "unsure",
    }


def test_another_ending_is_refused(classes, tmp_path) -> None:
    with pytest.raises(ConfigError, match="ending that is not a format"):
        write_classes(classes, tmp_path / "a.xlsx")


def test_the_table_of_areas_ends_with_all_slides(classes, tmp_path) -> None:
    slides = [
        SlideAreas(name, name * 4, tuple(classes.areas())) for name in ("one", "two")
    ]
    with write_areas(slides, tmp_path / "t.csv").open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [row["slide"] for row in rows[::3]] == ["one", "two", "all slides"]
    assert [row["class"] for row in rows[:3]] == ["tumour", "stroma", "unsure"]
    assert float(rows[0]["area_mm2"]) == classes.areas()[0].mm2
    assert float(rows[6]["area_mm2"]) == 2 * classes.areas()[0].mm2
    assert float(rows[7]["tissue_percent"]) == pytest.approx(100 * 4 / 11)
