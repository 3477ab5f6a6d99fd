"""A slide that models or their encoder were trained on is known under any name."""

from __future__ import annotations

import json

import pytest

from napari_mcm.core.features.interchange import read_foreign, save_features
from napari_mcm.core.mil.config import PredictConfig
from napari_mcm.core.mil.predict import predict
from napari_mcm.core.mil.seen import SLIDES_FILE, find_trained_on
from napari_mcm.core.mil.slide_prediction import predict_slide
from napari_mcm.core.mil.train import prepare
from napari_mcm.core.runtime.jobs import Note, run
from tests.core.mil.conftest import ENCODER, draw_bag, make_features, write_cohort


def warnings_of(job):
    events = []
    run(job, events.append)
    return [e.text for e in events if isinstance(e, Note) and e.level == "warning"]


def write_as(folder, name, content, encoder=None):
    """Write features of a slide with the content of another one."""
    features = make_features(draw_bag(0, 2), name, encoder=encoder)
    features.grid.slide["fingerprint"] = f"f-{content}"
    folder.mkdir(exist_ok=True)
    save_features(features, folder / f"{name}.features.zarr")
    return folder


def test_a_renamed_slide_of_the_training_set_is_known(finished, tmp_path):
    run_dir = finished[0].run_dir
    copied = write_as(tmp_path / "copied", "renamed", "s02")
    asked = PredictConfig(run=run_dir, features=copied)
    (warning,) = warnings_of(predict(asked))
    assert warning.startswith("1 of 1 slides were in the training set")
    fresh = write_as(tmp_path / "fresh", "new", "of nobody")
    assert warnings_of(predict(PredictConfig(run=run_dir, features=fresh))) == []
    features = read_foreign(copied / "renamed.features.zarr")
    events = []
    prediction, _ = run(
        predict_slide(run_dir, "renamed", features, copied), events.append
    )
    assert not prediction.unseen


def test_slides_of_other_folds_were_not_trained_on(finished):
    run_dir = finished[0].run_dir
    folds = json.loads((run_dir / "folds.json").read_text())["folds"]
    for fold in folds:
        tested = {f"copy of {slide}": f"f-{slide}" for slide in fold["test"]}
        assert find_trained_on(run_dir, [fold["name"]], tested) == set()
        trained = {f"copy of {slide}": f"f-{slide}" for slide in fold["train"]}
        assert find_trained_on(run_dir, [fold["name"]], trained) == set(trained)


def test_a_run_of_an_earlier_version_goes_by_names(finished, tmp_path, monkeypatch):
    run_dir = finished[0].run_dir
    monkeypatch.setattr("napari_mcm.core.mil.seen.SLIDES_FILE", "not there")
    assert find_trained_on(run_dir, ["0", "1"], {"s02": "", "copy": "f-s02"}) == {"s02"}
    assert (run_dir / SLIDES_FILE).is_file()


@pytest.fixture
def tuned():
    record = {"slides": {"f-s02": "s02", "f-s03": "s03"}, "probes": {}}
    return {**ENCODER, "learned_from": record}


def test_training_and_prediction_warn_of_the_encoders_slides(
    config, tuned, finished, tmp_path
):
    assert [w for w in warnings_of(prepare(config)) if "flatter" in w] == []
    table, folder = write_cohort(tmp_path)
    for number in range(24):
        name = f"s{number:02d}"
        file = folder / f"{name}.features.zarr" / "zarr.json"
        content = json.loads(file.read_text())
        content["attributes"]["encoder"] |= {"learned_from": tuned["learned_from"]}
        file.write_text(json.dumps(content))
    asked = config.model_copy(update={"cohort": table, "features": folder})
    expected = (
        "slides s02, s03 are in the training set of encoder tiny: figures on them flatter "
        "the encoder"
    )
    assert [w for w in warnings_of(prepare(asked)) if "flatter" in w] == [expected]
    copied = write_as(tmp_path / "copied", "renamed", "s03", tuned)
    run_dir = finished[0].run_dir
    found = warnings_of(predict(PredictConfig(run=run_dir, features=copied)))
    assert found[-1].startswith("slide renamed is in the training set of encoder tiny")
    features = read_foreign(copied / "renamed.features.zarr")
    found = warnings_of(predict_slide(run_dir, "renamed", features, copied))
    assert found[-1].startswith("slide renamed is in the training set of encoder tiny")
