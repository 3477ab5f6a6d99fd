"""Slide classifiers on features of a patch together with the tissue around it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from napari_mcm.cli.app import main
from napari_mcm.core.errors import ConfigError, FeatureError, RunError
from napari_mcm.core.features.feature_set import (
    FeatureSet,
    NeighbourhoodConfig,
    Status,
)
from napari_mcm.core.features.interchange import (
    read_foreign,
    save_features,
    write_foreign,
)
from napari_mcm.core.features.neighbourhood import average_neighbourhood
from napari_mcm.core.mil import results
from napari_mcm.core.mil.attention import attention
from napari_mcm.core.mil.bags import FeatureFolder, FeatureSource
from napari_mcm.core.mil.compare import compare
from napari_mcm.core.mil.config import (
    AttentionConfig,
    CompareConfig,
    FiguresConfig,
    MilConfig,
    PredictConfig,
    RunNeighbourhoodConfig,
)
from napari_mcm.core.mil.ensemble import load_ensemble
from napari_mcm.core.mil.predict import predict
from napari_mcm.core.mil.slide_prediction import predict_slide
from napari_mcm.core.mil.train import resume_train, train
from napari_mcm.core.runtime.jobs import run
from tests.core.mil.conftest import draw_bag, make_config, make_features

SQUARE, WIDE = NeighbourhoodConfig(radius=1), NeighbourhoodConfig(radius=2)


@pytest.fixture(autouse=True)
def no_plots(monkeypatch):
    """Plots take longer than the training."""
    monkeypatch.setattr(results, "write_plots", lambda *_: [])


@pytest.fixture(scope="module")
def wide_run(cohort_files, tmp_path_factory):
    """A run of radius 1, and what it found."""
    config = make_config(cohort_files, tmp_path_factory.mktemp("wide") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "write_plots", lambda *_: [])
        return run(train(config.model_copy(update={"neighbourhood": SQUARE})))


def means(features, radius=1):
    """The plain mean over the square around each patch, one patch after the other."""
    at = {tuple(place): row for row, place in enumerate(features.grid.lattice)}
    steps = range(-radius, radius + 1)
    found = []
    for row in np.flatnonzero(features.ok):
        y, x = features.grid.lattice[row]
        around = [at.get((y + i, x + j)) for i in steps for j in steps]
        there = [i for i in around if i is not None and features.ok[i]]
        found.append(features.features[there].astype(np.float64).mean(axis=0))
    return np.asarray(found)


def with_a_hole(name="A"):
    whole = make_features(draw_bag(1, 1, 20), name)
    status, vectors = whole.status.copy(), whole.features.copy()
    status[4], vectors[4] = Status.BLANK, np.nan
    return FeatureSet(vectors, whole.grid, status, whole.encoder)


@pytest.mark.parametrize("kept_as", ["float32", "float16"])
def test_bags_are_averaged_while_they_are_read(tmp_path, kept_as):
    features = with_a_hole()
    save_features(features, tmp_path / "A.features.zarr")
    config = make_config((tmp_path, tmp_path), tmp_path).bags.model_copy(
        update={"kept_as": kept_as}
    )
    folder = FeatureFolder(tmp_path, config, SQUARE)
    found = folder.read("A")
    assert found.dtype == kept_as and folder.origin.neighbourhood == SQUARE
    atol = 1e-6 if kept_as == "float32" else 4e-3
    np.testing.assert_allclose(found, means(features), rtol=0, atol=atol)
    assert folder.read("A") is found
    # Another neighbourhood has bags of its own, and the files stay as they were.
    np.testing.assert_array_equal(
        FeatureFolder(tmp_path).read("A"), features.features[features.ok]
    )


def test_a_run_records_its_neighbourhood(wide_run, capsys):
    recorded = {"radius": 1, "weights": "uniform"}
    assert wide_run.neighbourhood == SQUARE
    path = wide_run.run_dir
    for file in (path / "folds.json", *path.glob("models/*/recipe.json")):
        assert json.loads(file.read_text())["features"]["neighbourhood"] == recorded
    assert json.loads((path / "summary.json").read_text())["neighbourhood"] == recorded
    assert json.loads((path / "config.json").read_text())["neighbourhood"] == recorded
    assert run(resume_train(path)).neighbourhood == SQUARE
    assert main(["mil", "train", "--resume", str(path)]) == 0
    assert "covers  3 × 3 patches" in capsys.readouterr().out


def test_runs_of_single_patches_are_recorded_as_before(finished):
    path = finished[0].run_dir
    assert finished[0].neighbourhood.radius == 0
    for file in (path / "folds.json", *path.glob("models/*/recipe.json")):
        source = json.loads(file.read_text())["features"]
        assert set(source) == {"dim", "encoder", "fingerprint"}
        assert FeatureSource.from_description(source).neighbourhood.radius == 0


def test_a_run_of_an_earlier_version_is_of_single_patches(
    finished, cohort_files, tmp_path
):
    old = tmp_path / "old"
    shutil.copytree(finished[0].run_dir, old)
    for name in ("config.json", "summary.json"):
        content = json.loads((old / name).read_text())
        del content["neighbourhood"]
        (old / name).write_text(json.dumps(content))
    assert run(resume_train(old)).neighbourhood == NeighbourhoodConfig()
    asked = PredictConfig(run=old, features=cohort_files[1])
    done = run(predict(asked))
    assert done.neighbourhood.radius == 0
    again = run(predict(asked.model_copy(update={"run": finished[0].run_dir})))
    np.testing.assert_array_equal(done.probabilities, again.probabilities)


def test_prediction_uses_the_neighbourhood_of_the_run(wide_run, cohort_files):
    _, folder = cohort_files
    done = run(predict(PredictConfig(run=wide_run.run_dir, features=folder)))
    assert done.neighbourhood == SQUARE
    ensemble = load_ensemble(wide_run.run_dir)
    for slide, found in zip(done.slides, done.probabilities, strict=True):
        features = read_foreign(folder / f"{slide}.features.zarr")
        wanted = run(ensemble.predict(means(features).astype(np.float32)))
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"radius": 0}, "--context: is 0, and the run was trained with 1"),
        ({"radius": 2}, "--context: is 2, and the run was trained with 1"),
        ({"weights": "distance"}, "--context-weights: is distance, and the run"),
    ],
)
def test_another_neighbourhood_than_the_runs_is_one_line(
    wide_run, cohort_files, tmp_path, asked, says
):
    _, folder = cohort_files
    other = RunNeighbourhoodConfig(**asked)
    shared = {"run": wide_run.run_dir, "features": folder, "neighbourhood": other}
    with pytest.raises(ConfigError, match=says):
        run(predict(PredictConfig(**shared)))
    out = tmp_path / "maps"
    with pytest.raises(ConfigError, match=says):
        run(attention(AttentionConfig(**shared, slide="s02", out=out)))
    assert not out.exists()


def test_the_runs_own_neighbourhood_may_be_given(wide_run, finished, cohort_files):
    _, folder = cohort_files
    for run_dir, radius in ((wide_run.run_dir, "1"), (finished[0].run_dir, "0")):
        words = ["mil", "predict", str(run_dir), "--features", str(folder)]
        assert main([*words, "--context", radius]) == 0


def test_attention_stays_at_its_patch(wide_run, tmp_path):
    features = with_a_hole("s90")
    save_features(features, tmp_path / "s90.features.zarr")
    config = AttentionConfig(
        run=wide_run.run_dir, features=tmp_path, slide="s90", out=tmp_path / "maps"
    )
    done = run(attention(config))
    ensemble = load_ensemble(wide_run.run_dir)
    wanted = run(ensemble.predict_with_attention(means(features).astype(np.float32)))
    np.testing.assert_allclose(done.weights, wanted.attention, rtol=0, atol=1e-5)
    # The patch without features has no weight, and those after it keep their place.
    values = done.heatmap.values
    assert np.flatnonzero(np.isnan(values)).tolist() == [4]
    assert done.top[0] == np.flatnonzero(features.ok)[done.weights.argmax()]
    assert "attention, context 3 × 3" in done.heatmap.title
    assert done.heatmap.neighbourhood == SQUARE
    report = json.loads((tmp_path / "maps" / "attention.json").read_text())
    assert report["neighbourhood"] == {"radius": 1, "weights": "uniform"}


def test_averages_are_used_as_they_are_and_never_averaged_twice(
    wide_run, finished, tmp_path
):
    raw = with_a_hole("s90")
    files = {}
    for config in (SQUARE, WIDE):
        folder = tmp_path / str(config.radius)
        folder.mkdir()
        averaged = average_neighbourhood(raw, config)
        write_foreign(averaged, folder / "s90.h5", "trident")
        files[config.radius] = folder
    save_features(raw, tmp_path / "s90.features.zarr")
    asked = PredictConfig(run=wide_run.run_dir, features=tmp_path)
    once = run(predict(asked))
    given = run(predict(asked.model_copy(update={"features": files[1]})))
    np.testing.assert_allclose(
        once.probabilities, given.probabilities, rtol=0, atol=1e-6
    )
    with pytest.raises(ConfigError, match="over 5 × 5 patches, not 3 × 3"):
        run(predict(asked.model_copy(update={"features": files[2]})))
    single = PredictConfig(run=finished[0].run_dir, features=files[1])
    with pytest.raises(FeatureError, match="3 × 3 patches; the run was trained on"):
        run(predict(single))
    held = read_foreign(files[2] / "s90.h5")
    with pytest.raises(FeatureError, match="over 5 × 5 patches, not 3 × 3"):
        run(predict_slide(wide_run.run_dir, "s90", held, tmp_path))


def test_single_patches_and_averages_in_one_folder_are_refused(tmp_path):
    save_features(make_features(draw_bag(0, 1, 12), "a"), tmp_path / "a.features.zarr")
    averaged = average_neighbourhood(make_features(draw_bag(0, 2, 12), "b"), SQUARE)
    write_foreign(averaged, tmp_path / "b.h5", "trident")
    folder = FeatureFolder(tmp_path)
    folder.read("a")
    with pytest.raises(FeatureError, match="3 × 3 patches, others .* single patches"):
        folder.read("b")


def test_models_of_several_neighbourhoods_are_no_ensemble(wide_run, tmp_path):
    copied = tmp_path / "run"
    shutil.copytree(wide_run.run_dir, copied)
    file = next(copied.glob("models/*/recipe.json"))
    content = json.loads(file.read_text())
    del content["features"]["neighbourhood"]
    file.write_text(json.dumps(content))
    with pytest.raises(RunError, match="different neighbourhoods"):
        load_ensemble(copied)


def test_a_run_does_not_resume_with_another_neighbourhood(wide_run, tmp_path):
    copied = tmp_path / "run"
    shutil.copytree(wide_run.run_dir, copied)
    content = json.loads((copied / "config.json").read_text())
    content["neighbourhood"]["radius"] = 2
    (copied / "config.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match="not those it was started with"):
        run(resume_train(copied))


def test_runs_of_two_radii_are_compared_in_pairs(wide_run, finished, tmp_path, capsys):
    runs = (finished[0].run_dir, tmp_path / "wide")
    shutil.copytree(wide_run.run_dir, runs[1])
    config = CompareConfig(
        features=runs, out=tmp_path / "out", figures=FiguresConfig(resamples=20)
    )
    done = run(compare(config))
    single, wide = done.figures
    assert done.neighbourhoods == {single: NeighbourhoodConfig(), wide: SQUARE}
    gain = wide_run.figures["pooled"]["auroc"] - finished[0].figures["pooled"]["auroc"]
    assert done.differences[wide]["auroc"] == pytest.approx(gain)
    written = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert written["neighbourhoods"][wide] == {"radius": 1, "weights": "uniform"}
    words = ["mil", "compare", *map(str, runs), "--out", str(tmp_path / "again")]
    assert main([*words, "--resamples", "20"]) == 0
    assert f"{wide} 3 × 3 patches" in capsys.readouterr().out
    assert main([*words, "--context", "1"]) == 2
    assert "Leave out neighbourhood" in capsys.readouterr().err


def test_runs_are_not_compared_with_folders_of_features_or_halves(
    wide_run, finished, cohort_files, tmp_path
):
    mixed = CompareConfig(
        features=(wide_run.run_dir, cohort_files[1]), out=tmp_path / "out"
    )
    with pytest.raises(RunError, match="is no run directory"):
        run(compare(mixed))
    half = tmp_path / "half"
    shutil.copytree(wide_run.run_dir, half)
    (half / "summary.json").unlink()
    pair = (finished[0].run_dir, half)
    with pytest.raises(RunError, match=f"Resume it with: .*{half}"):
        run(compare(CompareConfig(features=pair, out=tmp_path / "out")))


def test_folders_of_other_neighbourhoods_are_not_compared(cohort_files, tmp_path):
    table, folder = cohort_files
    other = tmp_path / "averaged"
    other.mkdir()
    for file in folder.glob("*.zarr"):
        averaged = average_neighbourhood(read_foreign(file), SQUARE)
        write_foreign(averaged, other / f"{file.name.split('.')[0]}.h5", "trident")
    config = make_config(cohort_files, tmp_path / "run")
    shared = config.model_dump(exclude={"features", "out", "cohort"})
    asked = CompareConfig(
        **shared, cohort=table, features=(folder, other), out=tmp_path / "out"
    )
    with pytest.raises(ConfigError, match="3 × 3 patches, .* over single patches"):
        run(compare(asked))
    assert not (tmp_path / "out" / "features").exists()
    # A run on averages knows that they are, whatever its own option says.
    done = run(train(MilConfig(**shared, cohort=table, features=other, out=config.out)))
    assert done.neighbourhood == SQUARE
