"""What a trained run says of slides: predictions, attention, comparisons."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import tifffile
from safetensors.torch import load_file, save_file

from napari_mcm.core.errors import ConfigError, FeatureError, RunError, WeightsError
from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.features.interchange import read_foreign, save_features
from napari_mcm.core.mil.attention import attention
from napari_mcm.core.mil.attention_maps import (
    attention_map,
    average_overlaps,
    effective_number,
    scale,
)
from napari_mcm.core.mil.compare import compare, folder_names
from napari_mcm.core.mil.config import (
    AggregatorConfig,
    AttentionConfig,
    CompareConfig,
    FiguresConfig,
    PredictConfig,
)
from napari_mcm.core.mil.ensemble import load_ensemble, load_model
from napari_mcm.core.mil.predict import predict
from napari_mcm.core.mil.results import read_folds, read_predictions
from napari_mcm.core.mil.slide_prediction import predict_slide
from napari_mcm.core.mil.train import train
from napari_mcm.core.runtime.jobs import Note, run
from tests.core.mil.conftest import ENCODER, MARKED, draw_bag, make_features


@pytest.fixture
def run_dir(finished):
    return finished[0].run_dir


@pytest.fixture
def features_dir(cohort_files):
    return cohort_files[1]


def test_scaling_is_what_it_is_called():
    values = np.array([0.1, 0.4, 0.2, 0.3])
    assert scale(values, "raw").tolist() == values.tolist()
    assert scale(values, "rank").tolist() == [0.25, 1, 0.5, 0.75]
    np.testing.assert_allclose(scale(values, "minmax"), [0, 1, 1 / 3, 2 / 3])
    assert scale(np.full(4, 0.25), "minmax").tolist() == [0] * 4
    assert len(set(scale(np.full(4, 0.25), "rank"))) == 1


def test_the_map_says_how_it_is_scaled_and_leaves_out_what_has_no_features():
    features = make_features(draw_bag(1, 3, 12))
    status = features.status.copy()
    status[5] = 1
    features = FeatureSet(features.features, features.grid, status, ENCODER)
    weights = np.linspace(0.01, 0.2, 11)
    for scaling, word in (("rank", "rank"), ("minmax", "least"), ("raw", "weights")):
        heatmap = attention_map(features, weights, scaling, "attention")
        assert word in heatmap.title
        assert np.isnan(heatmap.values[5]) and np.isfinite(heatmap.values[6])
        assert heatmap.limits[1] >= np.nanmax(heatmap.values) - 1e-6


def test_the_effective_number_counts_equal_weights():
    assert effective_number(np.full(7, 1 / 7)) == pytest.approx(7)
    assert effective_number(np.array([1.0, 0, 0])) == pytest.approx(1)
    assert effective_number(np.array([0.5, 0.5, 0])) == pytest.approx(2)


def test_overlapping_patches_are_averaged_where_they_overlap():
    features = make_features(draw_bag(0, 1, 5), columns=5)
    weights = np.array([0.0, 0.0, 1.0, 0.0, 0.0])
    np.testing.assert_array_equal(average_overlaps(features, weights), weights)
    # Patches of twice the step: each reaches half a cell into its neighbours.
    came = {"imported": {"patch_size_level0": [200, 200], "margin": [50, 50]}}
    wide = FeatureSet(features.features, features.grid, features.status, ENCODER, came)
    np.testing.assert_allclose(average_overlaps(wide, weights), [0, 0.25, 0.5, 0.25, 0])
    level = np.full(5, 0.2)
    np.testing.assert_allclose(average_overlaps(wide, level), level)


@pytest.fixture
def looked(run_dir, features_dir, tmp_path):
    config = AttentionConfig(
        run=run_dir, slide="s02", features=features_dir, out=tmp_path / "att"
    )
    return run(attention(config)), tmp_path / "att"


def test_attention_finds_the_patches_that_make_the_class(looked):
    result, out = looked
    assert result.class_name == "tumour"
    assert set(range(MARKED)) <= set(result.top[: MARKED + 1])
    assert result.weights.sum() == pytest.approx(1)
    assert result.effective < len(result.weights)
    check = result.occlusion
    assert check.drop_top > check.drop_random + check.drop_random_sd
    report = json.loads((out / "attention.json").read_text())
    assert report["scaling"] == "rank" and report["models"] == 1
    with (out / "patches.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sum(float(r["weight"]) for r in rows) == pytest.approx(1, abs=1e-5)


def test_the_viewer_and_the_verb_predict_by_the_same_function(
    looked, run_dir, features_dir
):
    result, _ = looked
    features = read_foreign(features_dir / "s02.features.zarr")
    events = []
    found, ensemble = run(
        predict_slide(run_dir, "s02", features, features_dir), events.append
    )
    np.testing.assert_array_equal(found.attention, result.weights)
    each = [result.probabilities[name] for name in found.classes]
    np.testing.assert_array_equal(found.probabilities, each)
    assert found.classes[found.winner] == "tumour" and not found.per_class
    assert tuple(found.top(found.winner, len(result.top))) == result.top
    assert found.models == len(ensemble.models) == 1
    assert found.unseen and not [e for e in events if isinstance(e, Note)]


def test_a_slide_of_the_training_set_is_predicted_with_a_warning(run_dir, features_dir):
    features, events = read_foreign(features_dir / "s02.features.zarr"), []
    folds = json.loads((run_dir / "folds.json").read_text())["folds"]
    (other, *_) = [f["name"] for f in folds if "s02" in f["train"]]
    job = predict_slide(run_dir, "s02", features, features_dir, fold=other)
    found, _ = run(job, events.append)
    assert not found.unseen
    (note,) = [e for e in events if isinstance(e, Note)]
    assert note.level == "warning" and "training set" in note.text


def test_maps_are_written_as_those_of_similarity(looked):
    result, out = looked
    raster = tifffile.imread(out / "attention.ome.tif")
    np.testing.assert_array_equal(raster, result.heatmap.raster)
    polygons = json.loads((out / "attention.geojson").read_text())["features"]
    assert len(polygons) == len(result.weights)
    assert (out / "attention.png").stat().st_size > 1000
    assert not (out / "top_patches.png").exists()  # there are no pixels


def test_only_models_that_have_not_seen_the_slide_are_asked(run_dir):
    tested = next(f for f in read_folds(run_dir)["folds"] if "s02" in f["test"])
    assert load_ensemble(run_dir, unseen="s02").folds == [tested["name"]]
    assert len(load_ensemble(run_dir, unseen="elsewhere").models) == 3
    assert load_ensemble(run_dir, fold="1").folds == ["1"]
    with pytest.raises(ConfigError, match="no fold 9"):
        load_ensemble(run_dir, fold="9")


def test_the_gallery_shows_pixels(run_dir, tmp_path, tissue_slide):
    features = make_features(draw_bag(1, 2, 12), "s02", columns=6)
    features.grid.slide.update(size=[1200, 1000])
    save_features(features, tmp_path / "f" / "slide.features.zarr")
    config = AttentionConfig(
        run=run_dir,
        slide=str(tissue_slide),
        features=tmp_path / "f",
        out=tmp_path / "att",
        top=4,
        random_draws=2,
    )
    result = run(attention(config))
    assert len(result.top) == 4
    assert (tmp_path / "att" / "top_patches.png").stat().st_size > 10_000


@pytest.mark.parametrize("model", ["mean", "max", "clam_mb", "transmil"])
def test_what_is_no_plain_attention_says_so(config, model, tmp_path, monkeypatch):
    from napari_mcm.core.mil import results

    monkeypatch.setattr(results, "write_plots", lambda *_: [])
    small = AggregatorConfig(model=model, hidden=16, width=8, landmarks=4)
    short = config.training.model_copy(update={"epochs": 1})
    result = run(
        train(config.model_copy(update={"aggregator": small, "training": short}))
    )
    asked = AttentionConfig(
        run=result.run_dir,
        slide="s02",
        features=config.features,
        out=tmp_path / "att",
        class_name="tumour",
    )
    events = []
    found = run(attention(asked), events.append)
    names = {p.name for p in (tmp_path / "att").iterdir()}
    if model == "clam_mb":
        assert {"attention_tumour.png", "attention_normal.png"} <= names
        assert "to tumour" in found.heatmap.title and not found.caveat
    else:
        assert found.caveat in [e.text for e in events if isinstance(e, Note)]
    if model == "mean":
        assert found.effective == pytest.approx(len(found.weights))


def test_prediction_is_the_mean_of_the_folds_and_says_what_it_has_seen(
    run_dir, features_dir, cohort_files, tmp_path
):
    events = []
    config = PredictConfig(
        run=run_dir,
        features=features_dir,
        cohort=cohort_files[0],
        out=tmp_path / "p.csv",
        figures=FiguresConfig(resamples=20),
    )
    result = run(predict(config), events.append)
    assert result.models == 3 and len(result.slides) == 24
    assert any("in the training set" in e.text for e in events if isinstance(e, Note))
    assert result.figures["pooled"]["auroc"] > 0.9
    np.testing.assert_allclose(result.probabilities.sum(1), 1)
    parts = [
        run(predict(PredictConfig(run=run_dir, features=features_dir, fold=f)))
        for f in "012"
    ]
    mean = np.mean([p.probabilities for p in parts], axis=0)
    np.testing.assert_allclose(result.probabilities, mean)
    # What a fold's models say of its test slides is what the run wrote.
    known = read_predictions(run_dir)
    rows = dict(zip(parts[1].slides, parts[1].probabilities, strict=True))
    for slide, fold, row in zip(
        known.slides, known.folds, known.probabilities, strict=True
    ):
        if fold == "1":
            np.testing.assert_allclose(rows[slide], row, atol=2e-6)


def test_features_of_another_encoder_are_refused(run_dir, tmp_path):
    other = {**ENCODER, "fingerprint": "other"}
    save_features(
        make_features(draw_bag(0, 1), "A", encoder=other), tmp_path / "A.features.zarr"
    )
    with pytest.raises(FeatureError, match="another|trained on"):
        run(predict(PredictConfig(run=run_dir, features=tmp_path)))


def test_damaged_models_are_told_and_never_guessed(run_dir, tmp_path):
    source = run_dir / "models" / "fold_0_seed_0"
    for case in ("weights", "recipe", "fit", "version"):
        folder = tmp_path / case
        folder.mkdir()
        recipe = json.loads((source / "recipe.json").read_text())
        weights = load_file(source / "model.safetensors")
        if case == "recipe":
            del recipe["classes"]
        if case == "version":
            recipe["version"] = 99
        if case == "fit":
            weights["classify.weight"] = weights["classify.weight"][:1].clone()
        save_file(weights, folder / "model.safetensors")
        if case == "weights":
            content = (folder / "model.safetensors").read_bytes()
            (folder / "model.safetensors").write_bytes(content[:100])
        (folder / "recipe.json").write_text(json.dumps(recipe))
        with pytest.raises(WeightsError):
            load_model(folder)
    with pytest.raises(RunError):
        load_ensemble(tmp_path)


def test_encoders_are_compared_on_the_same_folds(
    config, cohort_files, tmp_path, monkeypatch
):
    from napari_mcm.core.mil import results

    monkeypatch.setattr(results, "write_plots", lambda *_: [])
    blind = tmp_path / "blind"
    for i in range(24):
        about = {**ENCODER, "spec": "blind", "fingerprint": "cd"}
        vectors = draw_bag(0, i)
        save_features(
            make_features(vectors, f"s{i:02d}", encoder=about),
            blind / f"s{i:02d}.features.zarr",
        )
    shared = config.model_dump(exclude={"features", "out"})
    asked = CompareConfig(
        **shared, features=(config.features, blind), out=tmp_path / "both"
    )
    result = run(compare(asked))
    assert list(result.figures) == ["features", "blind"]
    apart = result.differences["blind"]
    assert apart["auroc"] < -0.2
    assert apart["by_patient"]["auroc"][1] < 0
    one, two = (read_folds(tmp_path / "both" / name) for name in ("features", "blind"))
    assert one["folds"] == two["folds"]
    assert (tmp_path / "both" / "compare.png").stat().st_size > 1000
    again = run(compare(asked))
    assert again.differences == result.differences


def test_an_encoder_does_not_differ_from_itself_and_folders_get_names(tmp_path):
    for name in ("a/f", "b/f", "c"):
        (tmp_path / name).mkdir(parents=True)
    names = folder_names([tmp_path / "a/f", tmp_path / "b/f", tmp_path / "c"])
    assert names[:2] == ["a_f", "b_f"]
    with pytest.raises(ConfigError, match="different"):
        folder_names([tmp_path / "c", tmp_path / "c"])
