"""The verb grid: tissue found or drawn by hand, written for other programs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Call

SMALL = ("--patch-size", 64, "--tissue-mpp", 4)


def drawing(path: Path, x: int, y: int, width: int, height: int) -> Path:
    """Write a rectangle as a bare GeoJSON geometry."""
    corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height), (x, y)]
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [corners]}))
    return path


def test_a_mask_drawn_by_hand_is_used(call: Call, slide: Path, tmp_path: Path) -> None:
    mask = drawing(tmp_path / "mine.geojson", 0, 0, 512, 128)
    answer = call("grid", slide, *SMALL, "--masks", mask, "--json")
    assert answer.status == 0
    assert answer.json["patches"] == 16
    assert answer.json["tissue_fraction"] == 0.25
    assert answer.json["tissue_source"] == "mine.geojson"
    assert "drawn in mine.geojson" in call("grid", slide, *SMALL, "--masks", mask).out


def test_a_folder_of_masks_holds_one_by_the_slide_s_name(
    call: Call, slide: Path, tmp_path: Path
) -> None:
    answer = call("grid", slide, *SMALL, "--masks", tmp_path, "--json")
    assert answer.json["tissue_source"] == "found"
    drawing(tmp_path / "round.geojson", 0, 0, 256, 512)
    answer = call("grid", slide, *SMALL, "--masks", tmp_path, "--json")
    assert answer.json["tissue_source"] == "round.geojson"
    assert answer.json["patches"] == 32


@pytest.mark.parametrize("ending", ["geojson", "png"])
def test_tissue_goes_out_and_comes_back(
    call: Call, slide: Path, tmp_path: Path, ending: str
) -> None:
    file = tmp_path / f"tissue.{ending}"
    first = call("grid", slide, *SMALL, "--tissue-out", file, "--json").json
    assert first["tissue_file"] == str(file)
    again = call("grid", slide, *SMALL, "--masks", file, "--json").json
    assert again["patches"] == first["patches"] > 0
    assert again["tissue_fraction"] == first["tissue_fraction"]
    assert again["tissue_source"] == file.name


def test_a_mask_of_another_slide_is_one_line(
    call: Call, slide: Path, tmp_path: Path
) -> None:
    far = drawing(tmp_path / "far.geojson", 40_000, 9_000, 512, 128)
    answer = call("grid", slide, "--masks", far)
    assert answer.status == 1
    assert "mostly outside" in answer.error and "far.geojson" in answer.error
    Image.fromarray(np.ones((50, 90), np.uint8)).save(tmp_path / "wide.png")
    answer = call("grid", slide, "--masks", tmp_path / "wide.png")
    assert answer.status == 1 and "wide.png" in answer.error
    answer = call("grid", slide, "--masks", tmp_path / "nowhere")
    assert answer.status == 1 and "--masks" in answer.error


def test_another_ending_is_refused_before_anything_is_read(
    call: Call, tmp_path: Path
) -> None:
    answer = call("grid", tmp_path / "none.svs", "--tissue-out", tmp_path / "a.tif")
    assert answer.status == 2
    assert ".geojson or .png" in answer.error
