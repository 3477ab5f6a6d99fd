"""Figures and their intervals, against cases that are known."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mcm.core.mil import metrics
from napari_mcm.core.mil.config import FiguresConfig
from napari_mcm.core.mil.metrics import (
    Predictions,
    all_scores,
    auroc_of,
    bootstrap,
    calibration,
    main_scores,
)
from napari_mcm.core.mil.plots import draw_confusion, readable_on, write_plots
from napari_mcm.core.mil.resampled_scores import ResampledScores
from napari_mcm.core.mil.results import (
    compute_figures,
    figures_table,
    write_predictions,
)
from napari_mcm.core.runtime.jobs import run


def predictions(labels, probabilities, patients=None, classes=("a", "b")):
    names = tuple(f"s{i}" for i in range(len(labels)))
    return Predictions(
        names,
        tuple(patients or names),
        tuple(str(i % 2) for i in range(len(labels))),
        np.asarray(labels),
        np.asarray(probabilities, np.float64),
        tuple(classes),
    )


def two(positive):
    positive = np.asarray(positive, np.float64)
    return np.stack([1 - positive, positive], axis=1)


def test_figures_of_a_case_by_hand():
    labels = np.array([0, 0, 1, 1])
    found = main_scores(labels, two([0.1, 0.6, 0.4, 0.9]), 10)
    # Three of the four pairs are in order; one of two is right in each class.
    assert found["auroc"] == pytest.approx(0.75)
    assert found["balanced_accuracy"] == found["f1"] == pytest.approx(0.5)
    # Sure by .9 twice and right, by .6 twice and wrong.
    assert found["ece"] == pytest.approx(0.5 * 0.1 + 0.5 * 0.6)


def test_a_degenerate_predictor_scores_as_the_majority():
    case = predictions([0] * 8 + [1] * 2, two([0.3] * 10))
    mine = main_scores(case.labels, case.probabilities, 10)
    base = main_scores(case.labels, case.baseline, 10)
    assert mine["auroc"] == base["auroc"] == 0.5
    assert mine["balanced_accuracy"] == base["balanced_accuracy"] == 0.5
    assert base["ece"] == pytest.approx(0)


def test_three_classes_are_each_scored_against_the_rest():
    probabilities = np.eye(3)[[0, 1, 2, 2]] * 0.8 + 0.2 / 3
    labels = np.array([0, 1, 2, 1])
    areas = auroc_of(labels, probabilities)
    assert set(areas) == {0, 1, 2}
    assert areas[0] == 1 and areas[1] == pytest.approx(0.75)
    found = all_scores(predictions(labels, probabilities, classes="xyz"), 10)
    assert found["confusion"] == [[1, 0, 0], [0, 1, 1], [0, 0, 1]]
    assert found["auroc"] == pytest.approx(np.mean(list(areas.values())))


def test_a_class_that_is_missing_is_left_out_and_not_made_up():
    found = main_scores(np.array([1, 1]), two([0.9, 0.8]), 10)
    assert np.isnan(found["auroc"]) and found["balanced_accuracy"] == 1


def test_calibration_counts_every_slide_once():
    rng = np.random.default_rng(0)
    positive = rng.uniform(size=500)
    labels = (rng.uniform(size=500) < positive).astype(int)
    curve = calibration(labels, two(positive), 10)
    assert curve.counts.sum() == 500 and curve.error < 0.08
    sure = calibration(labels, two((positive > 0.5) * 0.98 + 0.01), 10)
    assert sure.error > 0.15


def statistic(values):
    return lambda counts: {"mean": counts @ values / counts.sum(axis=1)}


def test_an_interval_covers_what_theory_says():
    values = np.random.default_rng(0).standard_normal(400)
    units = [str(i) for i in range(400)]
    low, high = run(bootstrap(statistic(values), units, 600, ""))["mean"]
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.2)


def test_slides_of_a_patient_are_drawn_together():
    values = np.repeat(np.random.default_rng(0).standard_normal(50), 8)
    slides = [str(i) for i in range(400)]
    patients = [str(i // 8) for i in range(400)]
    ends = [
        run(bootstrap(statistic(values), units, 400, ""))["mean"]
        for units in (slides, patients)
    ]
    by_slide, by_patient = (high - low for low, high in ends)
    # Copies add nothing: the interval is that of 50, not of 400.
    assert by_patient == pytest.approx(by_slide * np.sqrt(8), rel=0.25)


def test_draws_are_the_same_for_all_who_ask():
    values = np.arange(30.0)
    units = [str(i) for i in range(30)]
    one, again = (run(bootstrap(statistic(values), units, 50, "")) for _ in range(2))
    assert one == again


def one_by_one(case, units, resamples, bins=10, seed=0):
    """Bootstrap sample by sample, with scikit-learn's metrics on the rows drawn."""
    names, place = np.unique(np.asarray(units), return_inverse=True)
    rows = [np.flatnonzero(place == unit) for unit in range(len(names))]
    rng = np.random.default_rng([seed, 5])
    found = []
    for _ in range(resamples):
        drawn = np.concatenate(
            [rows[i] for i in rng.integers(0, len(names), len(names))]
        )
        found.append(main_scores(case.labels[drawn], case.probabilities[drawn], bins))
    return found


