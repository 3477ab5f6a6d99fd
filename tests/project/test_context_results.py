"""The page of context: figures, intervals and the rule, from folders finished or not."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from benchmarks.results import context_picture, context_studies, pages
from benchmarks.results.context_classifiers import (
    classifier_difference,
    classifier_table,
)
from benchmarks.results.context_folders import (
    FEW_SHOT,
    RECALL_1,
    RECALL_1_NEAR,
    Value,
    read_study_folder,
)
from benchmarks.results.context_rule import decide, expected_table, rule_text
from benchmarks.results.context_sweep import chosen_of, read_sweep, sweep_table
from benchmarks.studies.sweep import write_sweep
from scipy import stats

from napari_mcm.core.evaluation.serial import ClickTest
from napari_mcm.core.mil.metrics import Predictions
from napari_mcm.core.mil.results import write_predictions
from napari_mcm.core.studies.study_config import StudyConfig

MODES = {"D": "none", "F-l2": "masked", "X": "foreign", "N": "neighbours"}
ARMS = {
    "A": {"encoder": "student"},
    "B": {"encoder": "teacher"},
    **{
        arm: {"options": {"context": {"context_mode": mode}}}
        for arm, mode in MODES.items()
    },
}
QUERIES = 400


def write_config(folder, **more):
    content = {
        "slides": [{"slide": f"{name}.svs"} for name in ("one", "two")],
        "arms": ARMS,
        "radii": [0, 1],
        "out": "/elsewhere",
        **more,
    }
    folder.mkdir(parents=True)
    text = StudyConfig.model_validate(content).model_dump_json()
    (folder / "study.json").write_text(text)


def write_trial(folder, arm, seed, by_radius, fold="all", **more):
    cell = folder / "cells" / fold / f"seed-{seed}" / arm
    cell.mkdir(parents=True, exist_ok=True)
    summary = {
        "fold": fold,
        "seed": seed,
        "arm": arm,
        "figures": by_radius[0],
        "by_radius": {str(radius): found for radius, found in by_radius.items()},
        "training": {},
        **more,
    }
    (cell / "summary.json").write_text(json.dumps(summary))
    return cell


def write_clicks(folder, arm, seed, hits, unseen=None):
    """Write a trial whose queries are found or not, at each radius."""
    cell = write_trial(folder, arm, seed, {radius: {} for radius in hits})
    content = {}
    # Squares of 1 mm with 4 queries each.
    centres = [(1000.0 * (q // 4 % 20), 1000.0 * (q // 80)) for q in range(QUERIES)]
    for radius, found in hits.items():
        ranks = np.where(found, 1, 50)
        test = ClickTest(
            np.arange(QUERIES), np.asarray(centres), ranks, ranks + 1, ranks,
            np.full(QUERIES, 9), np.full(QUERIES, 1), 1000, 0,
        )  # fmt: skip
        places = np.zeros(QUERIES, bool) if unseen is None else unseen
        content[str(radius)] = {
            "a-b": {**test.to_json(), "unseen": np.asarray(places).tolist()}
        }
    (cell / "clicks.json").write_text(json.dumps(content))


def hits(share, seed):
    return np.random.default_rng(seed).random(QUERIES) < share


@pytest.fixture
def clicks(tmp_path):
    """Two finished seeds of three for F, one for D, none for N and X."""
    folder = tmp_path / "click-crc"
    serial = [{"first": "a.svs", "second": "b.svs"}]
    write_config(folder, folds="none", serial=serial, seeds=3)
    write_clicks(folder, "A", 0, {0: hits(0.2, 1), 1: hits(0.7, 2)})
    write_clicks(folder, "D", 0, {0: hits(0.3, 3), 1: hits(0.8, 4)})
    for seed in (0, 1):
        write_clicks(folder, "F-l2", seed, {0: hits(0.4, 5 + seed), 1: hits(0.9, 8)})
    return folder


def test_recall_is_the_mean_of_the_hits_with_an_interval_over_places(clicks):
    study = read_study_folder(clicks)
    value = study.value(RECALL_1, "F-l2", 0)
    by_query = np.mean([hits(0.4, 5), hits(0.4, 6)], axis=0)
    assert value.mean == pytest.approx(by_query.mean())
    # All squares have four queries: the interval is that of a mean of square means.
    squares = by_query.reshape(-1, 4).mean(axis=1)
    half = 1.96 * squares.std(ddof=1) / np.sqrt(len(squares))
    expected = value.mean - half, value.mean + half
    assert value.interval == pytest.approx(expected, abs=0.12 * half)
    assert (value.done, value.planned) == (2, 3) and not value.complete
    assert study.value(RECALL_1_NEAR, "F-l2", 0).mean == 0
    assert study.value(RECALL_1, "N", 0) is None


def test_a_trained_control_is_paired_with_its_own_seeds(clicks):
    study = read_study_folder(clicks)
    against_a = study.difference(RECALL_1, "F-l2", 0, "A")
    both = np.mean([hits(0.4, 5), hits(0.4, 6)], axis=0)
    assert against_a.mean == pytest.approx((both - hits(0.2, 1)).mean())
    assert against_a.done == 2 and np.isfinite(against_a.seeds).all()
    # Of D only seed 0 is finished, so seed 1 of F has no partner.
    against_d = study.difference(RECALL_1, "F-l2", 0, "D")
    gain = hits(0.4, 5).mean() - hits(0.3, 3).mean()
    assert against_d.mean == pytest.approx(gain) and against_d.done == 1
    assert study.difference(RECALL_1, "F-l2", 0, "X") is None
    radii = study.difference(RECALL_1, "A", 1, "A", 0)
    assert radii.mean == pytest.approx(hits(0.7, 2).mean() - hits(0.2, 1).mean())


def test_places_held_out_are_apart_from_those_trained_on(tmp_path):
    folder = tmp_path / "click-crc"
    serial = [{"first": "a.svs", "second": "b.svs"}]
    write_config(folder, folds="none", serial=serial, seeds=1)
    held_out = np.arange(QUERIES) < 100
    write_clicks(folder, "A", 0, {0: hits(0, 1), 1: hits(0, 1)})
    write_clicks(folder, "N", 0, {0: ~held_out, 1: held_out}, held_out)
    table = context_studies.places_table(read_study_folder(folder))
    (alone,) = re.findall(r"\| N − A \| patch \|(.+)\|", table)
    (around,) = re.findall(r"\| N − A \| 3 × 3 \|(.+)\|", table)
    assert [cell.split()[0] for cell in alone.split("|")] == ["+1.000", "+0.000"]
    assert [cell.split()[0] for cell in around.split("|")] == ["+0.000", "+1.000"]


@pytest.fixture
def glas(tmp_path):
    """Three finished folds of four for A and D, two for N."""
    folder = tmp_path / "glas"
    names = ("f1", "f2", "f3", "f4")
    slides = [{"slide": f"{n}.jpg", "label": "benign", "fold": n} for n in names]
    write_config(folder, slides=slides, seeds=1)
    for place, fold in enumerate(names[:3]):
        for arm, gain in (("A", 0), ("D", 0.02), ("N", 0.1 + 0.02 * place)):
            if arm != "N" or place < 2:
                own = 0.6 + 0.05 * place + gain
                figures = {
                    r: {"few_shot_auroc": own + 0.2 * r,
                        "few_shot_auroc (both-labels)": own - 0.3}
                    for r in (0, 1)
                }  # fmt: skip
                write_trial(folder, arm, 0, figures, fold)
    return folder


def test_labels_have_a_t_interval_over_the_finished_folds(glas):
    study = read_study_folder(glas)
    value = study.value(FEW_SHOT, "A", 1)
    folds = np.array([0.8, 0.85, 0.9])
    half = stats.t.ppf(0.975, 2) * folds.std(ddof=1) / np.sqrt(3)
    assert value.mean == pytest.approx(0.85)
    assert value.interval == pytest.approx((0.85 - half, 0.85 + half))
    # Folds that only one of the two has finished are left out.
    gain = study.difference(FEW_SHOT, "N", 0, "A")
    assert gain.mean == pytest.approx(0.11) and (gain.done, gain.above) == (2, 2)
    told = context_studies.difference_text(gain)
    assert told.startswith("+0.110 [") and told.endswith("2/2 (2 of 4 trials)")
    parts = context_studies.parts_table(study, ["both-labels"])
    assert "| A | patch | 0.350 [" in parts


def test_a_seed_that_a_trained_control_lacks_is_left_out(tmp_path):
    write_config(tmp_path / "glas", seeds=2)
    for arm, seed, own in (("D", 0, 0.6), ("N", 0, 0.7), ("N", 1, 0.9)):
        figures = {r: {"few_shot_auroc": own} for r in (0, 1)}
        write_trial(tmp_path / "glas", arm, seed, figures, "one")
    found = read_study_folder(tmp_path / "glas").difference(FEW_SHOT, "N", 0, "D")
    assert found.mean == pytest.approx(0.1) and found.done == 1


def gain(mean, half, seeds=None, done=3):
    ends = (mean - half, mean + half)
    return Value(mean, ends, done, 3, seeds or (float("nan"),) * 2)


@pytest.mark.parametrize(
    ("gains", "chosen"),
    [
        # The highest lower bound counts, not the highest mean.
        ({"D": gain(0.10, 0.02), "F-l2": gain(0.15, 0.10)}, "D"),
        # The bound over seeds counts where it is lower.
        ({"D": gain(0.10, 0.02, (-0.01, 0.2)), "N": gain(0.05, 0.03)}, "N"),
        ({"D": gain(0.01, 0.02), "F-l2": gain(-0.1, 0.02), "N": gain(0, 0.1)}, None),
    ],
)
def test_the_rule_takes_the_highest_lower_bound(clicks, monkeypatch, gains, chosen):
    study = read_study_folder(clicks)
    monkeypatch.setattr(
        type(study), "difference", lambda _, measure, arm, *how: gains.get(arm)
    )
    found = decide(study)
    assert found.arm == chosen
    assert found.complete == (len(gains) == 3)
    told = rule_text(study)
    assert (f"chooses **{chosen}**" in told) == (chosen is not None)
    assert ("the default stays" in told) == (chosen is None)
    assert ("provisional" in told) == (len(gains) < 3)


def test_the_rule_looks_at_the_radius_that_is_the_default(clicks):
    study = read_study_folder(clicks)
    for radius in (0, 1):
        found = decide(study, radius).gains["F-l2"]
        assert found == study.difference(RECALL_1, "F-l2", radius, "A")
    assert decide(study).gains["N"] is None
    assert "*Not run yet*" in rule_text(None)


def test_expectations_are_judged_by_the_figures(clicks, glas):
    studies = {"click-crc": read_study_folder(clicks), "glas": read_study_folder(glas)}
    lines = expected_table(studies).splitlines()
    assert lines[2].startswith("| `click-crc`: F-l2 − A") and "yes, so far" in lines[2]
    assert "not run yet" in lines[3]
    assert "yes, so far" in lines[5] or "no, so far" in lines[5]


def test_the_page_names_what_is_missing_and_makes_up_no_figure(tmp_path):
    values = context_studies.values(tmp_path, tmp_path, tmp_path)
    wanted = set(re.findall(r"<<([\w-]+)>>", pages.template("context")))
    assert wanted == set(values)
    for name, text in values.items():
        assert not re.search(r"\d\.\d{2}", text), name
    assert not context_studies.there(tmp_path)
    assert (
        "*Not run yet*: `python -m benchmarks.studies.prepare glas`"
        in values["glas-differences"]
    )


def test_a_partly_finished_study_fills_the_page(clicks, glas, tmp_path):
    values = context_studies.values(tmp_path, tmp_path, tmp_path)
    assert context_studies.there(tmp_path)
    assert (tmp_path / context_picture.FILE).stat().st_size > 1000
    assert "| `click-crc` | 4 of 14 |" in values["state"]
    arms = values["arms"].splitlines()
    a = next(line for line in arms if line.startswith("| A untouched | 3 × 3 |"))
    assert f"{hits(0.7, 2).mean():.3f} [" in a and "0.850 [" in a
    assert "not run yet" in a, "HER2ST is missing"
    assert "| F-l2 − A | patch | yes |" in values["click-crc-differences"]
    assert "| D − A | patch | no |" in values["click-crc-differences"]
    assert "| X − A | patch | no |" in values["click-crc-differences"]
    assert "*Not run yet*" in values["her2st-parts"]


def test_the_sweep_is_read_from_its_table(clicks, tmp_path):
    rates = {"slow": 3e-4, "fast": 2e-3}
    options = {
        arm: {"options": {"context": {"context_mode": "neighbours"},
                          "optimiser": {"student_lr": rate}}}
        for arm, rate in rates.items()
    }  # fmt: skip
    write_config(tmp_path / "sweep", arms={"A": ARMS["A"], **options}, folds="none")
    text = (tmp_path / "sweep" / "study.json").read_text()
    out = {"out": str(tmp_path / "sweep")}
    config = StudyConfig.model_validate({**json.loads(text), **out})
    for arm, recall in (("A", 0.2), ("slow", 0.3), ("fast", 0.4)):
        figures = {r: {"click_recall_1": recall + 0.5 * r} for r in (0, 1)}
        write_trial(tmp_path / "sweep", arm, 0, figures)
    write_sweep(config)
    tried = read_sweep(tmp_path)
    assert [one.arm for one in tried] == ["fast", "slow", "A"]
    table = sweep_table(tmp_path, None).splitlines()
    assert table[0].startswith("| arm | student_lr | patch: @1 within 2 |")
    assert table[2].startswith("| N | 0.002 | 0.400 |") and "| 0.900 |" in table[2]
    # The row with the options that the registered study has.
    study = read_study_folder(clicks)
    for rate, arms in ((7e-4, {}), (2e-3, {"neighbours": tried[0]})):
        base = {"optimiser": {"student_lr": rate}}
        used = replace(study, config=study.config.model_copy(update={"base": base}))
        assert chosen_of(tried, used) == arms
    assert sweep_table(tmp_path, used).count("**N**") == 1


def write_classifiers(folder, scores, labels):
    """Write what a training of slide classifiers predicted; two slides per patient."""
    folder.mkdir(parents=True)
    classes = ("normal", "tumour")
    (folder / "folds.json").write_text(json.dumps({"classes": classes}))
    many = len(labels)
    found = Predictions(
        tuple(f"s{n}" for n in range(many)),
        tuple(f"p{n // 2}" for n in range(many)),
        ("1",) * many,
        np.asarray(labels),
        np.column_stack([1 - scores, scores]),
        classes,
    )
    write_predictions(folder / "predictions.csv", found)


def test_classifiers_are_compared_patient_by_patient(tmp_path):
    folder = tmp_path / "figure-1b"
    write_config(folder, folds="none", seeds=1)
    labels = np.arange(40) // 2 % 2
    rng = np.random.default_rng(0)
    weak = np.clip(0.5 + 0.3 * rng.standard_normal(40), 0, 1)
    perfect = 0.2 + 0.6 * labels
    for arm, place in (("A", "features/A"), ("B", "features/B"),
                       ("N", "cells/all/seed-0/N/features")):  # fmt: skip
        for radius in (0, 1):
            scores = perfect if (arm, radius) == ("N", 1) else weak
            write_classifiers(folder / f"{place}-mil-r{radius}", scores, labels)
        figures = {r: {"mil_auroc": 0.5 + 0.1 * r} for r in (0, 1)}
        cost = {"parameters": 3_370_000, "multiply_adds": 106_000_000}
        write_trial(folder, arm, 0, figures, cost=cost)
    study = read_study_folder(folder)
    above = weak[labels == 1][:, None] > weak[labels == 0]
    found = classifier_difference(study, "N", 1, "A", 1)
    assert found.mean == pytest.approx(1 - above.mean())
    assert 0 < found.interval[0] < found.mean < found.interval[1]
    same = classifier_difference(study, "N", 0, "A", 0)
    assert (same.mean, same.interval) == (0, (0, 0))
    assert classifier_difference(study, "D", 0, "A", 0) is None
    table = classifier_table(study)
    assert "| N | 1 | 0.600 | 1.200 | +" in table and "| 3.37 | 0.106 |" in table
    assert "| D | 0 | not run yet |" in table


def test_a_table_of_a_page_is_found_by_its_heading():
    table = pages.table("mil", "Does MCM-KD help?")
    assert table.startswith("|") and "\n| F |" in table
    with pytest.raises(LookupError, match="no heading"):
        pages.table("mil", "Spleens")


def test_a_sentence_has_a_figure_without_its_interval(monkeypatch):
    name = "mil / Does MCM-KD help? / F / AUROC"
    both = f"<<{name} / mean>> of <<{name}>>"
    monkeypatch.setattr(pages, "template", lambda _: both)
    mean, whole = pages.summary().split(" of ")
    assert re.fullmatch(r"\d\.\d{3}", mean) and whole.startswith(f"{mean} [")
