"""Cells that are marked in files of all kinds, classified where they lie on a slide."""

from __future__ import annotations

import csv
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_mcm.core.cells import FitConfig, MarkedCellsConfig
from napari_mcm.core.cells import annotated_slides as marked
from napari_mcm.core.cells.annotations import read_annotations, write_boxes
from napari_mcm.core.cells.model import load_classifier
from napari_mcm.core.cells.training import classify
from napari_mcm.core.errors import ConfigError, GridError, RunError, TrainingError
from napari_mcm.core.mae.augment import resized
from napari_mcm.core.runtime.jobs import Note, Progress, run
from tests.core.cells.conftest import COLOURS, write_classes
from tests.core.mae.conftest import CPU, SMALL

NAMES = ["Neutrophil", "Eosinophil", "Lymphocyte", "Neutrophil", "Eosinophil"]
LEFTS = [20 + 60 * number for number in range(len(NAMES))]
BOXES = [(left, 30, left + 40, 70) for left in LEFTS]
SQUARE = np.zeros((40, 40, 3), np.uint8)
CENTRES = [(left + 20, 50) for left in LEFTS]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A classifier of coloured squares."""
    from napari_mcm.core.cells import ClassifyConfig

    folder = tmp_path_factory.mktemp("cells")
    counts = {"Eosinophil": 8, "Lymphocyte": 8, "Neutrophil": 8}
    config = ClassifyConfig(
        data=write_classes(folder / "learned", counts),
        out=folder / "classifier",
        model=SMALL,
        fit=FitConfig(steps=30, batch_size=8, base_lr=0.03),
        compute=CPU,
    )
    return run(classify(config)).run_dir


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A smear with a square of a class each 60 px."""
    pixels = np.full((100, 60 * len(NAMES) + 20, 3), 255, np.uint8)
    for name, (left, top, right, bottom) in zip(NAMES, BOXES, strict=True):
        pixels[top:bottom, left:right] = COLOURS[name]
    Image.fromarray(pixels).save(tmp_path / "smear.png")
    return tmp_path / "smear.png"


@pytest.fixture
def ask(trained, picture):
    """Classify what a file marks, and give the events and the result."""

    def ask(marks, **options):
        config = MarkedCellsConfig(
            slide=picture, run=trained, marks=marks, compute=CPU, **options
        )
        events = []
        return run(marked.classify_cells(config), events.append), events

    return ask


def ring(left, top, right, bottom):
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def polygon(box, **more):
    geometry = {"type": "Polygon", "coordinates": [ring(*box)]}
    return {"type": "Feature", "geometry": geometry, **more}


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def qupath_cells():
    """Cells as QuPath 0.5 exports them, inside of an annotation."""
    tissue = polygon((0, 0, 320, 100), id="t", properties={"objectType": "annotation"})
    small = ring(5, 5, 9, 9)
    cells = [
        polygon(
            box,
            id=f"id {number}",
            nucleusGeometry={"type": "Polygon", "coordinates": [small]},
            properties={
                "objectType": "cell",
                "classification": {"name": "Tumor", "color": [200, 0, 0]},
                "measurements": {"Cell: Area": 1600.0},
            },
        )
        for number, box in enumerate(BOXES)
    ]
    return {"type": "FeatureCollection", "features": [tissue, *cells]}


def test_cells_of_qupath_come_back_with_classes_colours_and_all_they_had(ask, tmp_path):
    given = qupath_cells()
    marks, out = write(tmp_path / "in.geojson", given), tmp_path / "out.geojson"
    done, events = ask(marks, out=out)
    # The cells are classified, not their nuclei or the annotation around them.
    assert done.found.names == NAMES and done.others == 1
    assert done.boxes[0] == (16, 26, 64, 74)
    assert any("1 objects" in e.text for e in events if isinstance(e, Note))
    tissue, *cells = json.loads(out.read_text())["features"]
    assert tissue == given["features"][0]
    for cell, before, name in zip(cells, given["features"][1:], NAMES, strict=True):
        for key in ("type", "id", "geometry", "nucleusGeometry"):
            assert cell[key] == before[key]
        assert cell["properties"]["objectType"] == "cell"
        assert cell["properties"]["classification"]["name"] == name
        shares = dict(cell["properties"]["measurements"])
        assert shares.pop("Cell: Area") == 1600
        assert max(shares, key=shares.get) == f"p_{name}"
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
    colours = [tuple(c["properties"]["classification"]["color"]) for c in cells]
    assert colours[0] == colours[3] and len(set(colours)) == 3
    assert all(0 <= value <= 255 for colour in colours for value in colour)


