"""The ablation: nested fair cells, resumed one by one, and a table that tells all."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from napari_mcm.core.cells import FitConfig, LabelsConfig
from napari_mcm.core.cells.datasets import TRAIN, VALIDATION
from napari_mcm.core.errors import ConfigError, RunError
from napari_mcm.core.mae import AugmentConfig, PretrainConfig, RecipeConfig
from napari_mcm.core.mae.pretraining import pretrain
from napari_mcm.core.runtime import async_writes as writes
from napari_mcm.core.runtime.jobs import Metrics, run
from napari_mcm.core.studies.ablation import (
    ablate,
    common_augmentation,
    study_images,
    trial_config,
    trial_images,
)
from napari_mcm.core.studies.ablation_config import (
    AblationConfig,
    AblationTrial,
    ablation_trials,
    arm_names,
    nested_subset,
)
from tests.core.cells.conftest import COLOURS, write_classes
from tests.core.mae.conftest import CPU, LIGHT, SMALL, write_pictures


@pytest.fixture
def config(tmp_path):
    counts = {"Basophil": 4, "Lymphocyte": 20, "Neutrophil": 60}
    return AblationConfig(
        data=write_classes(tmp_path / "cells", counts),
        out=tmp_path / "ablation",
        percent=(10, 100),
        seeds=2,
        labels=LabelsConfig(validation=0.4),
        model=SMALL,
        fit=FitConfig(steps=4, batch_size=4, base_lr=0.03),
        compute=CPU,
        chunk_images=4,
    )


@pytest.fixture
def mae_run(tmp_path):
    config = PretrainConfig(
        pictures=(write_pictures(tmp_path / "pictures", 4),),
        out=tmp_path / "mae",
        model=SMALL,
        masking=LIGHT,
        augment=AugmentConfig(crop_scale=0.7),
        recipe=RecipeConfig(batch_size=4, steps=2),
        compute=CPU,
    )
    return run(pretrain(config)).run_dir


def test_subsets_hold_each_other_and_every_class():
    targets = np.repeat(np.arange(5), [3, 88, 33, 20, 207])
    for seed in range(3):
        parts = [set(nested_subset(targets, p, seed)) for p in (1, 10, 50, 100)]
        assert parts[0] < parts[1] < parts[2] < parts[3] == set(range(len(targets)))
        counts = [np.bincount(targets[sorted(part)], minlength=5) for part in parts]
        assert counts[0].tolist() == [1, 1, 1, 1, 2]
        assert counts[1].tolist() == [1, 9, 3, 2, 21]
    one, two = (nested_subset(targets, 10, seed) for seed in (0, 1))
    assert len(one) == len(two) and set(one) != set(two)


def test_cells_differ_in_start_images_and_seed_only(config, mae_run):
    arms = ("scratch", f"mae:{mae_run}", "random:test_resnet")
    config = config.model_copy(update={"arms": arms})
    cells = ablation_trials(config)
    assert len(cells) == 2 * 2 * 3 and len({c.folder for c in cells}) == 12
    told = [trial_config(config, c).model_dump(exclude={"init", "out"}) for c in cells]
    for content in told:
        content["fit"].pop("seed")
    assert all(content == told[0] for content in told)
    starts = {c.arm: trial_config(config, c).init for c in cells}
    assert starts["scratch"] == f"scratch:{mae_run}"
    assert common_augmentation(config).crop_scale == 0.7
    images = study_images(config)
    tests = [
        [c.path for c in trial_images(cell, images).only(VALIDATION).cells]
        for cell in cells
    ]
    assert all(test == tests[0] for test in tests)


def test_an_ablation_writes_a_row_a_cell_and_a_table(config, mae_run):
    config = config.model_copy(update={"arms": ("scratch", f"mae:{mae_run}")})
    done = run(ablate(config))
    assert done.cells == 8 and not done.failed
    with done.csv.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    assert {row["images"] for row in rows if row["percent"] == "100"} == {"50"}
    page = done.table.read_text()
    assert "majority vote" in page and "Gain over scratch" in page
    assert "Basophil\\* 2/2" in page and "Lymphocyte\\* 12/8" in page
    assert "Neutrophil 36/24" in page
    own = [
        float(r["accuracy"])
        for r in rows
        if r["arm"] == "scratch" and r["percent"] == "10"
    ]
    assert f"{np.mean(own):.4f} ± {np.std(own, ddof=1):.4f}" in page
    assert all(figure.stat().st_size > 1000 for figure in done.figures)
    assert {p.name for p in done.out.iterdir()} == {
        "config.json",
        "cells",
        "ablation.md",
        "ablation.csv",
        "learning_curves.png",
        "confidence.png",
    }
    assert not list(done.out.rglob("*.safetensors"))


def test_it_goes_on_at_the_cell_that_was_broken_off(config, tmp_path):
    config = config.model_copy(update={"percent": (10.0,)})
    whole = run(ablate(config))
    other = config.model_copy(update={"out": tmp_path / "broken"})
    job, steps = ablate(other), 0
    for event in job:
        steps += isinstance(event, Metrics)
        if steps == 6:  # in the middle of the second of two cells
            break
    job.close()
    writes.wait_for_all_writes()
    first, second = (other.out / c.folder for c in ablation_trials(other))
    assert (first / "summary.json").is_file()
    assert not (second / "summary.json").exists()
    assert (second / "checkpoint").is_dir()
    stamp = (first / "summary.json").stat().st_mtime_ns
    events = []
    done = run(ablate(other), events.append)
    assert (first / "summary.json").stat().st_mtime_ns == stamp
    assert len([e for e in events if isinstance(e, Metrics)]) == 2 * 4 - 6
    assert done.csv.read_text() == whole.csv.read_text()


def test_more_seeds_add_cells_and_other_options_are_refused(config):
    small = config.model_copy(update={"percent": (10.0,)})
    assert run(ablate(small)).cells == 2
    assert run(ablate(small.model_copy(update={"seeds": 3}))).cells == 3
    fit = config.fit.model_copy(update={"steps": 5})
    with pytest.raises(RunError, match="fit"):
        run(ablate(small.model_copy(update={"fit": fit})))


def test_a_cell_that_fails_is_told_and_survived(config):
    wild = config.fit.model_copy(update={"base_lr": 1e30, "clip_norm": 1e9})
    done = run(ablate(config.model_copy(update={"fit": wild, "percent": (10.0,)})))
    assert done.cells == 0 and len(done.failed) == 2
    assert "diverged" in done.failed[0]


def test_a_test_split_is_scored_on_where_there_is_one(config, tmp_path):
    root = tmp_path / "RaabinWBC"
    write_classes(root / "Train", dict.fromkeys(COLOURS, 3))
    write_classes(root / "TestA", dict.fromkeys(COLOURS, 1), 1000)
    write_classes(root / "TestB", {"Neutrophil": 2}, 2000)
    config = config.model_copy(
        update={"data": root, "labels": LabelsConfig(validation=0.0)}
    )
    images = study_images(config)
    assert (len(images.only(TRAIN)), len(images.only(VALIDATION))) == (15, 5)
    other = study_images(config.model_copy(update={"test_split": "testb"}))
    assert len(other.only(VALIDATION)) == 2 and len(other.classes) == 5
    with pytest.raises(ConfigError, match="no test images"):
        study_images(config.model_copy(update={"test_split": "val"}))


def test_runs_are_called_by_their_folder_unless_two_are_called_alike():
    arms = ("scratch", "mae:/data/one/run", "mae:runs\\second", "offline:lite/x")
    called = list(arm_names(arms).values())
    assert called == ["scratch", "mae:run", "mae:second", "offline:lite/x"]
    alike = ("mae:a/run", "mae:b/run/")
    assert list(arm_names(alike).values()) == list(alike)


def test_options_survive_json(config):
    assert AblationConfig.model_validate_json(config.model_dump_json()) == config
    with pytest.raises(ValueError, match="at most 100"):
        AblationConfig(percent=(101,))
    cell = AblationTrial(arm="mae:/a/b c", percent=1, seed=0)
    assert cell.folder.parts == ("cells", "mae_a_b_c", "1pc", "seed0")
    assert json.loads(json.dumps(config.same_study()))["seeds"] == 2


def test_a_cluster_gives_the_same_table(config, tmp_path):
    distributed = pytest.importorskip("distributed")
    config = config.model_copy(update={"percent": (10.0,)})
    here = run(ablate(config))
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        away = {"out": tmp_path / "away", "scheduler": cluster.scheduler_address}
        there = run(ablate(config.model_copy(update=away)))
    assert there.cells == 2 and not there.failed
    assert there.csv.read_text() == here.csv.read_text()


def test_a_cluster_that_is_not_there_is_told(config):
    pytest.importorskip("distributed")
    gone = config.model_copy(update={"scheduler": "bad://address"})
    with pytest.raises(ConfigError, match="dask-scheduler"):
        run(ablate(gone))
