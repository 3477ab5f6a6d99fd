"""The verb atlas."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from napari_mcm.cli.app import main
from napari_mcm.core.features.interchange.formats import save_features
from tests.core.atlas.test_atlas import features_of


def test_an_atlas_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        save_features(features_of(name), tmp_path / f"{name}.features.zarr")
    out = tmp_path / "out"
    words = ["atlas", str(tmp_path), "--out", str(out), "--clusters", "3", "--json"]
    assert main(words) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["patches"] == result["available"] == 358
    assert result["slides"] == ["a", "b"]
    assert sum(result["clusters"]) == 358
    assert result["clusters"] == sorted(result["clusters"], reverse=True)
    assert all(Path(file).exists() for file in result["files"])


def test_a_folder_to_write_to_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["atlas", str(tmp_path)]) == 2
    assert "--out: give a folder to write to" in capsys.readouterr().err
