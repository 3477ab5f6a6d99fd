"""Measures of a trial at several context radii, on subsets, and near borders."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from napari_mcm.core.evaluation.surroundings import near_other_class
from napari_mcm.core.features.reading import read_features
from napari_mcm.core.mcm import FinetuneConfig
from napari_mcm.core.runtime.jobs import run
from napari_mcm.core.studies.study import run_study
from napari_mcm.core.studies.study_config import StudyConfig, StudySlide
from napari_mcm.core.studies.study_evaluation import evaluate_arm
from tests.core.conftest import stained_image
from tests.core.studies.test_study import TINY, a_figure, regions

PROTOCOL = {"draws": 2, "few_shot": 3, "strength": 1.0}


@pytest.fixture
def slides(tmp_path, write_slide):
    found = []
    for number in range(3):
        slide = write_slide(stained_image(500, 400, number), f"s{number}.ome.tif")
        regions(tmp_path / f"s{number}.geojson", 500, 400)
        found.append(StudySlide(slide=slide, labels=tmp_path / f"s{number}.geojson"))
    return found


def measure(train, test, folder, **study):
    config = StudyConfig(evaluation={"protocol": PROTOCOL}, **study)
    options = FinetuneConfig.model_validate(
        {**TINY, "compute": {"precision": "float32"}}
    )
    student = TINY["student"]
    return run(evaluate_arm(student, train, test, folder, options, config))


def block_means(features):
    """Average 3 × 3 patches by brute force; a gap would need a path through tissue."""
    lattice, ok = features.grid.lattice.astype(int), features.ok
    means = []
    for at in lattice:
        near = (np.abs(lattice - at).max(axis=1) <= 1) & ok
        means.append(features.features[near].astype(np.float64).mean(axis=0))
    return np.asarray(means)


def test_measures_at_a_radius_are_those_of_averaged_features(slides, tmp_path):
    found = measure(slides[:2], slides[2:], tmp_path / "f", radii=(0, 1))
    assert set(found) == {0, 1}
    sets = [read_features(p) for p in sorted((tmp_path / "f").glob("*.zarr"))]
    for radius in (0, 1):
        rows, labels, test = [], [], []
        for number, one in enumerate(sets):
            own = block_means(one) if radius else one.features.astype(np.float64)
            # The upper half is one class, the lower half the other.
            upper = one.grid.centres[:, 1] < 200
            rows.append(own[one.ok])
            labels.append(upper[one.ok])
            test += [number == 2] * int(one.ok.sum())
        x, y, held = np.concatenate(rows), np.concatenate(labels), np.asarray(test)
        scale = x[~held].std(axis=0)
        varies = scale > 1e-6 * np.abs(x[~held].mean(axis=0))
        scale = np.where(varies, scale, np.inf)
        z = (x - x[~held].mean(axis=0)) / scale / np.sqrt(x.shape[1])
        model = LogisticRegression(C=1.0, class_weight="balanced", max_iter=200)
        scores = model.fit(z[~held], y[~held]).decision_function(z[held])
        expected = roc_auc_score(y[held], scores)
        assert found[radius]["probe_auroc"] == pytest.approx(expected, abs=2e-3)
    assert found[0]["probe_auroc"] != found[1]["probe_auroc"]


def test_slides_of_one_class_are_measured_over_patients_together(slides, tmp_path):
    classes = ["pink", "blue"]
    whole = [
        StudySlide(slide=s.slide, label=classes[n % 2], patient=f"p{n // 2}")
        for n, s in enumerate([*slides, slides[0].model_copy()])
    ][:3]
    twin = tmp_path / "twin.ome.tif"
    twin.write_bytes(slides[1].slide.read_bytes())
    whole.append(StudySlide(slide=twin, label="blue", patient="p2"))
    train, test = whole[:2], whole[2:]
    found = measure(
        train, test, tmp_path / "f", pooled=True, subsets={"only-p2": ("p2",)}
    )[0]
    assert 0 <= found["few_shot_auroc"] <= 1
    assert np.isnan(found["few_shot_auroc (only-p2)"]), "one class has no AUROC"
    assert np.isfinite(found["similarity_auroc (only-p2)"])
    # One label per slide: a query's own slide holds no patch of another class.
    assert "similarity_own_slide_auroc" not in found


def test_patches_near_another_class_are_told_apart(slides, tmp_path):
    found = measure(slides[:2], slides[2:], tmp_path / "f", border=1.0)[0]
    assert {"probe_auroc (border)", "probe_auroc (inner)"} <= set(found)
    (path,) = (tmp_path / "f").glob("s2*.zarr")
    one = read_features(path)
    names = np.where(one.grid.centres[:, 1] < 200, "upper", "lower")
    places = one.grid.centres * np.asarray(one.grid.slide["mpp"])
    border = near_other_class(one, list(names), places, 1.0)
    rows = one.grid.lattice[:, 0]
    last_upper = rows[names == "upper"].max()
    ok = one.ok
    expected = np.isin(rows, [last_upper, last_upper + 1])
    # A row of the grid without tissue around has no neighbour of the other class.
    for patch in np.flatnonzero(ok):
        near = (
            np.abs(one.grid.lattice - one.grid.lattice[patch]).max(axis=1) <= 1
        ) & ok
        assert border[patch] == (names[near] != names[patch]).any()
        assert not border[patch] or expected[patch]
    assert border.any() and not border.all()


def test_a_radius_added_later_repeats_no_training(slides, tmp_path):
    content = {
        "out": str(tmp_path / "study"),
        "slides": [s.model_dump(mode="json") for s in slides[:2]],
        "base": TINY,
        "arms": {"A": {"encoder": "student"}, "F": {"preset": "mcm-kd"}},
        "seeds": 1,
    }
    config = StudyConfig.model_validate(content)
    run(run_study(config, a_figure))
    trained = [p.stat().st_mtime_ns for p in config.out.rglob("run/summary.json")]
    more = StudyConfig.model_validate({**content, "radii": [0, 1]})
    result = run(run_study(more, a_figure))
    assert trained == [
        p.stat().st_mtime_ns for p in config.out.rglob("run/summary.json")
    ]
    page = result.table.read_text()
    assert "| A | 1 |" in page and "| F | 1 − 0 |" in page
    summary = json.loads(next(config.out.rglob("F/summary.json")).read_text())
    assert set(summary["by_radius"]) == {"0", "1"}
