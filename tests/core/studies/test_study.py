"""A study as a user runs it: a grid of cells, gone on with, one table and one figure."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os

import numpy as np
import pytest
from scipy import stats

from napari_mcm.core.errors import ConfigError, RunError
from napari_mcm.core.features.write_lock import WriteLock
from napari_mcm.core.runtime import async_writes as writes
from napari_mcm.core.runtime.jobs import Progress, run
from napari_mcm.core.studies.study import run_study
from napari_mcm.core.studies.study_config import (
    StudyConfig,
    arm_config,
    make_folds,
    make_trials,
    read_study,
)
from napari_mcm.core.studies.study_differences import (
    Row,
    compare,
    rows_of,
    t_interval,
)
from napari_mcm.core.studies.study_table import write_tables
from tests.core.conftest import stained_image

TINY = {
    "student": "random:test_efficientnet",
    "teacher": "random:test_resnet",
    "grid": {"patch_size": 32, "mpp": 1.0},
    "tissue": {"tissue_mpp": 4},
    "context": {"s": 3, "depth": 1, "heads": 4, "width": 64, "predictor_width": 64},
    "workers": 0,
}


def regions(path, width, height):
    """Two classes: the upper and the lower half of a slide."""
    features = []
    for name, top in (("upper", 0), ("lower", height // 2)):
        box = [
            (0, top),
            (width, top),
            (width, top + height // 2),
            (0, top + height // 2),
        ]
        features.append(
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [[*box, box[0]]]},
                "properties": {"classification": {"name": name}},
            }
        )
    content = {"type": "FeatureCollection", "features": features}
    path.write_text(json.dumps(content))


@pytest.fixture
def study_file(tmp_path, write_slide):
    slides = []
    for number in range(2):
        slide = write_slide(stained_image(700, 600, number), f"s{number}.ome.tif")
        regions(tmp_path / f"s{number}.geojson", 700, 600)
        slides.append({"slide": slide.name, "labels": f"s{number}.geojson"})
    content = {
        "out": "study",
        "slides": slides,
        "base": TINY,
        "arms": {
            "A": {"encoder": "student"},
            "E": {"preset": "self"},
            "F": {"options": {"optimiser": {"head_lr": 1e-3}}},
        },
        "seeds": 2,
        "against": {"F": "A"},
        "primary": ["few_shot_auroc"],
        "evaluation": {"protocol": {"draws": 2, "few_shot": 3, "strength": 1.0}},
    }
    path = tmp_path / "study.json"
    path.write_text(json.dumps(content))
    return path


def a_figure(encoder, train, test, folder, config, study):
    """Measure nothing: a figure that depends on the encoder's name alone."""
    yield Progress("Measuring", 0, 1)
    return {radius: {"length": len(encoder) + radius} for radius in study.radii}


def test_cells_come_so_that_each_arm_has_results_early(study_file):
    config = read_study(study_file)
    cells = make_trials(config, make_folds(config))
    order = [(cell.fold.name, cell.seed, cell.arm) for cell in cells]
    assert order[:5] == [
        ("s0", 0, "A"),
        ("s0", 0, "E"),
        ("s0", 0, "F"),
        ("s0", 1, "E"),
        ("s0", 1, "F"),
    ]
    assert len(order) == 10


def test_an_arm_s_options_are_over_its_preset_s_over_the_study_s(study_file):
    config = read_study(study_file)
    made = arm_config(config, "E", 3, (), None)
    assert made.teacher == "student" and made.optimiser.seed == 3
    assert made.context.s == 3
    made = arm_config(config, "F", 0, (), None)
    assert made.optimiser.head_lr == 1e-3 and made.teacher == "random:test_resnet"


def test_no_slide_that_is_tested_on_is_learned_from(study_file):
    config = read_study(study_file)
    run(run_study(config, a_figure))
    for fold in make_folds(config):
        assert not set(fold.train) & set(fold.test)
        for arm in "EF":
            folder = config.out / "cells" / fold.name / "seed-0" / arm
            learned = json.loads((folder / "run" / "config.json").read_text())["slides"]
            assert learned == [str(slide.slide) for slide in fold.train]


def test_a_study_ends_in_a_table_and_a_figure(study_file):
    config = read_study(study_file).model_copy(update={"seeds": 1})
    events = []
    result = run(run_study(config), events.append)
    assert result.cells == 6 and not result.failed
    rows = list(csv.DictReader(result.csv.open()))
    assert {(row["fold"], row["arm"]) for row in rows} == {
        (fold, arm) for fold in ("s0", "s1") for arm in "AEF"
    }
    for row in rows:
        assert 0 <= float(row["few_shot_auroc"]) <= 1
        assert float(row["effective_rank"]) > 1
    page = result.table.read_text()
    assert "| A |" in page and "| F − A |" in page
    assert page.index("few_shot_auroc") < page.index("similarity_auroc")
    assert result.figure.stat().st_size > 5000
    counted = [e for e in events if isinstance(e, Progress) and e.unit == "trials"]
    assert [e.done for e in counted if e.total == 6][-1] == 6
    assert any(
        "Trial 2/6, fold s0, seed 0, E: Fine-tuning" in e.stage
        for e in events
        if isinstance(e, Progress)
    )


