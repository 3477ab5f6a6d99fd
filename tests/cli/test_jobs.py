"""The long verbs, on one small slide with random weights: nothing is downloaded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Answer, Call

ENCODER = "random:test_resnet"
GRID = (
    *("--patch-size", "64", "--tissue-mpp", "4"),
    *("--min-object-um", "20", "--max-hole-um", "20"),
)
COMPUTE = ("--device", "cpu", "--precision", "float32")
SMALL = (
    *("--student", ENCODER, "--teacher", ENCODER, "--s", "2", "--width", "32"),
    *("--depth", "1", "--heads", "2", "--predictor-width", "32"),
    *("--batch-windows", "2", "--head-epochs", "1", "--head-windows", "8"),
    *(*GRID, *COMPUTE),
)


@pytest.fixture
def extracted(call: Call, slide: Path, tmp_path: Path) -> Answer:
    """Give what `extract` says of the slide."""
    return call(
        *("extract", slide, "--encoder", ENCODER, "--out", tmp_path / "features"),
        *(*GRID, *COMPUTE, "--json"),
    )


def test_extract_writes_a_file_a_slide(extracted: Answer) -> None:
    assert extracted.status == 0
    result = extracted.json
    assert result["slides"] == 1
    assert result["patches"] == 32
    assert result["failed"] == []
    (file,) = result["files"]
    assert Path(file).name == "round.features.zarr"
    assert Path(file).exists()
    assert extracted.out.count("\n") == 1


def test_extract_ends_with_3_where_a_slide_failed(
    call: Call, slide: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.svs"
    broken.write_bytes(b"no slide")
    answer = call(
        *("extract", slide, broken, "--encoder", ENCODER, "--out", tmp_path / "f"),
        *(*GRID, *COMPUTE, "--json"),
    )
    assert answer.status == 3
    assert len(answer.json["files"]) == 1
    assert "broken" in answer.json["failed"][0]
    assert "failed: " in answer.err


def test_extract_of_an_unknown_encoder_is_one_line(
    call: Call, slide: Path, tmp_path: Path
) -> None:
    words = ("--encoder", "no_such_net", "--out", tmp_path)
    answer = call("extract", slide, *words)
    assert answer.status == 1
    assert "no_such_net" in answer.error


@pytest.mark.parametrize("ending", ["png", "ome.tif", "geojson"])
def test_similarity_writes_what_the_ending_says(
    call: Call, extracted: Answer, slide: Path, tmp_path: Path, ending: str
) -> None:
    out = tmp_path / f"similar.{ending}"
    answer = call(
        *("similarity", extracted.json["files"][0], "--at", "250,250"),
        *("--slide", slide, "--out", out, "--json"),
    )
    assert answer.status == 0
    assert answer.json["file"] == str(out)
    assert -1 <= answer.json["min"] < answer.json["max"] <= 1
    assert isinstance(answer.json["query_index"], int)
    assert out.stat().st_size > 0


def test_similarity_to_several_and_away_from_others(
    call: Call, extracted: Answer, tmp_path: Path
) -> None:
    answer = call(
        *("similarity", extracted.json["files"][0], "--at", "200,200", "--at"),
        *("250,250", "--not-at", "300,300", "--limits", "robust"),
        *("--out", tmp_path / "a.geojson", "--json"),
    )
    assert answer.status == 0
    assert len(answer.json["queries"]) == 2
    assert len(answer.json["against"]) == 1
    assert answer.json["limits"] != [-1.0, 1.0]


def test_two_encoders_are_compared(
    call: Call, extracted: Answer, slide: Path, tmp_path: Path
) -> None:
    file = extracted.json["files"][0]
    other = call(
        *("extract", slide, "--encoder", "random:test_vit", "--out", tmp_path),
        *(*GRID, *COMPUTE, "--json"),
    ).json["files"][0]
    words = ("--at", "250,250", "--limits", "encoder", "--json")
    answer = call(
        *("similarity", file, "--before", other, *words),
        *("--out", tmp_path / "a.geojson"),
    )
    assert answer.status == 0 and answer.json["min"] < 0 < answer.json["max"]
    same = call(
        *("similarity", file, "--before", file, *words),
        *("--out", tmp_path / "b.geojson"),
    )
    assert (same.json["min"], same.json["max"]) == (0, 0)


def test_a_saved_query_gives_the_same_map(
    call: Call, extracted: Answer, tmp_path: Path
) -> None:
    file, query = extracted.json["files"][0], tmp_path / "a.query.json"
    first = call(
        *("similarity", file, "--at", "200,200", "--not-at", "300,300"),
        *("--save-query", query, "--out", tmp_path / "a.geojson", "--json"),
    )
    middle = (first.json["min"] + first.json["max"]) / 2
    again = call(
        *("similarity", file, "--query", query, "--above", str(middle)),
        *("--out", tmp_path / "b.geojson", "--json"),
    )
    assert (first.status, again.status) == (0, 0)
    assert again.json["query_index"] == first.json["query_index"]
    assert again.json["min"] == pytest.approx(first.json["min"], abs=1e-5)
    kept = json.loads((tmp_path / "b.geojson").read_text())["features"]
    whole = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert 0 < len(kept) == again.json["patches_above"] < len(whole)
    assert again.json["area_mm2"] > 0


def test_a_map_says_its_context_and_a_query_keeps_it(
    call: Call, extracted: Answer, tmp_path: Path
) -> None:
    file, query = extracted.json["files"][0], tmp_path / "a.query.json"
    words = ("similarity", file, "--out", tmp_path / "a.geojson", "--json")
    point = ("--at", "250,250")
    usual = call(*words, *point, "--save-query", query)
    assert usual.json["context"] == 1
    tiles = json.loads((tmp_path / "a.geojson").read_text())["features"]
    name = next(iter(tiles[0]["properties"]["measurements"]))
    assert name.endswith("context 3 × 3")
    found = {
        radius: call(*words, *point, "--context", str(radius)).json
        for radius in range(4)
    }
    assert found[1]["min"] == usual.json["min"]
    assert len({one["min"] for one in found.values()}) == 4
    weighted = call(*words, *point, "--context-weights", "distance").json
    assert weighted["context"] == 1 and weighted["min"] != found[1]["min"]
    call(*words, *point, "--context", "2", "--save-query", query)
    again = call(*words, "--query", query)
    assert again.json["context"] == 2
    assert again.json["min"] == pytest.approx(found[2]["min"], abs=1e-6)
    clash = call(*words, "--query", query, "--context", "0")
    assert clash.status == 2
    assert "was made with context 5 × 5, not patch" in clash.error
    assert len(clash.error.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "words", [(), ("--at", "200,200", "--query", "a"), ("--query", "a", "--pool", "x")]
)
def test_a_query_is_given_in_one_way(
    call: Call, extracted: Answer, tmp_path: Path, words: tuple[str, ...]
) -> None:
    file = extracted.json["files"][0]
    answer = call("similarity", file, *words, "--out", tmp_path / "a.png")
    assert answer.status == 2 and answer.error


def test_similarity_off_the_tissue_is_one_line(
    call: Call, extracted: Answer, tmp_path: Path
) -> None:
    words = ("--at", "1,1", "--out", tmp_path / "a.png")
    answer = call("similarity", extracted.json["files"][0], *words)
    assert answer.status == 1
    assert "there is no patch at 1,1" in answer.error


def test_similarity_refuses_another_slide(
    call: Call, extracted: Answer, tmp_path: Path
) -> None:
    call("sample", "--out", tmp_path / "s", "--slides", "1", "--size", "640")
    other = tmp_path / "s" / "slide_00.ome.tif"
    answer = call(
        *("similarity", extracted.json["files"][0], "--at", "250,250"),
        *("--slide", other, "--out", tmp_path / "a.png"),
    )
    assert answer.status == 1
    assert "another slide" in answer.error


def test_finetune_and_again_from_its_configuration(
    call: Call, slide: Path, tmp_path: Path
) -> None:
    first = call("finetune", slide, *SMALL, "--out", tmp_path / "a", "--json")
    assert first.status == 0
    result = first.json
    for key in ("run_dir", "encoder", "loss_first", "loss_last", "patches_per_s"):
        assert result[key] is not None
    assert Path(result["encoder"]).is_dir()
    file = tmp_path / "a" / "config.json"
    again = call("finetune", "--config", file, "--out", tmp_path / "b", "--json")
    assert again.status == 0
    one, two = (
        json.loads((tmp_path / run / "config.json").read_text()) for run in "ab"
    )
    assert one | {"out": None} == two | {"out": None}
    assert again.json["loss_last"] == result["loss_last"]


def test_a_run_is_never_overwritten(call: Call, slide: Path, tmp_path: Path) -> None:
    words = ("finetune", slide, *SMALL, "--out", tmp_path / "a")
    assert call(*words).status == 0
    answer = call(*words)
    assert answer.status == 1
    assert "--resume" in answer.error


def test_resume_takes_no_other_options(call: Call, tmp_path: Path) -> None:
    answer = call("finetune", "--resume", tmp_path, "--s", "3")
    assert answer.status == 2
    assert "context" in answer.error


def test_resume_of_nothing_is_one_line(call: Call, tmp_path: Path) -> None:
    answer = call("finetune", "--resume", tmp_path / "none")
    assert answer.status == 1
    assert "no run directory" in answer.error


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
def test_a_polite_kill_leaves_a_run_to_go_on_with(
    call: Call, slide: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    words = ["finetune", str(slide), *SMALL, "--epochs", "400", "--out", str(out)]
    # A kill amid an update leaves the checkpoint before it: there should be one.
    words += ["--checkpoint-seconds", "0"]
    with subprocess.Popen(
        [sys.executable, "-m", "napari_mcm.cli", *words],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if "loss" in line and (out / "checkpoint").is_dir():
                process.send_signal(signal.SIGTERM)
                break
        said += process.stderr.readlines()
    assert process.returncode == 130, said
    assert said[-1] == f"cancelled; resume with napari-mcm finetune --resume {out}\n"
    assert (out / "checkpoint").is_dir()


def test_demo_clicks_in_two_generated_sections(call: Call, tmp_path: Path) -> None:
    answer = call(
        *("demo", "--out", tmp_path / "demo", "--fast", "--windows", "1"),
        *("--student", ENCODER, "--teacher", ENCODER, *COMPUTE, "--json"),
    )
    assert answer.status == 0, answer.err
    clicks = answer.json["metrics"]["click_test"]
    assert clicks["queries"] > 20
    # A patch is 112 µm wide; the truth lies beside the sections.
    assert clicks["registration_error_um"] < 56
    assert (tmp_path / "demo" / "sample" / "slide_00_to_01.json").is_file()
    # Student and teacher are one encoder here; the fine-tuned one is another.
    encoders = clicks["encoders"]
    assert set(encoders) == {"before", "after", "teacher"}
    assert encoders["before"] == encoders["teacher"]
    for radius in ("0", "1"):
        found = encoders["after"][radius]
        assert 0 <= found["near_1"] <= found["recall_1"] <= found["recall_10"] <= 1
        # After less before, query by query, within its interval over squares.
        gain, low, high = clicks["gain"][radius]
        less = found["recall_1"] - encoders["before"][radius]["recall_1"]
        assert gain == pytest.approx(less, abs=1e-9) and low <= gain <= high
    page = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert f"{clicks['queries']} patches of the first section" in page
    assert f"{clicks['gain']['1'][0]:+.2f}, 95 % interval" in page
    # The sections vary from place to place, as the option asks.
    written = (tmp_path / "demo" / "sample" / "sample.json").read_text()
    assert json.loads(written)["varied"] is True


def test_demo_does_the_whole_main_job(call: Call, slide: Path, tmp_path: Path) -> None:
    call("sample", "--out", tmp_path / "s", "--slides", "1", "--size", "1280")
    answer = call(
        *("demo", "--out", tmp_path / "demo", "--windows", "2", "--student", ENCODER),
        *("--teacher", ENCODER, "--slide", tmp_path / "s" / "slide_00.ome.tif"),
        *(*COMPUTE, "--json"),
    )
    assert answer.status == 0, answer.err
    result = answer.json
    assert Path(result["report"]).name == "report.html"
    assert Path(result["run_dir"]) == tmp_path / "demo"
    assert all(Path(figure).is_file() for figure in result["figures"])
    assert result["seconds"] > 0
    assert {"loss_first", "loss_last"} <= set(result["metrics"])
