"""What is taken home is the same as on the command line, to the bit."""

from __future__ import annotations

import csv
import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import tifffile

from napari_mcm.cli import main
from napari_mcm.core.features.interchange.formats import save_features
from napari_mcm.core.features.reading import read_features
from napari_mcm.core.heatmaps import SimilarityIndex
from napari_mcm.core.labelling import (
    LabelSet,
    load_classifier,
    save_classifier,
    write_labels,
)
from napari_mcm.viewer.app.features import LoadedFeatures
from napari_mcm.viewer.project.controller import project_of
from napari_mcm.viewer.project.memory import memory_of
from napari_mcm.viewer.project.results import results_of
from tests.viewer.conftest import wait_until
from tests.viewer.labelling.conftest import Labeller, is_left, two_kinds


@pytest.fixture
def mapped(user: Labeller, slide_path: Path, tmp_path: Path) -> Labeller:
    """A user with a feature file, a context of 3 × 3, and 24 labels."""
    file = tmp_path / "features" / "slide.features.zarr"
    save_features(two_kinds(slide_path).index.features, file)
    loaded = LoadedFeatures("two kinds", SimilarityIndex(read_features(file)), file)
    user.session.set_features(user.session.slide, "first", loaded)
    user.context.classifier.use_radius(1)
    left = np.flatnonzero(is_left(user.grid))
    right = np.setdiff1d(np.arange(len(user.grid)), left)
    for rows, key in ((left[::9], "1"), (right[::9], "2")):
        for row in rows[:12]:
            user.label(int(row), key)
    user.settle()
    assert user.context.classifier.fit.classifier.calibrated
    return user


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def test_window_and_command_line_agree_to_the_bit(
    mapped: Labeller, tmp_path: Path
) -> None:
    memory, project = memory_of(mapped.session), project_of(mapped.session)
    wait_until(lambda: memory.fingerprint_of(mapped.session.slide))
    results = mapped.widget.results.results
    results.save_classifier(tmp_path / "window.classifier.safetensors")
    results.export_areas(tmp_path / "window.csv")
    mapped.session.disk.wait()
    labels = write_labels(tmp_path / "a.labels.json", mapped.labels)
    # Trained from files.
    made = tmp_path / "cli.classifier.safetensors"
    features = tmp_path / "features"
    words = ["labels", "train", labels, features, "--out", made]
    assert main([str(one) for one in (*words, "--context", 1)]) == 0
    window, cli = (
        load_classifier(p) for p in (tmp_path / "window.classifier.safetensors", made)
    )
    assert np.array_equal(window.weights, cli.weights)
    assert np.array_equal(window.bias, cli.bias)
    assert window.temperature == cli.temperature
    provenance = [one.provenance["labels"] for one in (window, cli)]
    assert provenance[0]["digest"] == provenance[1]["digest"]
    # Applied by the command that the dock gives.
    memory.take()
    wait_until(lambda: project.project.slides)
    wait_until(lambda: results.features())
    out = tmp_path / "out"
    results.save_classifier(results.config(out).classifier)
    mapped.session.disk.wait()
    program, *words = shlex.split(results.command(out))
    assert program == "napari-mcm"
    assert main(words) == 0
    assert rows_of(out / "areas.csv")[:3] == rows_of(tmp_path / "window.csv")[:3]
    # And by the dock's own job.
    done: list[Any] = []
    results.apply(tmp_path / "again", done.append)
    wait_until(lambda: done)
    assert rows_of(done[0].table) == rows_of(out / "areas.csv")


def test_a_classifier_from_a_file_makes_the_same_map(
    mapped: Labeller, tmp_path: Path
) -> None:
    before = mapped.map.data.copy()
    results, files = mapped.widget.results.results, mapped.widget.files
    path = tmp_path / "x.classifier.safetensors"
    results.save_classifier(path)
    mapped.session.disk.wait()
    # Without labels and classes, as for another user.
    mapped.session.labels.use(LabelSet())
    mapped.settle()
    assert not np.isfinite(mapped.map.data).any()
    files.files.open_classifier(path)
    wait_until(lambda: mapped.context.classifier.given is not None)
    mapped.settle()
    assert np.array_equal(mapped.map.data, before, equal_nan=True)
    assert [one.color for one in mapped.labels.classes] == list(
        load_classifier(path).colors
    )
    wait_until(lambda: files.train.isEnabled())
    files.train.click()
    mapped.settle()
    assert not np.isfinite(mapped.map.data).any()
    assert "Point at a patch" in mapped.widget.map.next_thing()


