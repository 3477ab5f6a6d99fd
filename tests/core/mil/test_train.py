"""Training as a user runs it: results, cancel, kill, resume, bad input."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from napari_mcm.core.encoders.compute import ComputeConfig
from napari_mcm.core.errors import ConfigError, RunError, TrainingError
from napari_mcm.core.mil import AggregatorConfig, TrainingConfig
from napari_mcm.core.mil.config import BagsConfig
from napari_mcm.core.mil.train import resume_train, train
from napari_mcm.core.mil.trainer import Labelled, MilTrainer
from napari_mcm.core.runtime.jobs import Metrics, Note, run
from napari_mcm.core.training import Run
from tests.core.mil.conftest import draw_bag, write_cohort


@pytest.fixture(autouse=True)
def no_plots(monkeypatch):
    """Plots take longer than the training; one test looks at them."""
    from napari_mcm.core.mil import results

    monkeypatch.setattr(results, "write_plots", lambda *_: [])


def all_weights(run_dir):
    files = sorted((run_dir / "models").glob("*/model.safetensors"))
    return {
        f"{file.parent.name}/{name}": tensor
        for file in files
        for name, tensor in load_file(file).items()
    }


def assert_same_bits(one, two):
    assert one.keys() == two.keys() and one
    assert all(torch.equal(one[name], two[name]) for name in one)


def steps_of(run_dir):
    return {
        file.parent.name: Run(file.parent).metrics()["step"]
        for file in (run_dir / "models").glob("*/metrics.csv")
    }


def test_a_run_leaves_all_that_is_promised(finished, config):
    result, events = finished
    names = {p.name for p in result.run_dir.iterdir()}
    assert names == {
        *("config.json", "folds.json", "models", "plots", "predictions.csv"),
        *("figures.json", "slides.json", "summary.json"),
    }
    plots = {p.name for p in (result.run_dir / "plots").iterdir()}
    assert {"roc.png", "roc.svg", "precision_recall.svg", "confusion.png"} <= plots
    folders = sorted((result.run_dir / "models").iterdir())
    assert [f.name for f in folders] == [f"fold_{i}_seed_0" for i in range(3)]
    for folder in folders:
        assert {p.name for p in folder.iterdir()} == {
            *("metrics.csv", "model.safetensors", "recipe.json", "summary.json")
        }
    metrics = [e for e in events if isinstance(e, Metrics)]
    assert len(metrics) == sum(len(s) for s in steps_of(result.run_dir).values())
    assert {"loss", "validation_loss", "fold", "seed"} <= metrics[0].values.keys()
    assert any(isinstance(e, Note) and "4 GiB" in e.text for e in events)


def test_every_slide_is_predicted_once_by_a_model_that_has_not_seen_it(finished):
    result, _ = finished
    with (result.run_dir / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(r["slide"] for r in rows) == [f"s{i:02d}" for i in range(24)]
    folds = json.loads((result.run_dir / "folds.json").read_text())["folds"]
    tested = {f["name"]: set(f["test"]) for f in folds}
    for row in rows:
        assert row["slide"] in tested[row["fold"]]
        assert float(row["p_normal"]) + float(row["p_tumour"]) == pytest.approx(
            1, abs=1e-5
        )


def test_it_learns_what_there_is_and_says_how_sure_it_is(finished):
    figures = finished[0].figures
    assert figures["pooled"]["auroc"] > 0.9
    assert figures["baseline"]["auroc"] == 0.5
    assert figures["baseline"]["balanced_accuracy"] == 0.5
    assert set(figures["folds"]) == {"0", "1", "2"}
    low, high = figures["by_patient"]["auroc"]
    assert low <= figures["pooled"]["auroc"] <= high
    assert np.sum(figures["pooled"]["confusion"]) == 24


@pytest.mark.parametrize(
    "model", ["mean", "max", "clam_sb", "clam_mb", "transmil", "dsmil"]
)
def test_every_model_trains_on_three_classes(tmp_path, config, model):
    table, features = write_cohort(tmp_path / "three", ("a", "b", "c"), 18)
    aggregator = AggregatorConfig(model=model, hidden=16, width=8, landmarks=4)
    training = config.training.model_copy(update={"epochs": 2})
    more = {"cohort": table, "features": features}
    result = run(
        train(
            config.model_copy(
                update={**more, "aggregator": aggregator, "training": training}
            )
        )
    )
    assert set(result.figures["pooled"]["auroc_of"]) == {"a", "b", "c"}
    assert np.asarray(result.figures["pooled"]["confusion"]).shape == (3, 3)


def test_seeds_are_trained_apart_and_averaged(config):
    result = run(train(config.model_copy(update={"seeds": 2})))
    names = sorted(p.name for p in (result.run_dir / "models").iterdir())
    assert len(names) == 6
    one, two = (
        json.loads((result.run_dir / "models" / n / "summary.json").read_text())
        for n in ("fold_1_seed_0", "fold_1_seed_1")
    )
    assert one["test_probabilities"] != two["test_probabilities"]
    mean = np.mean([one["test_probabilities"], two["test_probabilities"]], axis=0)
    with (result.run_dir / "predictions.csv").open() as file:
        rows = {r["slide"]: r for r in csv.DictReader(file)}
    found = [float(rows[s]["p_normal"]) for s in one["test_slides"]]
    np.testing.assert_allclose(found, mean[:, 0], atol=1e-6)


def cancel_at(job, count):
    seen = 0
    for event in job:
        seen += isinstance(event, Metrics)
        if seen == count:
            break
    job.close()


@pytest.mark.parametrize("after", [1, 12])
def test_cancel_and_resume_end_in_the_same_weights(finished, config, tmp_path, after):
    result, _ = finished
    other = config.model_copy(update={"out": tmp_path / "cancelled"})
    cancel_at(train(other), after)
    assert Run.open(other.out).summary() is None
    resumed = run(resume_train(other.out))
    assert_same_bits(all_weights(result.run_dir), all_weights(resumed.run_dir))
    assert steps_of(other.out) == steps_of(result.run_dir)
    text = [(r / "predictions.csv").read_text() for r in (result.run_dir, other.out)]
    assert text[0] == text[1]


def test_cancel_in_the_middle_of_an_epoch_resumes_too(finished, config, tmp_path):
    result, _ = finished
    other = config.model_copy(update={"out": tmp_path / "cancelled"})
    job = train(other)
    past = 0
    for event in job:
        past += bool(past) or isinstance(event, Metrics)
        if past == 7:
            break
    job.close()
    resumed = run(resume_train(other.out))
    assert_same_bits(all_weights(result.run_dir), all_weights(resumed.run_dir))


_CHILD = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(int(sys.argv[2]))
import napari_mcm.core.mil.train as fold
fold.CHECKPOINT_SECONDS = 0.0
from napari_mcm.core.runtime.jobs import run
from napari_mcm.core.mil import MilConfig
from napari_mcm.core.mil.train import train
run(train(MilConfig.model_validate_json(Path(sys.argv[1]).read_text())))
"""


