"""The verb convert: features to other tools, and from them to our own verbs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from napari_mcm.core.features import read_features
from napari_mcm.core.features.interchange import save_features
from tests.cli.conftest import MPP, Call
from tests.core.features.interchange import foreign_files as files
from tests.core.features.interchange.foreign_files import corners, numbers, ours

XY = corners(4, 4, step=128, left=0, top=0)
FEATURES = numbers(len(XY))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("trident", "x.h5"),
        ("clam", "x.h5"),
        ("stamp", "x.h5"),
        ("anndata", "x.h5ad"),
        ("geojson", "x.geojson"),
        ("trident", "folder"),
    ],
)
def test_features_go_out(call: Call, tmp_path: Path, kind: str, name: str) -> None:
    features = save_features(ours(), tmp_path / "case 1.features.zarr")
    answer = call("convert", features, "--to", kind, "--out", tmp_path / name, "--json")
    assert answer.status == 0
    assert answer.json["patches"] == int(ours().ok.sum())
    assert answer.json["left_out"] == 2 and "2 of" in answer.err
    assert Path(answer.json["file"]).is_file()


def test_another_tool_s_features_are_looked_at(
    call: Call, slide: Path, tmp_path: Path
) -> None:
    path = files.trident(tmp_path / "x.h5", XY, FEATURES, 64, 128)
    out = tmp_path / "round.features.zarr"
    words = ("convert", path, "--from", "auto", "--slide", slide, "--out", out)
    answer = call(*words, "--json")
    assert answer.status == 0
    assert answer.json["patches"] == len(XY) and answer.json["slide"] == "round"
    found = read_features(out)
    assert np.array_equal(found.features, FEATURES)
    assert found.grid.slide["mpp"] == [MPP, MPP]
    picture = tmp_path / "map.geojson"
    shown = call(
        *("similarity", out, "--at", "300,300", "--out", picture, "--slide", slide),
        "--json",
    )
    assert shown.status == 0 and "another file" not in shown.err
    assert len(json.loads(picture.read_text())["features"]) == len(XY)
    assert call(*words).status == 0


def test_one_tool_s_features_for_another(call: Call, tmp_path: Path) -> None:
    path = files.stamp(tmp_path / "case 1.h5", XY, FEATURES, level0=128)
    out = tmp_path / "out.h5"
    answer = call("convert", path, "--mpp", 0.25, "--to", "trident", "--out", out)
    assert answer.status == 0 and "15 patches" in answer.out
    out = tmp_path / "a.features.zarr"
    assert call("convert", tmp_path / "out.h5", "--out", out).status == 0
    assert np.array_equal(read_features(out).grid.xy, XY)


def test_what_is_missing_is_named_by_its_option(
    call: Call, slide_without_mpp: Path, slide: Path, tmp_path: Path
) -> None:
    path = files.clam(tmp_path / "x.h5", XY, FEATURES)
    words = ("convert", path, "--out", tmp_path / "x.features.zarr")
    answer = call(*words)
    assert answer.status == 1 and "--slide" in answer.error and "--mpp" in answer.error
    answer = call(*words, "--slide", slide)
    assert answer.status == 1 and "--patch-size-level0" in answer.error
    answer = call(*words, "--slide", slide_without_mpp)
    assert answer.status == 1 and "--mpp" in answer.error
    more = ("--patch-size-level0", 128, "--mpp", 0.5)
    assert call(*words, "--slide", slide_without_mpp, *more).status == 0


def test_wrong_use(call: Call, tmp_path: Path) -> None:
    path = files.trident(tmp_path / "x.h5", XY, FEATURES)
    answer = call("convert", path, "--out", tmp_path / "x.zarr")
    assert answer.status == 2 and ".features.zarr" in answer.error
    answer = call("convert", path, "--from", "matlab", "--out", tmp_path / "x")
    assert answer.status == 2 and "--from" in answer.error
    answer = call("convert", path, "--from", "stamp", "--to", "clam", "--out", "x.h5")
    assert answer.status == 1 and "feats" in answer.error
    answer = call("convert", tmp_path / "no.h5", "--to", "clam", "--out", "x.h5")
    assert answer.status == 1 and "no.h5: no such file" in answer.error
