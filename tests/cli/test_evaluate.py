"""The evaluation as a person calls it."""

from __future__ import annotations

import shutil

import pytest

from tests.core.evaluation.conftest import study

__all__ = ["study"]

QUICK = ("--draws", 3, "--resamples", 200)


@pytest.fixture(autouse=True)
def no_figure(monkeypatch):
    monkeypatch.setattr("napari_mcm.core.evaluation.figure.save_figure", lambda *_: 0)
    monkeypatch.setattr("napari_mcm.core.evaluation.figure.draw_evaluation", str)


def test_encoders_stand_side_by_side(call, study):
    folder = study()
    words = ["--features", folder / "weak", "--features", f"best={folder / 'strong'}"]
    words += ["--labels", folder / "labels", "--out", folder / "out", *QUICK]
    answer = call("evaluate", *words, "--json")
    assert answer.status == 0
    assert answer.json["encoders"] == ["weak", "best"]
    assert answer.json["files"][0].endswith("evaluation.json")
    first = answer.json["measures"][1]
    assert first["encoder"] == "best" and first["difference"] > 0
    shown = call("evaluate", *words).out
    assert "best - weak" in shown
    (line,) = [x for x in shown.splitlines() if x.startswith("few-shot AUROC ")]
    assert f"{first['value']:.3f}" in line and f"{first['difference']:+.3f}" in line
    assert "too narrow" in shown and "balanced accuracy 0.500" in shown


def test_what_is_missing_is_told_in_a_line(call, study):
    folder = study(slides=2)
    answer = call("evaluate", "--out", folder / "out")
    assert answer.status == 2 and "nothing to compare" in answer.error
    words = ["--features", folder / "weak", "--labels", folder, "--out", folder / "out"]
    answer = call("evaluate", *words)
    assert answer.status == 2 and "holds no *.geojson or *.csv" in answer.error


def test_serial_sections_need_two_different_slides(call, tmp_path, write_serial_slide):
    one = write_serial_slide("one")
    words = ("--serial", "--encoder", "offline:efficientnet_lite0", "--out", tmp_path)
    answer = call("evaluate", one, *words)
    assert answer.status == 2 and "needs two slides, not 1" in answer.error
    copy = shutil.copy(one, tmp_path / "copy.ome.tif")
    answer = call("evaluate", one, copy, *words)
    assert answer.status == 2 and "are the same slide" in answer.error
    answer = call("evaluate", one, tmp_path / "none.tif", *words)
    assert answer.status == 1 and "no such file" in answer.error
    blind = write_serial_slide("blind", seed=2, mpp=None)
    answer = call("evaluate", one, blind, *words)
    assert answer.status == 1 and "states no physical resolution" in answer.error


@pytest.fixture
def write_serial_slide(tmp_path):
    """Write a slide of tissue that no other seed resembles."""

    def write(name, seed=0, mpp=4.0):
        from tests.core.conftest import stained_image, write_pyramid

        path = tmp_path / f"{name}.ome.tif"
        return write_pyramid(path, stained_image(900, 900, seed), mpp)

    return write