def test_kill_9_and_resume_end_in_the_same_weights(finished, config, tmp_path):
    result, _ = finished
    other = config.model_copy(update={"out": tmp_path / "killed"})
    file = tmp_path / "config.json"
    file.write_text(other.model_dump_json())
    threads = str(torch.get_num_threads())
    child = subprocess.Popen([sys.executable, "-c", _CHILD, str(file), threads])
    metrics = other.out / "models" / "fold_1_seed_0" / "metrics.csv"
    deadline = time.monotonic() + 200
    while not metrics.exists() or metrics.read_text().count("\n") < 3:
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert Run.open(other.out).summary() is None, "it was killed too late to tell"
    resumed = run(resume_train(other.out))
    assert_same_bits(all_weights(result.run_dir), all_weights(resumed.run_dir))


def test_a_finished_run_is_not_run_again_nor_overwritten(finished, config):
    result, _ = finished
    again = run(resume_train(result.run_dir))
    assert again.figures == result.figures
    with pytest.raises(RunError, match="--resume"):
        run(train(config.model_copy(update={"out": result.run_dir})))


def test_another_cohort_is_not_resumed_with(config, cohort_files, tmp_path):
    table = tmp_path / "mine.csv"
    text = cohort_files[0].read_text()
    table.write_text(text)
    cancel_at(train(config.model_copy(update={"cohort": table})), 1)
    table.write_text(text.replace("s00.svs,normal", "s00.svs,tumour"))
    with pytest.raises(RunError, match="cohort"):
        run(resume_train(config.out))


def test_missing_features_are_listed_and_need_a_word(config, cohort_files, tmp_path):
    table = tmp_path / "more.csv"
    text = cohort_files[0].read_text()
    table.write_text(text + "lost_1,normal,p90\nlost_2,tumour,p91\n")
    asked, events = config.model_copy(update={"cohort": table}), []
    with pytest.raises(ConfigError, match="2 of 26 slides"):
        run(train(asked), events.append)
    said = [e.text for e in events if isinstance(e, Note)]
    assert ["lost_1" in said[0], "lost_2" in said[1]] == [True, True]
    assert not config.out.exists()
    allowed = asked.model_copy(update={"bags": BagsConfig(allow_missing=True)})
    assert run(train(allowed)).figures["pooled"]["slides"] == 24


def test_divergence_stops_with_advice(config):
    wild = config.training.model_copy(update={"lr": 10.0, "optimiser": "adam"})
    aggregator = config.aggregator.model_copy(update={"model": "max"})
    bad = config.model_copy(update={"training": wild, "aggregator": aggregator})
    from napari_mcm.core.mil import train as fold

    job = train(bad)
    with pytest.raises(TrainingError, match="lower --lr"):
        for event in job:
            if isinstance(event, Metrics):
                fold.MilTrainer.step = explode(fold.MilTrainer.step)
                break
        try:
            run(job)
        finally:
            fold.MilTrainer.step = fold.MilTrainer.step.__wrapped__