def test_a_study_goes_on_within_the_cell_where_it_was(study_file):
    config = read_study(study_file)
    job = run_study(config, a_figure)
    for event in job:
        inside = isinstance(event, Progress) and "Fine-tuning" in event.stage
        if inside and event.done:
            break
    job.close()
    writes.wait_for_all_writes()
    cell = config.out / "cells" / "s0" / "seed-0" / "E"
    assert (cell / "run" / "checkpoint").is_dir()
    assert not (cell / "summary.json").exists()
    seen = []

    def judge(*args):
        seen.append(args[3].parent.name)
        return (yield from a_figure(*args))

    result = run(run_study(config, judge))
    assert result.cells == 10
    assert seen.count("features") == 1, "the first arm's fold was done already"
    stamps = {p: p.stat().st_mtime_ns for p in config.out.rglob("summary.json")}
    again = run(run_study(config, a_figure))
    assert again.cells == 10
    assert stamps == {p: p.stat().st_mtime_ns for p in config.out.rglob("summary.json")}


def test_cells_of_other_options_are_not_mixed_in(study_file):
    config = read_study(study_file).model_copy(update={"seeds": 1})
    run(run_study(config, a_figure))
    base = {**config.base, "context": {**TINY["context"], "mask_ratio": 0.3}}
    with pytest.raises(RunError, match="other options"):
        run(run_study(config.model_copy(update={"base": base}), a_figure))


def test_cells_of_an_older_program_still_count(study_file):
    config = read_study(study_file).model_copy(update={"seeds": 1})
    run(run_study(config, a_figure))
    for path in config.out.rglob("cell.json"):
        begun = json.loads(path.read_text())
        if begun["options"] is not None:
            # An option that came later; and the name of what the options say anyway.
            del begun["options"]["optimiser"]["head_windows"]
            begun["options"]["preset"] = "mcm-kd"
            path.write_text(json.dumps(begun))
    stamps = {p: p.stat().st_mtime_ns for p in config.out.rglob("summary.json")}
    run(run_study(config, a_figure))
    assert stamps == {p: p.stat().st_mtime_ns for p in config.out.rglob("summary.json")}


def test_a_cell_that_fails_is_told_and_the_others_run(study_file):
    content = json.loads(study_file.read_text())
    wild = {"optimiser": {"student_lr": 1e30, "head_lr": 1e30}}
    content["arms"] = {"wild": {"options": wild}, "A": {"encoder": "student"}}
    content |= {"against": {}, "seeds": 1}
    study_file.write_text(json.dumps(content))
    result = run(run_study(read_study(study_file), a_figure))
    assert len(result.failed) == 2 and "diverged" in result.failed[0]
    assert result.cells == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"arms": {"A": {"encoder": "student", "preset": "paper"}}}, "an arm has"),
        ({"arms": {"F": {"options": {"context": {"mask": 1}}}}}, "arm F"),
        ({"against": {"F": "Z"}}, "no arm Z"),
        ({"base": {"slides": []}}, "sets slides"),
        ({"slides": []}, "slides and arms"),
        ({"evaluation": {"protocoll": {}}}, "protocoll"),
        ({"evaluation": {"neighbourhood": {"radius": 1}}}, "radii"),
        ({"radii": [1, 1]}, "1 is there twice"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(study_file, change, said):
    content = {"against": {}, **json.loads(study_file.read_text())} | change
    if "arms" in change:
        content["against"] = {}
    study_file.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=said):
        run(run_study(read_study(study_file)))


def test_differences_are_taken_in_pairs_of_fold_and_seed():
    rows = [
        Row(fold, seed, arm, {"f": level + gain + 0.01 * seed})
        for fold, level in (("x", 0.5), ("y", 0.9))
        for seed in range(3)
        for arm, gain in (("F", 0.02), ("D", 0.0))
    ]
    found = compare(rows, "F", "D", "f")
    # Folds differ by 0.4; that is in both arms and cancels.
    assert found.mean == pytest.approx(0.02)
    assert found.low == pytest.approx(0.02) and found.high == pytest.approx(0.02)
    assert (found.pairs, found.above) == (6, 6)


def test_a_control_without_seeds_stands_for_all_of_them():
    rows = [Row("x", seed, "F", {"f": 0.6 + 0.1 * seed}) for seed in range(3)]
    rows += [Row("x", 0, "A", {"f": 0.5})]
    found = compare(rows, "F", "A", "f")
    assert found.mean == pytest.approx(0.2) and found.pairs == 3
    assert found.low < 0.2 < found.high
    assert compare(rows, "A", "missing", "f") is None
    assert np.isnan(compare(rows[:1] + rows[3:], "F", "A", "f").low)


def test_the_study_refuses_one_slide_left_out_of_one():
    with pytest.raises(ConfigError, match="two slides"):
        make_folds(StudyConfig(slides=({"slide": "a.svs"},)))