def test_measurements_of_older_qupaths_stay_a_list(ask, tmp_path):
    old = [{"name": "Area", "value": 1.0}, {"name": "p_Neutrophil", "value": 9.0}]
    cell = polygon(BOXES[0], id="PathDetectionObject", properties={"measurements": old})
    out = tmp_path / "out.geojson"
    ask(write(tmp_path / "in.json", [cell]), out=out)
    (cell,) = json.loads(out.read_text())["features"]
    names = [each["name"] for each in cell["properties"]["measurements"]]
    assert names == ["Area", "p_Eosinophil", "p_Lymphocyte", "p_Neutrophil"]


def test_all_that_marks_the_same_squares_gives_the_same_classes(
    ask, tmp_path, trained, picture
):
    classifier = load_classifier(trained, CPU)
    pixels = np.asarray(Image.open(picture))
    crops = [resized(pixels[t:b, x:r], classifier.side) for x, t, r, b in BOXES]
    whole = [classifier.probabilities(np.stack(c)) for c in (crops[:4], crops[4:])]
    expected = np.concatenate(whole)

    points = {"type": "MultiPoint", "coordinates": [list(c) for c in CENTRES]}
    halves = [[[ring(x, t, r, t + 9)], [ring(x, b - 9, r, b)]] for x, t, r, b in BOXES]
    split = [{"type": "MultiPolygon", "coordinates": half} for half in halves]
    single = [{"type": "Point", "coordinates": [*c, 0]} for c in CENTRES]
    table = "\n".join(f"{x},{t},{r},{b},note" for x, t, r, b in BOXES)
    places = "\n".join(f"a;b,{y},{x}" for x, y in CENTRES)
    write_boxes(tmp_path / "own.geojson", BOXES)
    for file in (
        write(tmp_path / "points.geojson", [{"type": "Feature", "geometry": points}]),
        write(tmp_path / "parts.geojson", split),
        write(tmp_path / "single.json", single),
        write(tmp_path / "boxes.csv", f"Left, Top,right,bottom,more\n{table}\n\n"),
        write(tmp_path / "points.csv", f"\ufeffid,Y,X\n{places}"),
        tmp_path / "own.geojson",
    ):
        done, _ = ask(file, side=40, box_margin=0.0)
        assert done.boxes == tuple(BOXES), file
        assert np.array_equal(done.found.probabilities, expected), file
    assert done.found.names == NAMES


def test_points_of_one_object_get_a_class_each(ask, tmp_path):
    feature = {
        "type": "Feature",
        "id": "one for all",
        "geometry": {"type": "MultiPoint", "coordinates": CENTRES, "plane": {"z": 2}},
        "properties": {"objectType": "annotation", "name": "mine"},
    }
    out = tmp_path / "out.geojson"
    ask(write(tmp_path / "in.geojson", feature), side=40, out=out)
    cells = json.loads(out.read_text())["features"]
    assert [c["properties"]["classification"]["name"] for c in cells] == NAMES
    assert [c["geometry"]["coordinates"] for c in cells] == [list(c) for c in CENTRES]
    assert all(c["geometry"]["type"] == "Point" and "id" not in c for c in cells)
    assert all(c["properties"]["name"] == "mine" for c in cells)
    assert cells[0]["geometry"]["plane"] == {"z": 2}


def test_a_table_names_box_class_and_probabilities_and_marks_the_same_again(
    ask, tmp_path
):
    places = "\n".join(f"{x},{y}" for x, y in CENTRES)
    marks, out = write(tmp_path / "in.csv", f"x,y\n{places}"), tmp_path / "out.csv"
    done, _ = ask(marks, out=out, side=48)
    with out.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [row["class"] for row in rows] == NAMES
    assert rows[0]["left"] == "16" and rows[0]["bottom"] == "74"
    read = [[float(row[f"p_{n}"]) for n in done.found.classes] for row in rows]
    assert np.array_equal(np.float32(read), done.found.probabilities)
    assert [float(r["confidence"]) for r in rows] == [max(each) for each in read]
    again, _ = ask(out, box_margin=0.0)
    assert np.array_equal(again.found.probabilities, done.found.probabilities)


