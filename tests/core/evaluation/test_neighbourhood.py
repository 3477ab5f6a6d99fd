"""Encoders compared on averages over the tissue around, and patches at borders apart."""

from __future__ import annotations

import importlib
import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.evaluation import EvaluateConfig, ProtocolConfig, evaluate
from napari_mcm.core.evaluation.dataset import gather
from napari_mcm.core.evaluation.probes import linear_probe
from napari_mcm.core.evaluation.surroundings import near_other_class
from napari_mcm.core.evaluation.task import Task
from napari_mcm.core.features import read_features
from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.core.runtime.jobs import run
from tests.core.evaluation.conftest import make_features, make_grid
from tests.core.evaluation.test_evaluate import config

# The package offers the function under the module's name.
MODULE = importlib.import_module("napari_mcm.core.evaluation.evaluate")
SQUARE = NeighbourhoodConfig(radius=1)


@pytest.fixture(autouse=True)
def no_figure(monkeypatch):
    """Drawing takes longer than all the rest."""
    monkeypatch.setattr("napari_mcm.core.evaluation.figure.save_figure", lambda *_: 0)
    monkeypatch.setattr("napari_mcm.core.evaluation.figure.draw_evaluation", str)


def mean_around(features):
    """The plain mean over a patch and its eight neighbours, patch by patch."""
    at = {tuple(place): row for row, place in enumerate(features.grid.lattice)}
    found = np.empty(features.features.shape)
    for (y, x), row in at.items():
        around = [at.get((y + i, x + j)) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        there = [i for i in around if i is not None]
        found[row] = features.features[there].astype(np.float64).mean(axis=0)
    return found.astype(np.float32)


def names_of(grid):
    """The classes of the study's labels: left half, right half, a strip left out."""
    x, y = grid.centres.T
    right = np.where(y < 700, "stroma", "undetermined")
    return np.where(x < 500, "tumour", right)


def test_all_encoders_are_measured_on_averages(study):
    folder = study()
    done = run(evaluate(config(folder, neighbourhood=SQUARE)))
    assert done.neighbourhood == SQUARE
    written = json.loads((folder / "out" / "evaluation.json").read_text())
    assert written["neighbourhood"] == {"radius": 1, "weights": "uniform"}
    assert written["protocol"]["neighbourhood"] == written["neighbourhood"]
    for name in ("weak", "strong"):
        vectors, labels, groups = [], [], []
        for number in range(3):
            one = read_features(folder / name / f"slide_{number}.features.zarr")
            known = names_of(one.grid) != "undetermined"
            vectors.append(mean_around(one)[known])
            labels.append((names_of(one.grid)[known] == "tumour").astype(np.int64))
            groups.append(np.full(known.sum(), number))
        truth, folds = np.concatenate(labels), np.concatenate(groups)
        scores, _ = run(linear_probe(np.concatenate(vectors), truth, folds, 1.0))
        auroc = np.mean(
            [roc_auc_score(truth[folds == g], scores[folds == g, 1]) for g in range(3)]
        )
        assert done.row("probe_auroc", name).value == pytest.approx(auroc, abs=1e-4)


def test_radii_are_stored_apart_and_give_other_figures(study, monkeypatch):
    folder = study()
    single = run(evaluate(config(folder)))
    parts = {path.name for path in (folder / "out" / "parts").iterdir()}
    around = run(evaluate(config(folder, neighbourhood=SQUARE)))
    assert len(list((folder / "out" / "parts").iterdir())) == 2 * len(parts)
    assert (
        around.row("probe_auroc", "weak").value
        > single.row("probe_auroc", "weak").value
    )
    # Each is read back for its own radius, and nothing is computed again.
    monkeypatch.setattr(MODULE, "_named", lambda *_: pytest.fail("computed"))
    for first, wanted in ((single, NeighbourhoodConfig()), (around, SQUARE)):
        again = run(evaluate(config(folder, neighbourhood=wanted)))
        values = [row.value for row in again.rows]
        assert values == pytest.approx([row.value for row in first.rows], nan_ok=True)


def test_equal_averages_of_other_neighbourhoods_are_stored_apart():
    grid = make_grid()
    sets = {"e": {"one": make_features(grid, 1.0, 0)}}
    patches = gather(sets, {"one": list(names_of(grid))})
    data = patches.features["e"].tobytes()
    contexts = [NeighbourhoodConfig(), SQUARE, NeighbourhoodConfig(radius=2)]
    contexts.append(NeighbourhoodConfig(radius=1, weights="distance"))
    keys = {
        MODULE._key(
            "probe", data, Task(patches, patches.groups, None, ProtocolConfig(), one)
        )
        for one in contexts
    }
    assert len(keys) == len(contexts)


def test_borders_are_where_another_class_or_none_is_next(study):
    grid = make_grid()
    features = make_features(grid, 1.0, 0)
    names = ["" if n == "undetermined" else n for n in names_of(grid)]
    found = gather({"e": {"one": features}}, {"one": names})
    wanted = []
    for row, (y, x) in enumerate(grid.lattice):
        if names[row]:
            near = (np.abs(grid.lattice - (y, x)) <= 1).all(axis=1)
            wanted.append(any(names[i] != names[row] for i in np.flatnonzero(near)))
    np.testing.assert_array_equal(found.border, wanted)
    assert 0 < found.border.sum() < len(found)
    # Two widths reach one column further on each side.
    far = near_other_class(features, names, found.places_um, 2.0)
    assert far.sum() > found.border.sum() and far[found.border].all()


def test_patches_at_borders_and_inside_are_measured_with_one_classifier(study):
    folder = study(weak=1.5)
    done = run(evaluate(config(folder, neighbourhood=SQUARE)))
    vectors, truth, folds, border = [], [], [], []
    for number in range(3):
        one = read_features(folder / "weak" / f"slide_{number}.features.zarr")
        names = names_of(one.grid)
        found = gather({"e": {"s": one}}, {"s": list(names)}, exclude=["undetermined"])
        known = names != "undetermined"
        vectors.append(mean_around(one)[known])
        truth.append((names[known] == "tumour").astype(np.int64))
        folds.append(np.full(known.sum(), number))
        border.append(found.border)
    labels, groups = np.concatenate(truth), np.concatenate(folds)
    scores, _ = run(linear_probe(np.concatenate(vectors), labels, groups, 1.0))
    near = np.concatenate(border)
    for where, part in (("border", near), ("inner", ~near)):
        each = []
        for group in range(3):
            rows = part & (groups == group)
            each.append(roc_auc_score(labels[rows], scores[rows, 1]))
        row = done.row(f"{where}_probe_auroc", "weak")
        assert row.value == pytest.approx(np.mean(each), abs=1e-4)
        assert row.details["patches"] == part.sum()
        assert row.interval[0] <= row.value <= row.interval[1]
        difference = done.row(f"{where}_few_shot_auroc", "strong")
        assert difference.difference_interval is not None
    # Averages over a border mix two classes: that is where they are wrong.
    inside = done.row("inner_probe_auroc", "weak").value
    assert inside > done.row("border_probe_auroc", "weak").value


def test_labels_without_an_inside_have_no_such_measures(study):
    """Every patch of a checkerboard lies at a border."""
    grid = make_grid()
    sets = {"e": {"one": make_features(grid, 1.0, 0)}}
    names = ["ab"[sum(place) % 2] for place in grid.lattice]
    patches = gather(sets, {"one": names})
    assert patches.border.all()
    task = Task(patches, patches.groups, None, ProtocolConfig())
    assert task.auroc_apart(np.zeros((len(patches), 2))) == {}


def test_centred_patches_have_one_ring_of_neighbours(study, tmp_path):
    wide = NeighbourhoodConfig(radius=2)
    asked = EvaluateConfig(centred=True, neighbourhood=wide, out=tmp_path)
    with pytest.raises(ConfigError, match="--context: reaches beyond the eight"):
        run(evaluate(asked))
