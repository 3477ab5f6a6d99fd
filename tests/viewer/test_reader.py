"""Slides as layers: resolution, levels, and files that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_mcm.core.errors import SlideError
from napari_mcm.viewer.reader import get_reader, read_slide
from napari_mcm.viewer.slide_facts import SlideFacts
from tests.viewer.conftest import MPP, write_slide


def test_a_slide_becomes_a_layer_in_microns(viewer: Any, slide_path: Path) -> None:
    (layer,) = viewer.open(slide_path, plugin="napari-mcm")
    assert layer.rgb and layer.multiscale
    assert layer.level_shapes[:, :2].tolist() == [[1000, 1200], [500, 600]]
    np.testing.assert_allclose(layer.scale, (MPP, MPP), rtol=1e-4)
    assert [str(unit) for unit in layer.units] == ["micrometer"] * 2
    assert layer.axis_labels == ("y", "x")
    assert viewer.canvas.overlays.scale_bar.visible is False


def test_the_layer_knows_its_file(slide_path: Path, viewer: Any) -> None:
    (layer,) = viewer.open(slide_path, plugin="napari-mcm")
    facts = SlideFacts.of_layer(layer)
    assert facts is not None
    assert Path(facts.path) == slide_path and facts.size == (1200, 1000)


def test_without_a_resolution_the_world_is_in_pixels(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "unknown.tif", mpp=None)
    ((_, kwargs, _),) = read_slide(path)
    assert "scale" not in kwargs and "units" not in kwargs
    ((_, kwargs, _),) = read_slide(path, mpp=0.25)
    assert kwargs["scale"] == (0.25, 0.25)


def test_what_is_no_slide_is_left_to_others(tmp_path: Path) -> None:
    text = tmp_path / "notes.tif"
    text.write_text("not a slide")
    assert get_reader(text) is None
    assert get_reader(tmp_path / "missing.svs") is None
    assert get_reader(tmp_path) is None
    assert get_reader([str(text), str(text)]) is None


def test_a_damaged_slide_is_told_in_one_line(viewer: Any, tmp_path: Path) -> None:
    path = tmp_path / "cut.svs"
    path.write_bytes(b"II*\0" + b"\xff" * 40)
    with pytest.raises(SlideError, match="cut.svs") as caught:
        viewer.open(path, plugin="napari-mcm")
    assert "\n" not in str(caught.value)