def test_cells_off_the_slide_are_skipped_told_and_left_without_a_class(ask, tmp_path):
    cells = [polygon(BOXES[0]), polygon((900, 0, 940, 40)), polygon(BOXES[1])]
    cells[1]["properties"] = {"classification": {"name": "Old"}}
    marks, out = write(tmp_path / "in.geojson", cells), tmp_path / "out.geojson"
    done, events = ask(marks, out=out)
    assert done.found.names == ["Neutrophil", "", "Eosinophil"]
    assert done.found.failed == 1
    (note,) = [e.text for e in events if isinstance(e, Note)]
    assert "skipped cell 2 at 900, 0: lies outside of 320 x 100 px" in note
    written = json.loads(out.read_text())["features"]
    assert "classification" not in written[1]["properties"]
    ask(marks, out=tmp_path / "out.csv")
    rows = (tmp_path / "out.csv").read_text().splitlines()
    assert rows[2] == "900,0,940,40,,,,,"


def test_what_leaves_the_slide_a_little_is_moved_inside(ask, tmp_path):
    marks = write(tmp_path / "in.csv", "x,y\n2,98\n318,1")
    done, _ = ask(marks, side=40)
    assert done.boxes == ((0, 60, 40, 100), (280, 0, 320, 40))


def test_many_that_cannot_be_read_are_not_told_one_by_one(ask, tmp_path):
    rows = "\n".join(f"{-50 - n},0" for n in range(100))
    marks = write(tmp_path / "in.csv", f"x,y\n40,50\n{rows}")
    done, events = ask(marks, side=40)
    notes = [event.text for event in events if isinstance(event, Note)]
    assert done.found.failed == 100 and len(notes) == 21
    assert notes[-1] == "skipped 80 more cells"
    last = [event for event in events if isinstance(event, Progress)][-1]
    assert (last.done, last.total, last.unit) == (101, 101, "cells")