def explode(step):
    def exploding(self, *arguments):
        yield from step(self, *arguments)
        return float("nan")

    exploding.__wrapped__ = step
    return exploding


@pytest.mark.parametrize("missing", ["cohort", "features", "out"])
def test_what_is_missing_is_named(config, missing):
    with pytest.raises(ConfigError, match="given"):
        run(train(config.model_copy(update={missing: None})))


def make_learner(training=None, **aggregator):
    config = AggregatorConfig(hidden=8, width=4, dropout=0.0, **aggregator)
    options = TrainingConfig(**(training or {})).settled(config.model)
    compute = ComputeConfig(device="cpu", precision="float32")
    return MilTrainer(config, options, compute, 8, 2, (0, 0))


class Memory(dict):
    def read(self, slide):
        return self[slide]


BAGS = Memory({f"s{i}": draw_bag(i % 2, i) for i in range(12)})
SLIDES = [Labelled(f"s{i}", i % 2) for i in range(12)]


def drive(work):
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize("model", ["abmil", "clam_sb", "transmil", "dsmil", "max"])
def test_a_padded_batch_learns_the_same_as_one_bag_after_another(model):
    stepped = []
    for padded in (False, True):
        learner = make_learner({"batch_bags": 6, "padded": padded}, model=model)
        loss = drive(learner.step(SLIDES[:6], BAGS, 0, 0))
        stepped.append((loss, learner.model.state_dict()))
    assert stepped[0][0] == pytest.approx(stepped[1][0], rel=1e-5)
    for name, tensor in stepped[0][1].items():
        torch.testing.assert_close(tensor, stepped[1][1][name], atol=1e-4, rtol=1e-3)


def test_classes_come_equally_often_if_balanced():
    rare = [Labelled(f"r{i}", int(i < 5)) for i in range(100)]
    counts = {}
    for balanced in (True, False):
        learner = make_learner({"balanced": balanced})
        drawn = [s.label for e in range(20) for b in learner.plan(rare, e) for s in b]
        counts[balanced] = np.mean(drawn)
    assert counts[True] == pytest.approx(0.5, abs=0.05)
    assert counts[False] == pytest.approx(0.05)


def test_patches_are_drawn_anew_in_their_order():
    vectors = np.arange(100, dtype=np.float32)[:, None].repeat(8, axis=1)
    learner = make_learner({"max_patches": 30, "patch_dropout": 0.2})
    one, two = (
        learner._draw(vectors, 0, 0, 0)[:, 0],
        learner._draw(vectors, 1, 0, 0)[:, 0],
    )
    assert len(one) == 30 and len(set(one)) == 30
    assert (np.diff(one) > 0).all() and set(one) != set(two)
    np.testing.assert_array_equal(one, learner._draw(vectors, 0, 0, 0)[:, 0])
    fewer = make_learner({"patch_dropout": 0.2, "max_patches": None})
    assert len(fewer._draw(vectors, 0, 0, 0)) == 80
    assert len(fewer._draw(vectors[:1], 0, 0, 0)) == 1


def test_training_stops_early_and_keeps_the_best(config):
    noise = config.training.model_copy(update={"epochs": 60, "lr": 0.05})
    result = run(train(config.model_copy(update={"training": noise})))
    for folder in (result.run_dir / "models").iterdir():
        summary = json.loads((folder / "summary.json").read_text())
        losses = Run(folder).metrics()["validation_loss"]
        assert len(losses) == summary["epochs"]
        assert int(np.argmin(losses)) == summary["best_epoch"]
        assert summary["epochs"] in (60, max(4, summary["best_epoch"] + 5))


def test_a_bag_of_200_000_patches_is_left_at_once():
    class Big(dict):
        def read(self, slide):
            return np.zeros((200_000, 8), np.float32)

    learner = make_learner({"max_patches": None})
    let_go, ended = threading.Event(), threading.Event()

    def slow(*_):
        let_go.wait(60)
        ended.set()
        return 0.0

    learner._learn_from = slow
    work = learner.step(SLIDES[:1], Big(), 0, 0)
    next(work)
    work.close()
    assert not ended.is_set()
    let_go.set()


def test_what_a_kill_left_of_a_checkpoint_is_cleared_away(tmp_path):
    unfinished = Run(tmp_path / "run")
    unfinished.save_checkpoint({"a": torch.zeros(1)}, {})
    folder = unfinished.checkpoint_file.parent
    (folder / ".part-0123456789ab.safetensors").write_bytes(b"half")
    unfinished.remove_checkpoint()
    assert not folder.exists()
