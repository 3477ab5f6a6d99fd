"""Which patch is of which class, by regions and by points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from napari_mcm.core.errors import ConfigError, FeatureError, GridError
from napari_mcm.core.evaluation.dataset import gather, neighbour_means, read_patients
from napari_mcm.core.evaluation.labels import (
    check_counts,
    find_label_files,
    label_patches,
)
from napari_mcm.core.features.feature_set import FeatureSet, Status
from tests.core.evaluation.conftest import (
    make_features,
    make_grid,
    region,
    write_regions,
)


def at(grid, labels, row, column):
    place = (grid.lattice == (row, column)).all(1)
    return labels[int(np.flatnonzero(place)[0])]


# -- regions


def test_a_patch_is_of_the_class_at_its_centre(tmp_path):
    grid = make_grid()
    path = write_regions(tmp_path / "a.geojson", region("tumour", 0, 0, 260, 140))
    labels = label_patches(path, grid)
    # Centres lie at 50, 150, 250, ...
    assert at(grid, labels, 0, 2) == "tumour"
    assert at(grid, labels, 0, 3) == at(grid, labels, 1, 0) == ""
    assert labels.count("tumour") == 3


def test_more_of_a_patch_may_be_asked_to_be_covered(tmp_path):
    grid = make_grid()
    path = write_regions(
        tmp_path / "a.geojson",
        region("tumour", 0, 0, 260, 100),
        region("stroma", 260, 0, 300, 100),
    )
    labels = label_patches(path, grid, least_covered=0.6)
    assert [at(grid, labels, 0, c) for c in range(4)] == ["tumour"] * 3 + [""]
    assert at(grid, label_patches(path, grid, least_covered=0.7), 0, 2) == ""


def test_of_regions_within_one_another_the_smallest_counts(tmp_path):
    grid = make_grid()
    inner, outer = (
        region("necrosis", 100, 100, 200, 200),
        region("tumour", 0, 0, 1e3, 8e2),
    )
    for order in ((inner, outer), (outer, inner)):
        path = write_regions(tmp_path / "a.geojson", *order)
        labels = label_patches(path, grid)
        assert at(grid, labels, 1, 1) == "necrosis"
        assert labels.count("tumour") == len(grid) - 1


def test_nested_classes_are_named_as_in_qupath(tmp_path):
    drawn = region(None, 0, 0, 300, 300)
    drawn["properties"]["classification"] = {"names": ["Tumor", "Necrosis"]}
    path = write_regions(tmp_path / "a.geojson", drawn)
    assert set(label_patches(path, make_grid())) == {"", "Tumor: Necrosis"}


def test_regions_without_a_class_are_an_error(tmp_path):
    path = write_regions(tmp_path / "a.geojson", region(None, 0, 0, 300, 300))
    with pytest.raises(ConfigError, match="none with a class"):
        label_patches(path, make_grid())
    path.write_text("{")
    with pytest.raises(GridError, match="is not GeoJSON"):
        label_patches(path, make_grid())


# -- points


def write_csv(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_point_labels_the_patch_that_holds_it(tmp_path):
    grid = make_grid()
    path = write_csv(
        tmp_path / "a.csv", "x,y,label\n150,50,tumour\n199,99,stroma\n-5,-5,tumour\n"
    )
    labels = label_patches(path, grid)
    # Two points in one patch: the nearer to its centre.
    assert at(grid, labels, 0, 1) == "tumour"
    assert sum(map(bool, labels)) == 1


def test_a_point_with_a_radius_labels_all_patches_around(tmp_path):
    grid = make_grid()
    path = write_csv(tmp_path / "a.csv", "x,y,radius,label\n250,250,101,tumour\n")
    assert label_patches(path, grid).count("tumour") == 5


def test_columns_may_have_other_names(tmp_path):
    path = write_csv(tmp_path / "a.csv", "px,py,what\n150,50,tumour\n")
    with pytest.raises(ConfigError, match="no column x, y, label among px, py, what"):
        label_patches(path, make_grid())
    labels = label_patches(path, make_grid(), columns=("px", "py", "what"))
    assert labels.count("tumour") == 1


@pytest.mark.parametrize("cell", ["", "far", "nan"])
def test_a_line_without_a_number_is_named(tmp_path, cell):
    path = write_csv(tmp_path / "a.csv", f"x,y,label\n1,1,a\n{cell},2,b\n")
    with pytest.raises(ConfigError, match="line 3"):
        label_patches(path, make_grid())


# -- files by name


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).touch()
    return folder


def test_files_are_found_by_the_slides_names(tmp_path):
    touch(tmp_path, "C2_regions.geojson", "C3_regions.geojson", "C2_spots.csv")
    slides = ["her2st_C2", "her2st_C3", "her2st_C4_dicom"]
    found = find_label_files([tmp_path], slides)
    assert {s: p.name for s, p in found.items()} == {
        "her2st_C2": "C2_regions.geojson",
        "her2st_C3": "C3_regions.geojson",
    }
    spots = find_label_files([tmp_path], slides, "*_spots.csv")
    assert [p.name for p in spots.values()] == ["C2_spots.csv"]


def test_slide_1_is_not_slide_10(tmp_path):
    touch(tmp_path, "slide_1.geojson", "slide_10.geojson")
    found = find_label_files([tmp_path], ["slide_10", "slide_1", "slide_2"])
    assert {s: p.stem for s, p in found.items()} == {
        "slide_1": "slide_1",
        "slide_10": "slide_10",
    }


def test_doubtful_names_are_not_guessed_at(tmp_path):
    touch(tmp_path, "a_regions.geojson", "a_labels.geojson")
    with pytest.raises(ConfigError, match="several label files fit a:"):
        find_label_files([tmp_path], ["a"])
    touch(tmp_path, "b.geojson")
    with pytest.raises(ConfigError, match="fits both b_1 and b_2"):
        find_label_files([tmp_path], ["b_1", "b_2"])
    with pytest.raises(ConfigError, match="no label file is named after a slide"):
        find_label_files([tmp_path], ["other"])


def test_files_may_be_listed_in_the_slides_order(tmp_path):
    touch(tmp_path, "p", "q")
    found = find_label_files([tmp_path / "p", tmp_path / "q"], ["one", "two"])
    assert found == {"one": tmp_path / "p", "two": tmp_path / "q"}
    with pytest.raises(ConfigError, match="2 label files for 3 slides"):
        find_label_files([tmp_path / "p", tmp_path / "q"], ["one", "two", "three"])


# -- what is compared


def test_only_patches_that_all_encoders_have_are_compared():
    grid = make_grid()
    one, other = make_features(grid, 1, 0), make_features(grid, 1, 1)
    status = one.status.copy()
    status[3] = Status.BLANK
    broken = one.features.copy()
    broken[5, 2] = np.nan
    one = FeatureSet(broken, grid, status, one.encoder)
    labels = {"one": ["a", "b"] * 40}
    found = gather({"p": {"one": one}, "q": {"one": other}}, labels)
    assert len(found) == 78
    assert_allclose(
        found.features["q"], other.features[np.delete(np.arange(80), [3, 5])]
    )
    assert found.counts() == {"a": 40, "b": 38}


def test_encoders_of_other_patches_are_refused():
    one = {"one": make_features(make_grid(), 1, 0)}
    other = {"one": make_features(make_grid(rows=7), 1, 0)}
    with pytest.raises(FeatureError, match="q has other patches .*70 of 100 px"):
        gather({"p": one, "q": other}, {"one": ["a"] * 80})


def test_classes_that_do_not_occur_are_named():
    sets = {"p": {"one": make_features(make_grid(), 1, 0)}}
    labels = {"one": ["a", "b"] * 40}
    with pytest.raises(
        ConfigError, match="no patch is of class c. The classes are: a, b"
    ):
        gather(sets, labels, classes=("a", "c"))
    with pytest.raises(FeatureError, match="no patch .* lies in a labelled region"):
        gather(sets, {"one": [""] * 80})
    kept = gather(sets, labels, exclude=("a",))
    with pytest.raises(FeatureError, match=r"1 class \(b\): two are needed"):
        check_counts(kept.labels, kept.classes, kept.groups, 5)


def test_a_class_with_too_few_patches_is_named():
    labels, folds = np.array([0] * 20 + [1] * 6), np.arange(26) % 2
    check_counts(labels, ("many", "few"), folds, 3)
    with pytest.raises(FeatureError, match="class few has 3 training patches .* 4 are"):
        check_counts(labels, ("many", "few"), folds, 4)


def test_patients_join_slides(tmp_path):
    table = write_csv(tmp_path / "g.csv", "slide,patient\none,P\ntwo,P\nthree,Q\n")
    sets = {
        "e": {n: make_features(make_grid(n), 1, 0) for n in ("one", "two", "three")}
    }
    labels = {name: ["a", "b"] * 40 for name in sets["e"]}
    found = gather(sets, labels, patients=read_patients(table))
    assert found.group_names == ("P", "Q")
    assert np.bincount(found.groups).tolist() == [160, 80]
    with pytest.raises(ConfigError, match="names no patient of one"):
        gather(sets, labels, patients={"two": "P"})
    table.write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="needs the columns slide and patient"):
        read_patients(table)


def test_neighbours_are_averaged_where_they_are():
    grid = make_grid(rows=3, columns=3)
    values = np.arange(9, dtype=np.float32)[:, None]
    status = np.zeros(9, np.uint8)
    status[8] = Status.BLANK
    values[8] = np.nan
    sets = FeatureSet(values, grid, status, {})
    means = neighbour_means(sets, np.array([0, 4, 7]))
    assert_allclose(means[:, 0], [np.mean([0, 1, 3, 4]), 3.5, np.mean([3, 4, 5, 6, 7])])
