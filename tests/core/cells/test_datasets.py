"""Layouts, boxes and splits: which images there are, and what never stands apart."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from napari_mcm.core.cells import LabelsConfig
from napari_mcm.core.cells.datasets import Cell, group_of, read_cells, square
from napari_mcm.core.cells.splits import grouped_part, labelled_images
from napari_mcm.core.errors import ConfigError
from napari_mcm.core.mae.pictures import PictureCache
from tests.core.cells.conftest import COLOURS, write_cell, write_classes

ANY = LabelsConfig()


def cell(label: str, group: str, split: str = "train") -> Cell:
    return Cell(Path(f"{group}.png"), label, split, group)


@pytest.fixture
def raabin(tmp_path):
    root = tmp_path / "RaabinWBC"
    five = dict.fromkeys(COLOURS, 4)
    write_classes(root / "Train", five)
    write_classes(root / "TestA", dict.fromkeys(COLOURS, 2), 1000)
    write_classes(root / "TestB", {"Lymphocyte": 2, "Neutrophil": 3}, 2000)
    return root


def test_raabins_layout_has_one_class_index_whatever_a_split_lacks(raabin):
    cells = labelled_images(raabin, LabelsConfig(validation=0.25))
    assert cells.classes == tuple(sorted(COLOURS))
    assert set(cells.splits) == {"train", "val", "TestA", "TestB"}
    test_b = cells.only("TestB")
    assert test_b.classes == cells.classes
    assert {cells.classes[t] for t in test_b.targets} == {"Lymphocyte", "Neutrophil"}
    assert test_b.support["Basophil"] == 0 and len(cells.only("TestA")) == 10
    assert set(cells.only("val").support.values()) == {1}


def test_the_courses_layout_leaves_masks_out(tmp_path):
    root = tmp_path / "WBC_100"
    write_classes(root / "train" / "data", {"Monocyte": 3, "Neutrophil": 3})
    write_classes(root / "train" / "mask", {"Monocyte": 2})
    write_classes(root / "val" / "data", {"Neutrophil": 2}, 500)
    cells = labelled_images(root, ANY)
    counts = Counter((c.split, c.label) for c in cells.cells)
    wanted = {("train", "Monocyte"): 3, ("train", "Neutrophil"): 3}
    assert counts == wanted | {("val", "Neutrophil"): 2}


def test_a_folder_of_classes_leaves_masks_out(tmp_path):
    folder = write_classes(tmp_path, {"Monocyte": 3, "Neutrophil": 3})
    write_cell(folder / "masks" / "a.png", "Monocyte", 0)
    assert {c.label for c in read_cells(folder, ANY)} == {"Monocyte", "Neutrophil"}


@pytest.mark.parametrize("header", ["path,label,split,group", "file,class,split,field"])
def test_a_table_tells_labels_splits_and_groups(tmp_path, header):
    write_classes(tmp_path, {"Monocyte": 2, "Neutrophil": 2})
    rows = [
        f"{p.relative_to(tmp_path)},{p.parent.name},{s},{g}"
        for p, s, g in zip(
            sorted(tmp_path.rglob("*.png")),
            ("train", "val", "Training", "TestB"),
            ("a", "b", "c", "d"),
            strict=True,
        )
    ]
    (tmp_path / "index.csv").write_text("\n".join([header, *rows]))
    cells = labelled_images(tmp_path, ANY)
    assert [c.split for c in cells.cells] == ["train", "val", "train", "TestB"]
    assert [c.group for c in cells.cells] == ["a", "b", "c", "d"]
    assert all(c.path.is_file() for c in cells.cells)


@pytest.mark.parametrize(
    ("text", "says"),
    [("a,b\n1,2", "column path or label"), ("path,label\nx.png,", "line 2 lacks")],
)
def test_a_damaged_table_is_told(tmp_path, text, says):
    file = tmp_path / "table.csv"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_cells(file, ANY)


def test_fields_of_view_are_told_by_names():
    assert group_of(Path("20190531_113249_0.jpg")) == "20190531_113249"
    assert group_of(Path("BloodImage_00008_1.jpg")) == "BloodImage_00008"
    assert group_of(Path("cell7.png")) == "cell7.png"


def test_a_field_in_two_splits_is_an_error_that_names_it(raabin):
    write_cell(raabin / "TestA" / "Monocyte" / "20190531_000001_3.png", "Monocyte", 1)
    with pytest.raises(ConfigError, match=r"20190531_000001.*TestA and train"):
        labelled_images(raabin, ANY)


def test_or_training_gives_way_to_it(raabin):
    write_cell(raabin / "TestA" / "Monocyte" / "20190531_000001_3.png", "Monocyte", 1)
    cells = labelled_images(raabin, LabelsConfig(on_leak="drop"))
    here = [c.split for c in cells.cells if c.group == "20190531_000001"]
    assert here == ["TestA"]


def test_a_field_in_two_tests_is_never_let_pass(raabin):
    for split in ("TestA", "TestB"):
        path = raabin / split / "Lymphocyte" / "20190531_777777_3.png"
        write_cell(path, "Lymphocyte", 1)
    with pytest.raises(ConfigError, match="777777"):
        labelled_images(raabin, LabelsConfig(on_leak="drop"))


def test_validation_takes_whole_fields_and_leaves_every_class_in_training():
    rng = np.random.default_rng(0)
    cells = [
        cell(rng.choice(["a", "a", "a", "b"]), f"field{rng.integers(40)}")
        for _ in range(200)
    ]
    cells.append(cell("rare", "alone"))
    chosen = grouped_part(cells, 0.2, (3,))
    groups = [
        {c.group for c, k in zip(cells, chosen, strict=True) if k == side}
        for side in (True, False)
    ]
    assert not groups[0] & groups[1]
    for label in ("a", "b"):
        has = np.array([c.label == label for c in cells])
        assert 0.1 < chosen[has].mean() < 0.3
    assert not chosen[-1]
    assert (chosen == grouped_part(cells, 0.2, (3,))).all()
    assert (chosen != grouped_part(cells, 0.2, (4,))).any()


def test_labels_of_no_class_are_refused(folder):
    with pytest.raises(ConfigError, match="Neutrophil"):
        labelled_images(folder, LabelsConfig(classes=("Eosinophil", "Lymphocyte")))


def bccd(root: Path, frames: list[tuple[str, list[tuple[str, tuple[int, ...]]]]]):
    for name in ("images", "annotations"):
        (root / name).mkdir(parents=True)
    with (root / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["", "Image", "Category"])
        for number, (label, boxes) in enumerate(frames):
            table.writerow(["", number, label])
            stem = f"BloodImage_{number:05d}"
            write_cell(root / "images" / f"{stem}.jpg", "Monocyte", number, 100)
            objects = "".join(
                f"<object><name>{kind}</name><bndbox>"
                + "".join(
                    f"<{k}>{v}</{k}>"
                    for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
                )
                + "</bndbox></object>"
                for kind, box in boxes
            )
            text = f"<annotation>{objects}</annotation>"
            (root / "annotations" / f"{stem}.xml").write_text(text)
    return root


def test_boxes_are_cut_from_frames_that_tell_which_cell_is_which(tmp_path):
    cell_box, red = ("WBC", (10, 20, 50, 40)), ("RBC", (60, 60, 80, 80))
    root = bccd(
        tmp_path / "bccd",
        [
            ("NEUTROPHIL", [red, cell_box]),
            ("NEUTROPHIL, EOSINOPHIL", [cell_box, cell_box]),
            ("", [cell_box]),
            ("MONOCYTE", [red]),
            ("EOSINOPHIL", [cell_box]),
        ],
    )
    cells = read_cells(root, LabelsConfig(box_margin=0.0))
    assert [c.label for c in cells] == ["Neutrophil", "Eosinophil"]
    assert cells[0].box == (10, 10, 50, 50) and cells[0].group == "BloodImage_00000"
    assert cells[0].read(PictureCache(8)).shape == (40, 40, 3)


def test_boxes_are_squares_inside_their_frame():
    assert square((0, 0, 20, 10), (100, 80), 0.0) == (0, 0, 20, 20)
    assert square((90, 70, 100, 80), (100, 80), 0.5) == (80, 60, 100, 80)
    left, top, right, bottom = square((0, 0, 200, 70), (200, 80), 0.1)
    assert right - left == bottom - top == 80


def test_annotations_with_entities_are_refused(tmp_path):
    root = bccd(tmp_path / "bccd", [("MONOCYTE", [("WBC", (1, 1, 9, 9))])])
    note = next((root / "annotations").iterdir())
    note.write_text('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>')
    with pytest.raises(ConfigError, match="annotation"):
        read_cells(root, ANY)


@pytest.mark.parametrize(
    ("name", "least", "classes"),
    [("bccd_cropped", 351, 5), ("segmentation_wbc_d1", 300, 5), ("bccd_full", 300, 5)],
)
def test_real_collections_are_read(shared_data, name, least, classes):
    data = shared_data / "wbc" / name
    if not data.is_dir():
        pytest.skip(f"{data} is missing")
    cells = labelled_images(data, LabelsConfig(validation=0.0))
    assert len(cells) >= least and len(cells.classes) == classes
    if name == "bccd_cropped":
        assert len(cells.only("val")) == 90
