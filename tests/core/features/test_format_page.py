"""What docs/feature-format.md shows works, and what it states is so."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from napari_mcm.core.features import Status, read_features
from napari_mcm.core.features.format import (
    ARRAYS,
    OPTIONAL,
    SCHEMA,
    VERSION,
    load_schema,
    read_metadata,
)
from napari_mcm.core.features.interchange import save_features
from napari_mcm.core.features.verify import verify_file
from napari_mcm.core.runtime.jobs import run
from tests.core.features.made_features import made_features

PAGE = Path(__file__).parents[3] / "docs" / "feature-format.md"


@pytest.fixture
def examples():
    return re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)


def test_a_file_is_read_with_plain_zarr(examples, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    features = made_features()
    save_features(features, tmp_path / "slide.features.zarr")
    found: dict[str, object] = {}
    exec(examples[0], found)
    np.testing.assert_array_equal(found["features"], features.features[features.ok])
    np.testing.assert_array_equal(found["centres"], features.grid.centres[features.ok])
    assert "napari_mcm" not in examples[0] and capsys.readouterr().out


def test_a_file_that_another_tool_writes_is_ok(examples, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written: dict[str, object] = {}
    exec(examples[1], written)
    assert "napari_mcm" not in examples[1]
    path = tmp_path / "other.features.zarr"
    assert run(verify_file(path)).what == "ok (12 rows)"
    read = read_features(path)
    np.testing.assert_array_equal(read.features, written["features"])
    assert read.grid.shape == (3, 4)


def test_page_schema_and_files_agree(tmp_path):
    page = PAGE.read_text("utf-8")
    schema = load_schema()["properties"]
    attributes, arrays = (schema[key]["properties"] for key in ("attributes", "arrays"))
    assert attributes["schema"]["const"] == SCHEMA
    assert attributes["version"]["const"] == VERSION
    assert set(arrays) == set(ARRAYS | OPTIONAL)
    assert set(schema["arrays"]["required"]) == set(ARRAYS)
    for status in Status:
        assert re.search(rf"\b{int(status)} ", arrays["status"]["description"])
    save_features(made_features(), tmp_path / "a.features.zarr")
    written = read_metadata(tmp_path / "a.features.zarr")
    assert set(written["arrays"]) == set(arrays)
    for name in [*written["arrays"], *attributes]:
        assert f"`{name}`" in page
    for array in written["arrays"].values():
        assert array["codecs"][-1] == {"name": "crc32c"}
        assert array["dimension_names"][0] == "patch"
