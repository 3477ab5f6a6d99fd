"""The click test as a measure of a study, on generated serial sections."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.evaluation.serial import ClickTest
from napari_mcm.core.mcm.windows import Source, hold_out_blocks
from napari_mcm.core.runtime.jobs import run
from napari_mcm.core.slides import open_slide
from napari_mcm.core.studies.study import run_study
from napari_mcm.core.studies.study_clicks import compare_clicks
from napari_mcm.core.studies.study_config import StudyConfig, arm_config
from napari_mcm.core.studies.study_serial import PairClicks, click_figures, read_clicks
from napari_mcm.core.synthetic import SampleConfig, generate_cohort
from napari_mcm.core.tissue import find_tissue
from tests.core.studies.test_study import TINY


@pytest.fixture(scope="module")
def sections(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sections")
    run(
        generate_cohort(folder, SampleConfig(slides=2, size=2048, serial=True, mpp=1.0))
    )
    return sorted(folder.glob("*.ome.tif"))


@pytest.fixture(scope="module")
def study(sections, tmp_path_factory):
    content = {
        "out": tmp_path_factory.mktemp("study"),
        "slides": [{"slide": sections[0]}],
        "base": {
            **TINY,
            "grid": {"patch_size": 64, "mpp": 2.0},
            "held_out": {"validation": 0.2},
        },
        "arms": {"A": {"encoder": "student"}, "F": {"preset": "mcm-kd"}},
        "against": {"F": "A"},
        "folds": "none",
        "seeds": 2,
        "radii": [0, 1],
        "serial": [{"first": sections[0], "second": sections[1]}],
        "clicks": {"queries": 60},
    }
    config = StudyConfig.model_validate(content)
    return config, run(run_study(config))


def clicks_of(config, arm, seed, radius):
    return read_clicks(config.out / "cells" / "all" / f"seed-{seed}" / arm, radius)


def test_a_study_of_serial_sections_needs_no_labels(study):
    config, result = study
    assert result.cells == 3 and not result.failed
    page = result.table.read_text()
    assert "click_recall_1 (unseen)" in page
    assert "## Click test, query by query" in page and "| F − A | 1 |" in page
    assert (config.out / "serial" / f"{config.serial[0].name}.npz").is_file()


def test_all_arms_and_radii_ask_the_same_places(study):
    config, _ = study
    name = config.serial[0].name
    rows = clicks_of(config, "A", 0, 0)[name].test.rows
    for arm, seed, radius in (("A", 0, 1), ("F", 0, 0), ("F", 1, 1)):
        assert (clicks_of(config, arm, seed, radius)[name].test.rows == rows).all()


def test_unseen_places_share_no_pixel_with_the_training(study):
    config, _ = study
    name = config.serial[0].name
    options = arm_config(config, "F", 1, [config.slides[0].slide], None)
    with open_slide(config.slides[0].slide) as slide:
        source = Source(slide, find_tissue(slide, options.tissue))
        (boxes,) = hold_out_blocks([source], options, 2.0).boxes
        mpp = np.asarray(slide.mpp)
    clicks = clicks_of(config, "F", 1, 0)[name]
    half = 64 * 2.0 / 2
    expected = [
        any(
            (place - half >= box[:2] * mpp - 0.02).all()
            and (place + half <= box[2:] * mpp + 0.02).all()
            for box in boxes
        )
        for place in clicks.test.centres_um
    ]
    assert clicks.unseen.tolist() == expected
    assert 0 < clicks.unseen.sum() < len(expected)
    # The blocks follow from the seed.
    assert (clicks_of(config, "F", 0, 0)[name].unseen != clicks.unseen).any()


def test_the_second_section_of_the_training_has_no_unseen_places(sections, study):
    config, _ = study
    both = [{"slide": path} for path in sections]
    content = config.model_dump(mode="json") | {
        "slides": both,
        "arms": {"A": {"encoder": "student"}},
        "against": {},
        "radii": [0],
    }
    config = StudyConfig.model_validate(content | {"out": str(config.out / "both")})
    run(run_study(config))
    assert not clicks_of(config, "A", 0, 0)[config.serial[0].name].unseen.any()


def made_up(ranks, places, unseen=None):
    many = len(ranks)
    ranks = np.asarray(ranks)
    test = ClickTest(
        np.arange(many), np.asarray(places, float), ranks, ranks + 3, ranks,
        np.full(many, 9), np.full(many, 1), 1000, 0,
    )  # fmt: skip
    return PairClicks(test, np.zeros(many, bool) if unseen is None else unseen)


def test_arms_are_compared_query_by_query():
    rng = np.random.default_rng(0)
    places = rng.uniform(0, 5000, (200, 2))
    base = rng.integers(1, 4, 200)
    theirs = {("all", 0): {"p": made_up(base, places)}}
    unseen = np.arange(200) < 50
    better = {}
    for seed in range(3):
        ranks = np.where(rng.random(200) < 0.3, 1, base)
        better["all", seed] = {"p": made_up(ranks, places, unseen)}
    found = compare_clicks(better, theirs)
    gains = [
        (clicks["p"].test.wide == 1).astype(float) - (base == 1)
        for clicks in better.values()
    ]
    assert found.mean == pytest.approx(np.mean(gains))
    assert (found.queries, found.count) == (200, 3)
    per_query = np.mean(gains, axis=0)
    # The bootstrap over squares, by brute force.
    _, square = np.unique(places // 1000, axis=0, return_inverse=True)
    square = square.ravel()
    sums = np.bincount(square, per_query)
    counts = np.bincount(square)
    draws = []
    for _ in range(4000):
        drawn = rng.integers(0, len(sums), len(sums))
        draws.append(sums[drawn].sum() / counts[drawn].sum())
    low, high = np.percentile(draws, [2.5, 97.5])
    assert found.places == pytest.approx((low, high), abs=0.015)
    only = compare_clicks(better, theirs, unseen=True)
    assert only.queries == 50
    assert only.mean == pytest.approx(np.mean(np.asarray(gains)[:, :50]))


def test_figures_count_over_all_pairs():
    first = made_up([1, 1, 5, 20], np.zeros((4, 2)))
    second = made_up([2, 2], np.zeros((2, 2)))
    found = click_figures({"p": first, "q": second})
    assert found["click_recall_1"] == pytest.approx(2 / 6)
    assert found["click_recall_10"] == pytest.approx(5 / 6)
    assert found["click_recall_10_near"] == pytest.approx(5 / 6)
    assert found["click_recall_1 [q]"] == 0
    assert found["click_median_rank"] == 2
    assert found["click_chance_1"] == pytest.approx(9 / 1000)
    assert "click_recall_1 (unseen)" not in found


def test_wrong_options_of_the_click_test_are_said_before_any_trial(study):
    config, _ = study
    wrong = config.model_copy(update={"clicks": {"query": 3}, "out": config.out / "x"})
    with pytest.raises(ConfigError, match="query"):
        run(run_study(wrong))