@pytest.mark.parametrize(
    ("slides", "classes", "ties"), [(10, 2, False), (12, 3, True), (45, 4, False)]
)
def test_all_samples_at_once_are_each_of_them(slides, classes, ties):
    rng = np.random.default_rng(slides)
    labels = rng.permutation(np.arange(slides) % classes)
    scores = np.eye(classes)[labels] + rng.uniform(0, 2, (slides, classes))
    if ties:
        scores = np.round(2 * scores) + 1
    case = predictions(
        labels,
        scores / scores.sum(1, keepdims=True),
        [f"p{i // 2}" for i in range(slides)],
        tuple("abcd")[:classes],
    )
    kept = {}

    def follow(counts):
        kept.setdefault("values", []).append(scores_of(counts))
        return kept["values"][-1]

    scores_of = ResampledScores(case.labels, case.probabilities, 10)
    intervals = run(bootstrap(follow, case.patients, 60, ""))
    expected = one_by_one(case, case.patients, 60)
    (values,) = kept["values"]
    for name in expected[0]:
        each = np.array([one[name] for one in expected])
        np.testing.assert_allclose(values[name], each, atol=1e-12, err_msg=name)
        ends = np.percentile(each[np.isfinite(each)], [2.5, 97.5])
        np.testing.assert_allclose(intervals[name], ends, atol=1e-12)


def test_blocks_of_samples_are_the_same_samples(monkeypatch):
    values = np.random.default_rng(0).standard_normal(30)
    units = [str(i) for i in range(30)]
    whole = run(bootstrap(statistic(values), units, 50, ""))
    monkeypatch.setattr(metrics, "_AT_ONCE", 30 * 7)
    events = []
    parts = run(bootstrap(statistic(values), units, 50, ""), events.append)
    assert parts["mean"] == pytest.approx(whole["mean"], abs=1e-12)
    assert [event.done for event in events] == [7, 14, 21, 28, 35, 42, 49, 50]


def test_everything_is_written_and_the_baseline_stands_beside(tmp_path):
    rng = np.random.default_rng(1)
    labels = np.arange(40) % 3
    scores = np.eye(3)[labels] + rng.uniform(0, 1.2, (40, 3))
    case = predictions(
        labels,
        scores / scores.sum(1, keepdims=True),
        [f"p{i // 4}" for i in range(40)],
        ("a", "b", "c"),
    )
    figures = run(compute_figures(case, FiguresConfig(resamples=20)))
    lines = figures_table(figures)
    assert "majority" in lines[0] and lines[1].startswith("auroc")
    assert "0.500" in lines[1]
    events = []
    written = run(write_plots(tmp_path, case, 10), events.append)
    # It can be left before each of the four.
    assert [event.done for event in events] == [0, 1, 2, 3]
    assert len(written) == 8 and all(p.stat().st_size > 1000 for p in written)
    write_predictions(tmp_path / "p.csv", case)
    header = (tmp_path / "p.csv").read_text().splitlines()[0]
    assert header == "slide,patient,fold,label,predicted,p_a,p_b,p_c"


def luminance(colour):
    channels = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour
    ]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), channels, strict=True))


@pytest.mark.parametrize("share", np.linspace(0, 1, 21))
def test_numbers_stand_out_from_their_cells(share):
    import matplotlib

    ground = matplotlib.colormaps["Blues"](share)[:3]
    text = {"black": (0, 0, 0), "white": (1, 1, 1)}[readable_on(ground)]
    light, dark = sorted((luminance(ground), luminance(text)), reverse=True)
    # WCAG asks for 4.5.
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_the_confusion_matrix_names_its_classes_in_full():
    names = ("invasive ductal carcinoma", "ductal_carcinoma_in_situ", "normal tissue")
    labels = np.array([0, 0, 1, 2, 2, 2])
    case = predictions(labels, np.eye(3)[[0, 1, 1, 2, 2, 0]], classes=names)
    figure = draw_confusion(case)
    figure.canvas.draw()
    (ax,) = figure.axes
    assert [t.get_text() for t in ax.texts[:2]] == ["1\n50 %", "1\n50 %"]
    for axis in (ax.xaxis, ax.yaxis):
        found = [label.get_text().replace("\n", " ") for label in axis.get_ticklabels()]
        assert found == [name.replace("_", " ") for name in names]
        for label in axis.get_ticklabels():
            box = label.get_window_extent()
            assert box.x0 >= 0 and box.y0 >= 0
            assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
            # Shown 300 px wide, it is still 11 px high.
            assert label.get_fontsize() / 72 * 300 / figure.get_figwidth() >= 11
    # The numbers do not overlap.
    boxes = [text.get_window_extent() for text in ax.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
