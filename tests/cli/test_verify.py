"""The verb verify, on what extract and convert have written."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from napari_mcm.core.features.interchange import save_features
from tests.cli.conftest import Call
from tests.core.features.made_features import made_features

ENCODER = "random:test_resnet"
GRID = ("--patch-size", "64", "--tissue-mpp", "4", "--min-object-um", "20")


@pytest.fixture
def extracted(call: Call, slide: Path, tmp_path: Path) -> Path:
    out = tmp_path / "features"
    words = ("extract", slide, "--encoder", ENCODER, "--out", out, "--block", 8)
    assert call(*words, *GRID, "--device", "cpu").status == 0
    return out / "round.features.zarr"


def test_what_extract_wrote_is_ok_and_of_its_slide(
    call: Call, extracted: Path, slide: Path
) -> None:
    answer = call("verify", extracted.parent)
    assert answer.status == 0
    assert answer.out == f"{extracted}: ok (64 rows)\n"
    answer = call("verify", extracted, "--slides", slide.parent, "--json")
    assert answer.status == 0
    (file,) = answer.json["files"]
    assert file["state"] == "ok" and file["rows"] == file["done"] == 64
    assert call("verify", extracted, "--slide", slide).status == 0


def test_a_line_a_file_and_3_where_one_is_not_ok(
    call: Call, extracted: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "features" / "bad.features.zarr"
    shutil.copytree(extracted, bad)
    part = bad / "features" / "c" / "2" / "0"
    content = bytearray(part.read_bytes())
    content[100] ^= 4
    part.write_bytes(content)
    answer = call("verify", extracted.parent, "--json")
    assert answer.status == 3
    assert (answer.json["verified"], answer.json["failed"]) == (2, 1)
    assert [f["state"] for f in answer.json["files"]] == ["damaged", "ok"]
    (line,) = [x for x in answer.err.splitlines() if x.startswith("failed: ")]
    assert line.startswith(f"failed: {bad}: damaged (features: rows 16 to 24: ")


def test_foreign_files_and_other_slides_are_refused(
    call: Call, tmp_path: Path, slide: Path
) -> None:
    alien = save_features(made_features(), tmp_path / "x.features.zarr")
    answer = call("verify", alien, "--slide", slide)
    assert answer.status == 3 and "another slide" in answer.err
    foreign = tmp_path / "x.h5"
    foreign.write_bytes(b"\x89HDF")
    answer = call("verify", foreign)
    assert answer.status == 3
    assert "is not a feature file of napari-mcm; see napari-mcm convert" in answer.err


def test_wrong_use(call: Call, tmp_path: Path, slide: Path) -> None:
    assert call("verify").status == 2
    answer = call("verify", tmp_path / "nowhere")
    assert answer.status == 2 and "no such file" in answer.error
    answer = call("verify", tmp_path)
    assert answer.status == 2 and "holds no feature files" in answer.error
    both = ("--slide", slide, "--slides", slide)
    assert call("verify", tmp_path, *both).status == 2


def test_ctrl_c_ends_it(tmp_path: Path) -> None:
    features = made_features(dim=64, rows=60, columns=50)
    for number in range(400):
        path = tmp_path / f"{number:03}.features.zarr"
        if number == 0:
            save_features(features, path)
        else:
            shutil.copytree(tmp_path / "000.features.zarr", path)
    words = [sys.executable, "-m", "napari_mcm.cli", "verify", str(tmp_path)]
    child = subprocess.Popen(
        words,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background of a script has Ctrl-C ignored, and passes it on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert child.stderr is not None
    child.stderr.readline()  # it has begun
    child.send_signal(signal.SIGINT)
    assert child.wait(timeout=30) == 130
    assert "run the same command again" in child.stderr.read()