def test_the_interval_is_student_s_over_the_means_of_folds():
    rng = np.random.default_rng(0)
    gains = {(f, s): rng.normal(0.1, 0.05) for f in "wxyz" for s in range(3)}
    rows = [Row(f, s, "F", {"f": 0.5 + gain}) for (f, s), gain in gains.items()]
    rows += [Row(f, 0, "A", {"f": 0.5}) for f in "wxyz"]
    found = compare(rows, "F", "A", "f")
    means = [np.mean([gains[f, s] for s in range(3)]) for f in "wxyz"]
    expected = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    assert found.mean == pytest.approx(np.mean(means))
    assert (found.over, found.units, found.pairs) == ("folds", 4, 12)


def test_the_interval_covers_what_it_says():
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(2000):
        low, high = t_interval(rng.normal(0, 1, 4))
        inside += low <= 0 <= high
    assert inside / 2000 == pytest.approx(0.95, abs=0.02)


def test_radii_are_compared_within_an_arm():
    rows = [
        Row(fold, 0, arm, {"f": base + 0.1 * radius + gain * radius}, radius)
        for fold, base in (("x", 0.5), ("y", 0.7))
        for arm, gain in (("A", 0.0), ("F", 0.02))
        for radius in (0, 1)
    ]
    assert compare(rows, "F", "F", "f", 1, 0).mean == pytest.approx(0.12)
    assert compare(rows, "F", "A", "f", 0).mean == pytest.approx(0)
    assert compare(rows, "F", "A", "f", 1).mean == pytest.approx(0.02)


def test_a_summary_of_an_older_program_is_one_row():
    old = {
        "fold": "x",
        "seed": 1,
        "arm": "F",
        "figures": {"few_shot_auroc": 0.75, "knn_auroc": None},
        "training": {
            "windows": 10,
            "seconds": 20.0,
            "held_out": {"loss": 0.4, "constant": None},
        },
        "seconds": {"training": 20.0, "evaluation": 1.0},
    }
    (row,) = rows_of(old)
    assert (row.fold, row.seed, row.arm, row.radius) == ("x", 1, "F", 0)
    assert row.figures["few_shot_auroc"] == 0.75
    assert row.figures["held_out_loss"] == 0.4
    assert row.figures["seconds_per_window"] == 2.0
    assert np.isnan(row.figures["knn_auroc"])


def mark_and_measure(encoder, train, test, folder, config, study):
    """Leave a file per evaluation, to count how often a trial ran."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"judged-{os.getpid()}-{test[0].slide.name}"
    (folder / name).touch()
    return (yield from a_figure(encoder, train, test, folder, config, study))


def run_in_process(path):
    run(run_study(read_study(path), mark_and_measure))


def test_two_processes_share_the_trials_of_a_folder(study_file):
    content = json.loads(study_file.read_text()) | {"keep_features": True}
    study_file.write_text(json.dumps(content))
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=run_in_process, args=(study_file,)) for _ in "ab"]
    for process in both:
        process.start()
    for process in both:
        process.join(240)
        assert process.exitcode == 0
    out = read_study(study_file).out
    assert len(list(out.rglob("cells/*/*/*/summary.json"))) == 10
    judged = [path.name for path in out.rglob("judged-*")]
    assert len(judged) == 10, "a trial ran twice"
    # A process ends when all trials are finished, whoever ran them.
    assert len(list(csv.DictReader((out / "study.csv").open()))) == 10


def test_a_process_waits_for_the_trial_of_another(study_file):
    config = read_study(study_file).model_copy(update={"seeds": 1})
    arms = {"A": config.arms["A"]}
    config = config.model_copy(update={"arms": arms, "against": {}})
    held = config.out / "cells" / "s0" / "seed-0" / "A" / "summary.json"
    seen = []
    with WriteLock.take(held) as lock:

        def release(event):
            seen.append(event)
            if isinstance(event, Progress) and "another process" in event.stage:
                lock.release()

        result = run(run_study(config, a_figure), release)
    assert result.cells == 2
    order = [p.stat().st_mtime_ns for p in sorted(config.out.rglob("summary.json"))]
    assert order[0] > order[1], "the free trial ran first"


def test_arms_restrict_what_runs_and_not_what_is_shown(study_file):
    config = read_study(study_file).model_copy(update={"seeds": 1})
    run(run_study(config, a_figure, arms=["A"]))
    result = run(run_study(config, a_figure, arms=["E"]))
    rows = list(csv.DictReader(result.csv.open()))
    assert {row["arm"] for row in rows} == {"A", "E"}
    assert not list(config.out.rglob("F/summary.json"))


def test_one_pair_shows_no_interval(tmp_path):
    arms = {"A": {"encoder": "student"}, "F": {"preset": "mcm-kd"}}
    study = StudyConfig(out=tmp_path, arms=arms, against={"F": "A"}, primary=("f",))
    rows = [Row("x", 0, "F", {"f": 0.6}), Row("x", 0, "A", {"f": 0.5})]
    text = write_tables(tmp_path, rows, study)[0].read_text(encoding="utf-8")
    assert "| F − A | 0 | +0.100, 1/1 |" in text and "nan" not in text
