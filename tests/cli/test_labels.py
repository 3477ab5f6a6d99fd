"""Labels and classifiers of patches on the command line, from regions to areas."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from napari_mcm.cli.app import main
from napari_mcm.core.evaluation.config import EvaluateConfig
from napari_mcm.core.features.interchange.formats import save_features
from napari_mcm.core.labelling import read_labels, write_labels
from napari_mcm.core.studies.study_config import StudySlide
from napari_mcm.core.studies.study_evaluation import _labels
from tests.core.labelling.made_labels import label_rows, make_features


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give features of two slides, and regions of one."""
    for name in ("s1", "s2"):
        features = make_features(name, noise=0.5)
        save_features(features, tmp_path / "features" / f"{name}.features.zarr")
    drawn = [region(0, 0, 400, 400, "tumour"), region(500, 0, 900, 400, "stroma")]
    (tmp_path / "s1.geojson").write_text(json.dumps(drawn))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def region(left: int, top: int, right: int, bottom: int, name: str) -> dict:
    """Give an annotation as QuPath exports it."""
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", "classification": {"name": name}},
    }


def answer(line: str, capsys: pytest.CaptureFixture[str], status: int = 0) -> dict:
    """Run a verb and return its JSON."""
    capsys.readouterr()
    assert main([*line.split(), "--json"]) == status
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_from_regions_to_areas_without_a_window(folder: Path, capsys) -> None:
    one = "features/s1.features.zarr"
    line = f"labels import s1.geojson --features {one} --out a.labels.json --author bo"
    found = answer(line, capsys)
    assert found["counts"] == {"stroma": 16, "tumour": 16}
    line = "labels train a.labels.json features --out a.classifier.safetensors"
    found = answer(line, capsys)
    assert found["calibrated"] is True
    assert found["counts"] == {"stroma": 16, "tumour": 16}
    assert found["held_out"]["mean"] == 1
    assert found["held_out"]["by_slide"] is False
    line = "classify patches a.classifier.safetensors features --out areas --write csv"
    found = answer(line, capsys)
    assert sorted(found["slides"]) == ["slide s1", "slide s2"]
    total = found["total"]
    assert list(total) == ["stroma", "tumour", "unsure"]
    # Two slides of 180 patches of 0.05 mm.
    area = sum(one["mm2"] for one in total.values())
    assert area == pytest.approx(2 * 180 * 0.05**2)
    assert len(found["files"]) == 2
    assert main(line.split()) == 0
    printed = capsys.readouterr().out
    assert "all slides" in printed
    assert "resumed  2 slides" in printed


def test_disagreements_are_listed(folder: Path, capsys) -> None:
    features = make_features("s1")
    ada = label_rows(features, np.arange(10))
    bo = ada.without_class("fat").rename_class("tumour", "stroma")
    write_labels(folder / "ada.labels.json", ada)
    write_labels(folder / "bo.labels.json", bo)
    line = "labels merge ada.labels.json bo.labels.json --out both.labels.json"
    found = answer(f"{line} --disagreements d.csv", capsys)
    assert found["labels"] == 5
    assert len(found["disagreements"]) == 5
    assert {one["chosen"] for one in found["disagreements"]} == {None}
    assert len((folder / "d.csv").read_text().splitlines()) == 1 + 2 * 5
    assert read_labels(folder / "both.labels.json").counts()["stroma"] == 5
    assert main(["labels", "merge", "ada.labels.json", "--out", "x.json"]) == 2
    assert "two label files or more" in capsys.readouterr().err


def test_evaluate_takes_the_labels_as_they_are(folder: Path, capsys) -> None:
    labels = None
    for name in ("s1", "s2"):
        labels = label_rows(
            make_features(name, noise=0.5), np.arange(0, 180, 2), labels
        )
    assert labels is not None
    write_labels(folder / "a.labels.json", labels)
    line = "evaluate --features made=features --labels a.labels.json --out evaluation"
    found = answer(f"{line} --few-shot 5 --draws 2 --resamples 100", capsys)
    assert found["classes"] == {"fat": 60, "stroma": 60, "tumour": 60}


def test_a_study_takes_a_label_file(folder: Path) -> None:
    features = make_features("s1")
    rows = np.array([0, 5, 77])
    path = write_labels(folder / "a.labels.json", label_rows(features, rows))
    slide = StudySlide(slide=Path("s1.svs"), labels=path)
    named = _labels(slide, features, EvaluateConfig())
    assert {row: name for row, name in enumerate(named) if name} == {
        0: "tumour",
        5: "stroma",
        77: "tumour",
    }


def test_a_wrong_encoder_is_one_line_and_status_three(folder: Path, capsys) -> None:
    features = make_features("s1", noise=0.5)
    write_labels(folder / "a.labels.json", label_rows(features, np.arange(0, 180, 5)))
    assert (
        main(["labels", "train", "a.labels.json", "features", "--out", "a.safetensors"])
        == 0
    )
    other = make_features("s3")
    other.encoder["fingerprint"] = "f" * 16
    save_features(other, folder / "s3.features.zarr")
    line = "classify patches a.safetensors features s3.features.zarr --out areas"
    capsys.readouterr()
    assert main(line.split()) == 3
    (failed,) = [
        line for line in capsys.readouterr().err.splitlines() if "failed:" in line
    ]
    assert "has features of another encoder" in failed