def test_a_classifier_of_another_encoder_is_refused_in_a_line(
    mapped: Labeller, tmp_path: Path
) -> None:
    fit = mapped.context.classifier.fit
    other = replace(fit.classifier, encoder={"fingerprint": "another"})
    path = save_classifier(tmp_path / "x.classifier.safetensors", other)
    mapped.widget.files.files.open_classifier(path)
    wait_until(lambda: mapped.context.classifier.given is not None)
    mapped.settle()
    assert "another encoder" in mapped.widget.map.next_thing()
    assert len(mapped.labels) == 24


def test_rows_of_the_results_table_are_the_areas(mapped: Labeller) -> None:
    mapped.widget.results.add.click()
    rows = results_of(mapped.session).rows
    areas = mapped.context.classifier.classes.areas
    assert [row.query for row in rows] == ["class left", "class right", "class unsure"]
    assert [row.area_mm2 for row in rows] == [one.mm2 for one in areas]
    assert sum(row.tissue_percent for row in rows) == pytest.approx(100)
    # The same again is no news.
    mapped.widget.results.add.click()
    assert len(results_of(mapped.session).rows) == 3


def test_exports_hold_the_classes_of_the_map(mapped: Labeller, tmp_path: Path) -> None:
    results = mapped.widget.results.results
    classes = results.classes
    names = (*classes.names, "unsure")
    for ending in (".geojson", ".regions.geojson", ".ome.tif", ".csv"):
        results.export(tmp_path / f"x{ending}")
    mapped.session.disk.wait()
    tiles = json.loads((tmp_path / "x.geojson").read_text())["features"]
    assert len(tiles) == len(mapped.grid)
    for row in (0, 40, len(mapped.grid) - 1):
        centre = shapely.Point(mapped.grid.centres[row])
        (tile,) = (
            x for x in tiles if shapely.geometry.shape(x["geometry"]).contains(centre)
        )
        assert (
            tile["properties"]["classification"]["name"] == names[classes.decided[row]]
        )
    regions = json.loads((tmp_path / "x.regions.geojson").read_text())["features"]
    total = sum(x["properties"]["measurements"]["area mm2"] for x in regions)
    assert total == pytest.approx(sum(one.mm2 for one in classes.areas()))
    raster = tifffile.imread(tmp_path / "x.ome.tif")
    codes = raster[tuple(mapped.grid.lattice.T)]
    wanted = np.where(classes.decided < 0, len(classes.names), classes.decided) + 1
    assert np.array_equal(codes, wanted)
    table = rows_of(tmp_path / "x.csv")
    assert [row["class"] for row in table] == [names[one] for one in classes.decided]


def test_the_labels_layer_lies_on_the_slide(mapped: Labeller) -> None:
    layer = mapped.widget.results.results.make_layer()
    slide, classes = mapped.session.slide, mapped.widget.results.results.classes
    assert layer in mapped.session.viewer.layers
    assert layer.units == slide.units
    assert list(layer.features["class"]) == ["no features", "left", "right", "unsure"]
    for row in (0, 40):
        x, y = mapped.grid.centres[row] - 0.5
        value = layer.get_value(slide.data_to_world((y, x)), world=True)
        code = classes.decided[row]
        assert value == (3 if code < 0 else code + 1)


def test_labels_of_a_closed_slide_count_from_its_feature_file(
    mapped: Labeller, tmp_path: Path
) -> None:
    from tests.viewer.conftest import write_slide

    memory = memory_of(mapped.session)
    wait_until(lambda: memory.fingerprint_of(mapped.session.slide))
    memory.take()
    before = mapped.context.classifier.fit
    viewer, first = mapped.session.viewer, mapped.session.slide
    path = write_slide(tmp_path / "other.tif", 0.4)
    viewer.open(path, plugin="napari-mcm")
    second = mapped.session.slide
    mapped.session.set_features(second, "first", two_kinds(path, 0.4))
    viewer.layers.remove(first)
    wait_until(lambda: mapped.session.slide is second)
    # As in a new session: nothing of the first slide is in memory.
    mapped.context.classifier._features._known.clear()
    mapped.context.classifier.request()
    mapped.settle()
    after = mapped.context.classifier.fit
    assert len(after.rows) == len(before.rows)
    assert np.array_equal(after.classifier.weights, before.classifier.weights)
    # Without its file, they do not count, and the dock says so.
    import shutil

    shutil.rmtree(tmp_path / "features")
    mapped.context.classifier._features._known.clear()
    mapped.context.classifier.request()
    mapped.settle()
    assert len(mapped.context.classifier.fit.rows) == 0
    assert "do not count" in mapped.widget.map.next_thing()
