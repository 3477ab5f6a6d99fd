"""Classifiers as a user trains them: starts, fairness, resume, prediction, scores."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from napari_mcm.core.cells import EvaluateCellsConfig, PredictCellsConfig
from napari_mcm.core.cells.model import load_classifier
from napari_mcm.core.cells.network import load_start, make_network, rate_groups
from napari_mcm.core.cells.prediction import evaluate, predict
from napari_mcm.core.cells.training import (
    balanced_row,
    class_weights,
    classify,
    resume_classify,
)
from napari_mcm.core.encoders import load_encoder
from napari_mcm.core.errors import ConfigError, RunError, TrainingError
from napari_mcm.core.mae import AugmentConfig
from napari_mcm.core.mae.pretraining import pretrain
from napari_mcm.core.runtime.jobs import Metrics, Note, Progress, run
from napari_mcm.core.training import Run
from tests.core.cells.conftest import write_cell, write_classes
from tests.core.mae.conftest import CPU, SMALL


def refit(config, **fit):
    return config.model_copy(update={"fit": config.fit.model_copy(update=fit)})


@pytest.fixture
def mae_run(request):
    config = request.getfixturevalue("mae_config")
    return run(pretrain(config)).run_dir


@pytest.fixture
def mae_config(tmp_path):
    from napari_mcm.core.mae import PretrainConfig, RecipeConfig
    from tests.core.mae.conftest import LIGHT, write_pictures

    return PretrainConfig(
        pictures=(write_pictures(tmp_path / "pictures", 6),),
        out=tmp_path / "mae",
        model=SMALL,
        masking=LIGHT,
        augment=AugmentConfig(crop_scale=0.7, normalisation="half"),
        recipe=RecipeConfig(batch_size=4, steps=4),
        compute=CPU,
    )


def test_a_classifier_learns_validates_and_leaves_all_that_is_promised(config):
    events = []
    done = run(classify(config), events.append)
    assert {p.name for p in done.run_dir.iterdir()} == {
        "config.json",
        "metrics.csv",
        "summary.json",
        "encoder",
        "head.safetensors",
        "validation",
    }
    written = {p.name for p in (done.run_dir / "validation").iterdir()}
    assert written == {"predictions.csv", "scores.json", "confusion.png"}
    assert done.loss_last < done.loss_first
    assert done.scores["scores"]["balanced_accuracy"] > 0.9
    assert done.scores["majority"]["balanced_accuracy"] == pytest.approx(1 / 3)
    assert len([e for e in events if isinstance(e, Metrics)]) == 24


def test_a_probe_looks_at_its_images_a_few_at_a_time(config):
    events = []
    run(classify(refit(config, learn="probe", steps=1)), events.append)
    seen = [e.done for e in events if isinstance(e, Progress) and "Looking" in e.stage]
    assert len(seen) > 2 and set(np.diff(seen)) == {8}


@pytest.mark.parametrize("learn", ["full", "probe"])
@pytest.mark.parametrize("init", ["random:test_resnet", "mae"])
def test_any_encoder_starts_a_classifier(config, mae_run, init, learn):
    init = f"mae:{mae_run}" if init == "mae" else init
    asked = refit(config, learn=learn, steps=3)
    small = SMALL.model_copy(update={"image_size": 64})
    asked = asked.model_copy(update={"init": init, "model": small})
    start = load_start(init, small, asked.augment, CPU, 0).encoder
    before = {k: v.clone() for k, v in start.module.state_dict().items()}
    done = run(classify(asked))
    after = load_file(done.run_dir / "encoder" / "model.safetensors")
    assert before.keys() == after.keys()
    same = all(torch.equal(before[name], after[name]) for name in before)
    assert same == (learn == "probe")
    assert load_classifier(done.run_dir, CPU).classes == done.classes
    assert load_encoder(done.run_dir, CPU).dim == start.dim


def test_a_mae_run_hands_on_augmentation_and_normalisation(config, mae_run):
    asked = refit(config, steps=2).model_copy(
        update={"init": f"mae:{mae_run}", "augment": AugmentConfig()}
    )
    done = run(classify(asked))
    recipe = load_encoder(done.run_dir, CPU).recipe
    assert recipe["classifier"]["augment"]["crop_scale"] == 0.7
    assert recipe["preprocessing"]["mean"] == [0.5, 0.5, 0.5]


def test_scratch_of_a_mae_run_is_its_network_without_its_weights(mae_run):
    starts = [
        load_start(init, SMALL, AugmentConfig(), CPU, seed)
        for init, seed in (
            (f"mae:{mae_run}", 0),
            (f"scratch:{mae_run}", 0),
            (f"scratch:{mae_run}", 1),
        )
    ]
    states = [start.encoder.module.state_dict() for start in starts]
    shapes = [{k: v.shape for k, v in state.items()} for state in states]
    assert shapes[0] == shapes[1]
    weight = "blocks.0.attn.qkv.weight"
    assert not torch.equal(states[0][weight], states[1][weight])
    assert not torch.equal(states[1][weight], states[2][weight])
    assert torch.equal(states[0]["pos_embed"], states[1]["pos_embed"])
    assert starts[1].encoder.mean == starts[0].encoder.mean == (0.5, 0.5, 0.5)
    assert [start.learned for start in starts] == [True, False, False]


@pytest.mark.parametrize("init", ["random:vit_tiny_patch16_224", "random:resnet18"])
def test_rates_fall_from_layer_to_layer(config, init):
    start = load_start(init, SMALL, AugmentConfig(), CPU, 0)
    network = make_network(start, 3, config)
    groups = rate_groups(network, config.fit, learned=True)
    rate = {id(p): g["lr"] for g in groups for p in g["params"]}
    rates = [rate[id(p)] for p in network.encoder.parameters()]
    head = rate[id(network.head.linear.weight)]
    assert head == config.fit.peak_lr and max(rates) <= head
    assert min(rates) < head * 0.65**3
    assert rates[0] < rates[-1]
    assert len(rate) == len(list(network.parameters()))
    if "vit" in init:
        # Layer 0 of 12 blocks and what comes after: 0.65 to the 13th.
        first = rate[id(network.encoder.patch_embed.proj.weight)]
        assert first == pytest.approx(head * 0.65**13)
    flat = rate_groups(network, config.fit, learned=False)
    assert {round(g["lr"] / head, 9) for g in flat} == {1.0}


def test_rare_classes_count_as_much_as_common_ones():
    targets = np.array([0] * 90 + [1] * 10)
    weights = class_weights(targets, 3)
    assert weights[0] * 90 == pytest.approx(weights[1] * 10)
    assert weights[targets].mean() == pytest.approx(1)
    drawn = [
        targets[balanced_row(targets, np.random.default_rng(i))] for i in range(400)
    ]
    assert 0.4 < np.mean(drawn) < 0.6


def test_cancel_and_resume_end_in_the_same_classifier(config, tmp_path):
    whole = run(classify(config)).run_dir
    other = config.model_copy(update={"out": tmp_path / "cancelled"})
    job = classify(other)
    next(e for e in job if isinstance(e, Metrics) and e.step == 9)
    job.close()
    resumed = run(resume_classify(other.out)).run_dir
    for name in ("encoder/model.safetensors", "head.safetensors"):
        one, two = load_file(whole / name), load_file(resumed / name)
        assert all(torch.equal(one[k], two[k]) for k in one)
    assert Run.open(resumed).metrics()["step"] == list(range(24))


def test_batch_norms_half_moved_by_a_cancel_are_not_saved(config, tmp_path):
    small = config.model.model_copy(update={"image_size": 64})
    asked = refit(config, steps=5).model_copy(
        update={"init": "scratch:random:test_resnet", "model": small}
    )
    whole = run(classify(asked)).run_dir
    other = asked.model_copy(update={"out": tmp_path / "cancelled"})
    job, after = classify(other), 0
    for event in job:
        after += bool(after) or (isinstance(event, Metrics) and event.step == 1)
        if after == 4:  # a chunk of the third step has gone forwards
            break
    job.close()
    resumed = run(resume_classify(other.out)).run_dir
    one, two = (
        load_file(r / "encoder" / "model.safetensors") for r in (whole, resumed)
    )
    assert any("running_mean" in name for name in one)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_other_labels_are_not_resumed_with(config, folder):
    job = classify(config)
    next(e for e in job if isinstance(e, Metrics))
    job.close()
    write_cell(folder / "Eosinophil" / "20190531_999999_0.png", "Eosinophil", 1)
    with pytest.raises(RunError, match="images"):
        run(resume_classify(config.out))


def test_a_trained_classifier_predicts_and_is_scored_by_its_own_classes(
    config, tmp_path
):
    done = run(classify(config))
    test = write_classes(tmp_path / "new" / "TestB", {"Neutrophil": 5}, 5000)
    (test / "Neutrophil" / "damaged.png").write_text("no picture")
    events = []
    found = run(
        predict(
            PredictCellsConfig(
                paths=(done.run_dir, test), out=tmp_path / "found.csv", compute=CPU
            )
        ),
        events.append,
    )
    assert len(found.pictures) == 5 and len(found.failed) == 1
    assert any("damaged" in e.text for e in events if isinstance(e, Note))
    winners = found.probabilities.argmax(axis=1)
    assert {found.classes[w] for w in winners} == {"Neutrophil"}
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, atol=1e-5)
    assert len((tmp_path / "found.csv").read_text().splitlines()) == 6
    scored = run(
        evaluate(
            EvaluateCellsConfig(
                paths=(done.run_dir, test.parent), out=tmp_path / "scores", compute=CPU
            )
        )
    )
    assert scored.split == "TestB" and scored.scores.values["accuracy"] == 1
    assert scored.scores.confusion.shape == (3, 3)
    content = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert content["by_class"]["Eosinophil"]["support"] == 0
    assert "Eosinophil" in content["unreliable"]


def test_a_class_that_a_classifier_does_not_know_is_named(config, tmp_path):
    done = run(classify(refit(config, steps=1)))
    strange = write_classes(tmp_path / "new", {"Basophil": 2, "Neutrophil": 2}, 5000)
    with pytest.raises(ConfigError, match="Basophil"):
        run(evaluate(EvaluateCellsConfig(paths=(done.run_dir, strange), compute=CPU)))
    asked = EvaluateCellsConfig(
        paths=(done.run_dir, config.data), split="TestC", compute=CPU
    )
    with pytest.raises(ConfigError, match="is not a split"):
        run(evaluate(asked))


def test_runs_of_another_kind_are_no_classifiers(config, mae_run):
    with pytest.raises(
        RunError, match="is a run of mae pretrain, not of classify train"
    ):
        load_classifier(mae_run)
    done = run(classify(refit(config, steps=1)))
    with pytest.raises(ConfigError, match="mae pretrain"):
        load_start(f"mae:{done.run_dir}", SMALL, AugmentConfig(), CPU, 0)


def test_divergence_stops_with_advice(config):
    with pytest.raises(TrainingError, match="lower --base-lr"):
        run(classify(refit(config, base_lr=1e30, clip_norm=1e9)))


@pytest.mark.parametrize("missing", [{"data": None}, {"out": None}])
def test_what_is_missing_is_named(config, missing):
    with pytest.raises(ConfigError):
        run(classify(config.model_copy(update=missing)))