def test_a_damaged_tile_costs_its_own_cells(trained, write_slide, tmp_path):
    pixels = np.full((512, 512, 3), COLOURS["Lymphocyte"], np.uint8)
    path = write_slide(pixels, levels=1, compression="jpeg")
    raw = bytearray(path.read_bytes())
    import tifffile

    with tifffile.TiffFile(path) as opened:
        page = opened.pages[0]
        start, length = page.dataoffsets[3], page.databytecounts[3]
    raw[start : start + length] = bytes(length)
    path.write_bytes(raw)
    marks = write(tmp_path / "in.csv", "x,y\n100,100\n400,400\n100,400")
    config = MarkedCellsConfig(slide=path, run=trained, marks=marks, compute=CPU)
    done = run(marked.classify_cells(config))
    assert done.found.names == ["Lymphocyte", "", "Lymphocyte"]
    only = write(tmp_path / "only.csv", "x,y\n400,400")
    with pytest.raises(TrainingError, match="none of the cells can be read"):
        run(marked.classify_cells(config.model_copy(update={"marks": only})))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "x,y\n1,2", "is not a file of annotations.*Use .geojson"),
        ("a.geojson", "{", "is not GeoJSON"),
        ("a.geojson", '{"type": "FeatureCollection", "features": []}', "annotates no cells"),
        ("a.geojson", '[{"type": "LineString", "coordinates": [[1, 2], [3, 4]]}]', "no p"),
        ("a.geojson", '{"type": "Point", "coordinates": [1]}', "object 1: is a damaged P"),
        ("a.geojson", '{"type": "Point", "coordinates": [1, NaN]}', "1: has coord.*finite"),
        ("a.geojson", '{"type": "Polygon", "coordinates": [[[1, 2]]]}', "damaged Polygon"),
        ("a.csv", "", "neither points nor boxes, but nothing.*columns x,y"),
        ("a.csv", "x,left\n1,2", "neither points nor boxes, but x, left"),
        ("a.csv", "x,y\n", "annotates no cells"),
        ("a.csv", "x,y\n1,2\n1,two", "line 3 lacks a number"),
        ("a.csv", "x,y\n1", "line 2 lacks a number"),
        ("a.csv", "x,y\n1,inf", "line 2 .*not finite"),
        ("a.csv", "left,top,right,bottom\n9,9,9,20", "line 2: a box is empty"),
        ("a.csv", b"x,y\n\xff\xfe", "cannot be read as a table"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_one_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises((ConfigError, GridError), match=message) as error:
        read_annotations(path)
    assert name in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a.geojson", "a.csv"])
def test_a_file_that_is_not_there_or_too_large_is_not_read(tmp_path, monkeypatch, name):
    with pytest.raises((ConfigError, GridError), match="no such file of marks"):
        read_annotations(tmp_path / name)
    write(tmp_path / name, "x,y\n1,2")
    for module in ("cells.annotations", "tissue.geojson"):
        monkeypatch.setattr(f"napari_mcm.core.{module}.LARGEST_FILE", 4)
    with pytest.raises((ConfigError, GridError), match="large"):
        read_annotations(tmp_path / name)


def test_cells_of_another_slide_and_what_cannot_be_written_are_told_first(
    ask, tmp_path, monkeypatch, trained, picture
):
    def load(*_):
        raise AssertionError("it took time")

    monkeypatch.setattr(marked, "load_classifier", load)
    marks = write(tmp_path / "in.csv", "x,y\n5000,4000\n6000,4000")
    with pytest.raises(ConfigError, match="outside of smear: x 4960 to 6040.*another"):
        ask(marks)
    for out, message in (
        ("out.txt", "Use .geojson or .csv"),
        ("in.csv", "is the file of the annotations"),
        ("a.csv", "is a folder"),
    ):
        (tmp_path / "a.csv").mkdir(exist_ok=True)
        with pytest.raises(ConfigError, match=message):
            ask(marks, out=tmp_path / out)
    monkeypatch.undo()
    marks = write(tmp_path / "in.csv", "x,y\n40,50")
    config = MarkedCellsConfig(slide=picture, run=tmp_path, marks=marks)
    with pytest.raises(RunError, match="holds no trained classifier"):
        run(marked.classify_cells(config))


def test_no_cell_is_as_large_as_a_field_or_as_small_as_a_dot(trained, tmp_path):
    pixels = np.full((4200, 4200, 3), COLOURS["Neutrophil"], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "field.png")
    boxes = "0,0,4150,4150\n10,10,12,12\n100,100,140,140"
    marks = write(tmp_path / "in.csv", f"left,top,right,bottom\n{boxes}")
    config = MarkedCellsConfig(
        slide=tmp_path / "field.png",
        run=trained,
        marks=marks,
        box_margin=0,
        compute=CPU,
    )
    events = []
    done = run(marked.classify_cells(config), events.append)
    assert done.found.names == ["", "", "Neutrophil"]
    notes = [event.text for event in events if isinstance(event, Note)]
    assert "a box of 4,150 px per side is not a cell" in notes[0]


def test_it_is_cancelled_between_a_few_cells_and_leaves_no_file(
    trained, picture, tmp_path
):
    rows = "\n".join("40,50" for _ in range(1000))
    marks, out = write(tmp_path / "in.csv", f"x,y\n{rows}"), tmp_path / "out.csv"
    config = MarkedCellsConfig(
        slide=picture, run=trained, marks=marks, side=40, out=out, compute=CPU
    )
    job = marked.classify_cells(config)
    for event in job:
        if isinstance(event, Progress) and event.done > 8:
            break
    assert (event.stage, event.done, event.total) == ("Classifying", 12, 1000)
    assert event.rate and event.eta_s
    job.close()
    assert not out.exists() and not list(tmp_path.glob(".part*"))


def test_a_cancel_waits_for_no_network(trained, picture, monkeypatch):
    let_go = threading.Event()

    class Slow:
        classes, side = ("a", "b"), 32

        def probabilities(self, images):
            let_go.wait(60)
            return np.zeros((len(images), 2), np.float32)

    monkeypatch.setattr(marked, "load_classifier", lambda *_: Slow())
    job = marked.classify_boxes(trained, lambda _: SQUARE, BOXES, CPU)
    # It is alive while it computes.
    assert [next(job).done for _ in range(3)] == [0, 0, 0]
    job.close()
    assert not let_go.is_set()
    let_go.set()
