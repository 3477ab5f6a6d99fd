"""The registered protocols and the sweep make studies that can run."""

from __future__ import annotations

import csv
import json
from collections import Counter

import pytest
from benchmarks.studies.figure_1b import make_study, relative_table
from benchmarks.studies.prepare import HERE, PROTOCOLS, prepare
from benchmarks.studies.sweep import sweep_config, write_sweep

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.runtime.jobs import run
from napari_mcm.core.studies.study import run_study
from napari_mcm.core.studies.study_config import arm_config, make_folds, make_trials
from tests.core.studies.test_study import TINY


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data" / "patches" / "glas"
    folder.mkdir(parents=True)
    patients = ("2", "4", "6", "8", "10", "11", "12", "13", "14", "15", "16")
    lines = ["image,patient,label", *(f"a{p}.jpg,{p},benign" for p in patients)]
    (folder / "labels.csv").write_text("\n".join(lines))
    return tmp_path / "data"


def _visible(context):
    masks = context.context_mode not in ("none", "neighbours")
    return 1 - context.mask_ratio if masks or context.context_mode == "none" else 1


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_makes_a_valid_study(name, data, tmp_path):
    study = prepare(name, data, tmp_path)
    content = json.loads((HERE / f"{name}.json").read_text())
    assert list(study.arms) == content["arms"]
    assert study.radii == (0, 1) and study.primary
    trained = [a for a, arm in study.arms.items() if arm.encoder is None]
    options = [arm_config(study, arm, 0, (), None) for arm in trained]
    assert len({o.context.context_mode for o in options}) == len(trained)
    # Else they differ in their rates, and in placements, so that all students are
    # trained on the same number of patches: D and N see twice as many of a window.
    budget = {"placements", "student_lr"}
    how = {o.optimiser.model_dump_json(exclude=budget) for o in options}
    assert len(how) == 1
    seen = {o.optimiser.placements * _visible(o.context) for o in options}
    assert len(seen) == 1
    assert len({o.target.model_dump_json() for o in options}) == 1
    assert all(o.compute.threads == 1 for o in options)
    assert make_trials(study, make_folds(study))
    for arm, controls in study.controls.items():
        assert {arm, *controls} <= set(study.arms)


def test_folds_of_glas_divide_patients(data, tmp_path):
    folds = make_folds(prepare("glas", data, tmp_path))
    assert len(folds) == 4
    for fold in folds:
        ours, others = ({s.patient for s in part} for part in (fold.test, fold.train))
        assert not ours & others


def test_each_fold_of_glas_has_both_labels(shared_data):
    folder = shared_data / "patches" / "glas"
    if not folder.is_dir():
        pytest.skip("GlaS is not there")
    with (folder / "labels.csv").open() as opened:
        rows = list(csv.DictReader(opened))
    patients = json.loads((HERE / "glas.json").read_text())["patients"]
    fold_of = {p: fold for fold, group in patients.items() for p in group}
    counts = Counter((fold_of[row["patient"]], row["label"]) for row in rows)
    assert len(counts) == 8 and min(counts.values()) >= 4
    both = json.loads((HERE / "glas.json").read_text())["study"]["subsets"]
    kinds = {(row["patient"], row["label"]) for row in rows}
    known = Counter(patient for patient, _ in kinds)
    assert {p for p, n in known.items() if n == 2} == set(both["both-labels"])


def test_a_patient_without_fold_is_refused(data, tmp_path):
    table = data / "patches" / "glas" / "labels.csv"
    table.write_text(table.read_text() + "\nb.jpg,99,benign")
    with pytest.raises(ConfigError, match="patient 99"):
        prepare("glas", data, tmp_path)


def test_a_sweep_has_an_arm_per_combination(data, tmp_path):
    content = {
        "protocol": "click-crc",
        "serial": [["crc_section1", "crc_section3"]],
        "seeds": 1,
        "base": {"optimiser.placements": 3},
        "arms": {"slow": {"optimiser.student_lr": 1e-5}},
        "grid": {
            "context.context_mode": ["none", "masked"],
            "optimiser.student_lr": [2e-4, 1e-3],
        },
    }
    config = sweep_config(content, data, tmp_path / "sweep")
    assert list(config.arms) == [
        "A", "B", "slow", "none_0.0002", "none_0.001", "masked_0.0002", "masked_0.001",
    ]  # fmt: skip
    made = arm_config(config, "masked_0.001", 0, (), None)
    assert made.context.context_mode == "masked"
    assert made.optimiser.student_lr == 1e-3 and made.optimiser.placements == 3
    assert [pair.name for pair in config.serial] == ["crc_section1-crc_section3"]

    for arm, recall in (("slow", 0.3), ("none_0.001", 0.5)):
        folder = config.out / "cells" / "all" / "seed-0" / arm
        folder.mkdir(parents=True)
        figures = {"click_recall_1": recall}
        summary = {
            "fold": "all",
            "seed": 0,
            "arm": arm,
            "figures": figures,
            "by_radius": {"0": figures, "1": {"click_recall_1": 0.9}},
            "training": {},
        }
        (folder / "summary.json").write_text(json.dumps(summary))
    table = write_sweep(config)
    assert table.index("none_0.001") < table.index("slow"), "the best comes first"
    rows = list(csv.DictReader((config.out / "sweep.csv").open()))
    assert [(row["arm"], row["radius"]) for row in rows] == [
        ("none_0.001", "0"), ("none_0.001", "1"), ("slow", "0"), ("slow", "1"),
    ]  # fmt: skip


def test_slide_classifiers_are_tested_on_slides_that_no_encoder_has_seen(tmp_path):
    protocol = {
        "arms": ["A", "B"],
        "cohort": {"slides": 14, "size": 512, "seed": 1, "mpp": 1.0},
        "train": 2,
        "mil": {
            "aggregator": {"model": "clam_sb", "hidden": 16, "width": 8},
            "training": {"epochs": 2, "min_epochs": 1},
            "split": {"folds": 3},
            "figures": {"resamples": 20},
        },
        "study": {
            "base": TINY | {"grid": {"mpp": 2.0, "patch_size": 32}},
            "folds": "none",
            "radii": [0, 1],
            "seeds": 1,
            "primary": ["mil_auroc"],
        },
    }
    config, evaluator = make_study(tmp_path, field_effect=False, protocol=protocol)
    result = run(run_study(config, evaluator))
    assert not result.failed and result.cells == 2
    learned = {slide.slide.name.split(".")[0] for slide in config.slides}
    with (config.out / "mil.csv").open() as opened:
        tested = {row["slide_id"].split(".")[0] for row in csv.DictReader(opened)}
    assert len(learned) == 2 and len(tested) == 12 and not learned & tested
    lines = relative_table(config).splitlines()
    assert len(lines) == 2 + 2 * 2
    teacher = next(line for line in lines if line.startswith("| B | 0 |"))
    assert teacher.split(" | ")[3] == "1.000"
    for line in lines[2:]:
        parameters, multiply_adds, spent = map(float, line.strip("| ").split(" | ")[4:])
        assert parameters >= 0 and multiply_adds >= 0 and spent > 0
