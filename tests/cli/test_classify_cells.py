"""Cells that are marked on a slide, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tests.core.cells.conftest import write_classes

CPU = ("--device", "cpu", "--precision", "float32")
SMALL = ("--model", "tiny", "--image-size", "32", "--vit-patch", "8", "--depth", "1")
FEW = ("--steps", "2", "--batch-size", "4")


@pytest.fixture
def classifier(call: Call, tmp_path: Path) -> Path:
    """A run that has learned hardly anything."""
    cells = write_classes(tmp_path / "cells", {"Lymphocyte": 8, "Neutrophil": 8})
    out = tmp_path / "classifier"
    done = call("classify", "train", cells, "--out", out, *SMALL, *FEW, *CPU)
    assert done.status == 0
    return out


def test_marked_cells_are_classified_into_a_file(
    call: Call, classifier: Path, slide_without_mpp: Path, tmp_path: Path
) -> None:
    marks, out = tmp_path / "marks.csv", tmp_path / "out" / "found.geojson"
    marks.write_text("x,y\n200,300\n220.5,310\n512,511.5\n-80,20\n")
    words = ("classify", "cells", slide_without_mpp, "--run", classifier)
    words += ("--marks", marks, "--out", out, "--side", 64, *CPU)
    done = call(*words, "--json")
    assert done.status == 3
    assert [cell["box"] for cell in done.json["cells"]] == [
        [168, 268, 232, 332],
        [188, 278, 252, 342],
        [448, 448, 512, 512],
        [-112, -12, -48, 52],
    ]
    assert done.json["skipped"] == 1 and sum(done.json["counts"].values()) == 3
    assert done.json["cells"][3]["class"] is None
    assert "skipped cell 4 at -112, -12" in done.err and "4/4 cells" in done.err
    assert "failed: 1 of 4 cells could not be read" in done.err
    assert "3 of 4 cells classified" in done.err
    written = json.loads(out.read_text())["features"]
    names = [f["properties"].get("classification", {}).get("name") for f in written]
    assert names == [cell["class"] for cell in done.json["cells"]]

    marks.write_text("x,y\n200,300\n")
    done = call(*words)
    assert done.status == 0 and f"file  {out}" in done.out


def test_what_is_missing_is_said_in_a_line(
    call: Call, slide: Path, tmp_path: Path
) -> None:
    done = call("classify", "cells", slide)
    assert (done.status, done.error) == (2, "error: --run: is missing")
    none = tmp_path / "none.csv"
    done = call("classify", "cells", slide, "--run", tmp_path, "--marks", none)
    assert done.error == f"error: {none}: no such file of marks. Check the path"
