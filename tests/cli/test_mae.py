"""Masked autoencoders, classifiers and the ablation, from the command line."""

from __future__ import annotations

import json

import pytest

from napari_mcm.cli import main
from tests.core.cells.conftest import write_classes
from tests.core.mae.conftest import write_pictures

SMALL = ["--model", "tiny", "--image-size", "32", "--vit-patch", "8", "--depth", "1"]
CPU = ["--device", "cpu", "--precision", "float32"]


@pytest.fixture
def answer(capsys):
    """Run a verb and give its JSON."""

    def run(*words, status=0):
        assert main([*map(str, words), "--json"]) == status
        return json.loads(capsys.readouterr().out.strip().splitlines()[-1])

    return run


def test_from_pictures_to_an_ablation(answer, tmp_path):
    pictures = write_pictures(tmp_path / "pictures", 6)
    cells = write_classes(tmp_path / "cells", {"Lymphocyte": 8, "Neutrophil": 8})
    mae, classifier = tmp_path / "mae", tmp_path / "classifier"
    few = ["--steps", "2", "--batch-size", "4"]
    tiles = ["--tiles", "2"]
    done = answer("mae", "pretrain", pictures, "--out", mae, *SMALL, *few, *tiles, *CPU)
    assert (done["images"], done["steps"]) == (24, 2)
    assert answer("mae", "pretrain", "--resume", mae)["steps"] == 2

    ratios = ["--mask-ratio", "0.5", "--mask-ratio", "0.75"]
    figure = tmp_path / "look.png"
    done = answer("mae", "reconstruct", mae, pictures, *ratios, "--out", figure, *CPU)
    assert set(done["errors"]) == {"0.5", "0.75"} and figure.is_file()

    start = ["--init", f"mae:{mae}"]
    done = answer("classify", "train", cells, "--out", classifier, *start, *few, *CPU)
    assert done["classes"] == ["Lymphocyte", "Neutrophil"]
    done = answer("classify", "evaluate", classifier, cells, *CPU)
    assert done["images"] == 16 and done["majority"]["accuracy"] == 0.5
    (cells / "Neutrophil" / "damaged.png").write_text("no picture")
    done = answer("classify", "predict", classifier, cells, *CPU, status=3)
    assert len(done["predictions"]) == 16

    (cells / "Neutrophil" / "damaged.png").unlink()
    arms = ["--arms", "scratch", "--arms", f"mae:{mae}", "--percent", "50"]
    table = tmp_path / "ablation"
    done = answer("ablate", cells, "--out", table, *arms, "--seeds", "1", *few, *CPU)
    assert done["cells"] == 2 and (table / "ablation.md").is_file()


@pytest.mark.parametrize("verb", ["mae pretrain", "classify train", "ablate"])
def test_what_is_missing_is_said_in_a_line(capsys, tmp_path, verb):
    assert main([*verb.split(), str(tmp_path / "nothing"), "--out", str(tmp_path)]) == 2
    assert "nothing" in capsys.readouterr().err
