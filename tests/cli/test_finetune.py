"""What finetune says of a preset, and of what it kept out."""

from __future__ import annotations

import json

from napari_mcm.cli.app import main
from napari_mcm.cli.finetune import preset_lines
from napari_mcm.core.mcm import FinetuneConfig


def test_a_preset_says_what_it_set_and_what_was_given_instead():
    config = FinetuneConfig(preset="paper", optimiser={"batch_norm": "frozen"})
    (line,) = preset_lines(config)
    assert line.startswith("preset paper: ")
    assert "--target-norm none" in line and "--start-at-median no" in line
    assert "--batch-norm frozen (given, not train)" in line
    assert preset_lines(FinetuneConfig()) == []


def test_a_preset_on_the_line(tmp_path, capsys, monkeypatch):
    import tifffile

    from tests.core.conftest import stained_image

    slide = tmp_path / "slide.tif"
    # 10,000 pixels a centimetre are 1 µm each.
    tifffile.imwrite(
        slide,
        stained_image(700, 600),
        tile=(256, 256),
        photometric="rgb",
        resolution=(10_000, 10_000),
        resolutionunit="CENTIMETER",
    )
    words = [
        "finetune",
        str(slide),
        "--preset",
        "distill",
        "--out",
        str(tmp_path / "r"),
    ]
    words += ["--student", "random:test_efficientnet", "--patch-size", "32"]
    words += ["--teacher", "random:test_resnet", "--mpp", "1", "--mpp-override", "1"]
    words += ["--tissue-mpp", "4", "--validation", "0.2", "--json"]
    assert main(words) == 0
    said = capsys.readouterr()
    assert "preset distill: --context-mode none" in said.err
    assert "held out" in said.err
    found = json.loads(said.out.splitlines()[-1])["held_out"]
    assert found["windows"] > 0 and found["loss"] > 0
    config = json.loads((tmp_path / "r" / "config.json").read_text())
    assert config["context"]["context_mode"] == "none"
