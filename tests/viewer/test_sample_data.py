"""File > Open Sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from napari_mcm.viewer import sample_data
from napari_mcm.viewer.layers.metadata import SlideMetadata


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sample_data, "SIZE", 600)
    monkeypatch.setattr(sample_data, "_folder", lambda: tmp_path)


def test_the_sample_opens_as_a_slide(viewer: Any) -> None:
    (layer,) = viewer.open_sample("napari-mcm", "generated_slide")
    metadata = SlideMetadata.of_layer(layer)
    assert (
        metadata is not None
        and metadata.size == (600, 600)
        and metadata.mpp == (0.5, 0.5)
    )
    assert layer.name == "Generated H&E slide"


def test_it_is_generated_once(viewer: Any, tmp_path: Path) -> None:
    viewer.open_sample("napari-mcm", "generated_slide")
    (slide,) = tmp_path.rglob("*.ome.tif")
    made = slide.stat().st_mtime_ns
    viewer.open_sample("napari-mcm", "generated_slide")
    assert slide.stat().st_mtime_ns == made


def test_a_half_generated_one_is_made_again(viewer: Any, tmp_path: Path) -> None:
    viewer.open_sample("napari-mcm", "generated_slide")
    next(tmp_path.rglob("cohort.csv")).unlink()
    next(tmp_path.rglob("*.ome.tif")).write_bytes(b"II*\0")
    (layer,) = viewer.open_sample("napari-mcm", "generated_slide")
    assert layer.level_shapes[0][:2].tolist() == [600, 600]
