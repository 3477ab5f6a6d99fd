"""What a query says of itself, its threshold, and what undo, redo and slots bring."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtWidgets import QApplication

from napari_mcm.core.heatmaps import SimilarityIndex
from napari_mcm.viewer.app.features import LoadedFeatures
from napari_mcm.viewer.app.jobs import JobState
from napari_mcm.viewer.similarity.context import context_of
from napari_mcm.viewer.similarity.query_text import describe_query, name_query
from napari_mcm.viewer.similarity.widget import SimilarityWidget
from tests.viewer.conftest import Click, wait_until
from tests.viewer.seen import problems, settle
from tests.viewer.similarity.test_maps import centre_um, map_of
from tests.viewer.similarity.test_query import values


@pytest.fixture
def ready(widget: SimilarityWidget, loaded: LoadedFeatures) -> SimilarityWidget:
    """The widget with features in its first slot."""
    widget.session.set_features(widget.session.slide, "first", loaded)
    return widget


def made_by(loaded: LoadedFeatures, spec: str, label: str) -> LoadedFeatures:
    """Other features of the same patches, by an encoder that has a name."""
    features = loaded.index.features
    vectors = np.random.default_rng(len(spec)).standard_normal(
        features.features.shape, np.float32
    )
    encoder = {"fingerprint": spec, "spec": spec}
    made = replace(features, features=vectors, encoder=encoder)
    return LoadedFeatures(label, SimilarityIndex(made), Path("none"))


def start_of(widget: SimilarityWidget) -> float:
    """Return where a threshold starts: three quarters up the colours of the layer."""
    low, high = map_of(widget).contrast_limits
    return float(low + 0.75 * (high - low))


def place_of(widget: SimilarityWidget, row: int) -> tuple[float, float]:
    x, y = widget.session.features("first").index.features.grid.centres[row]
    return float(x), float(y)


def test_each_kind_of_query_has_its_threshold(
    ready: SimilarityWidget, click: Click
) -> None:
    areas = context_of(ready.session).areas
    click(centre_um(ready, 5))
    assert areas.threshold == pytest.approx(start_of(ready)) and not areas.is_moved
    click(centre_um(ready, 60), modifiers=["Control"])
    assert areas.threshold == pytest.approx(start_of(ready)) and not areas.is_moved
    # All patches are above what the user sets here.
    areas.set_threshold(float(np.nanmin(values(ready))))
    everything = len(values(ready))
    assert areas.area[1] == everything
    click(centre_um(ready, 7))
    assert areas.threshold == pytest.approx(start_of(ready)) and not areas.is_moved
    expected = int(np.count_nonzero(values(ready) >= start_of(ready)))
    assert areas.area == (pytest.approx(expected * 0.025**2), expected)
    assert expected < everything
    areas.set_threshold(0.1)
    click(centre_um(ready, 9))
    assert areas.threshold == 0.1 and areas.is_moved
    click(centre_um(ready, 60), modifiers=["Control"])
    middle = float(np.mean(map_of(ready).contrast_limits))
    areas.set_threshold(middle)
    click(centre_um(ready, 11))
    assert areas.threshold == 0.1
    click(centre_um(ready, 60), modifiers=["Control"])
    assert areas.threshold == middle
    areas.reset_threshold()
    assert areas.threshold == pytest.approx(start_of(ready)) and not areas.is_moved
    click(centre_um(ready, 9))
    assert areas.threshold == 0.1
    areas.reset_threshold()
    click(centre_um(ready, 11))
    assert areas.threshold == pytest.approx(start_of(ready)) and not areas.is_moved


def test_place_and_number_are_of_the_same_example(ready: SimilarityWidget) -> None:
    queries = context_of(ready.session).queries
    total = len(ready.session.features("first").index.features)
    asked = ((3, "new", ""), (30, "like", "similar"), (60, "unlike", "dissimilar"))
    for row, mode, kind in asked:
        x, y = place_of(ready, row)
        queries.point(x, y, mode)
        text = describe_query(context_of(ready.session).query)
        # 0.5 µm per pixel.
        assert f"x {x / 2:,.1f} µm, y {y / 2:,.1f} µm" in text
        assert f"patch {row} of {total}" in text and text.count("patch") == 1
        assert (f"newest ({kind}): " in text) == bool(kind)
    assert text.startswith("2 similar, 1 dissimilar · ")
    # Without the dissimilar one, the newest is the second similar one again.
    queries.undo()
    text = describe_query(context_of(ready.session).query)
    assert f"patch 30 of {total}" in text and "dissimilar" not in text


def test_a_region_says_how_many_patches_are_in_it(ready: SimilarityWidget) -> None:
    context = context_of(ready.session)
    x, y = ready.session.features("first").index.features.grid.centres.T
    left, right = np.sort(np.unique(x))[[3, 7]] + (-10, 10)
    top, bottom = np.sort(np.unique(y))[[2, 5]] + (-10, 10)
    inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    context.queries.use_regions([corners])
    text = describe_query(context.query)
    count = int(inside.sum())
    assert count > 3
    assert f"{count} of {len(x)} patches, {count * 0.025**2:.3f} mm²" in text
    assert "patch " not in text and name_query(context.query) == "1 region"


def test_how_a_job_ended_is_said_in_its_dock(
    widget: SimilarityWidget, tmp_path: Path
) -> None:
    viewer, status = widget.session.viewer, widget.session.jobs.status
    _, other = viewer.window.add_plugin_dock_widget("napari-mcm", "Features")
    widget.options.folder.setText(str(tmp_path))
    widget.first.encoder.setCurrentText("random:test_resnet")
    widget.first.compute.click()
    assert widget.job.line.text() and other.job.line.text() == widget.job.line.text()
    wait_until(lambda: not status.busy, 120)
    assert status.state is JobState.DONE, status.details
    assert widget.job.outcome.text() == status.message != ""
    assert other.job.outcome.text() == other.job.line.text() == ""
    assert other.job.outcome.isHidden() and other.job.line.isHidden()
    assert other.job.details.isHidden()


def test_redo_brings_back_examples_maps_and_marks(
    ready: SimilarityWidget,
) -> None:
    context = context_of(ready.session)
    queries, rows = context.queries, (5, 30, 60)
    index = ready.session.features("first").index
    row, column = index.features.grid.lattice.T
    expected = [index.query([5]), index.query([5, 30]), index.query([5, 30], [60])]
    for place, mode in zip(rows, ("new", "like", "unlike"), strict=True):
        queries.point(*place_of(ready, place), mode)

    def check(steps: int) -> None:
        QApplication.processEvents()
        examples = queries.examples
        points = [place_of(ready, place) for place in rows[:steps]]
        assert [*examples.like, *examples.unlike] == points
        assert len(examples.unlike) == (steps == 3)
        drawn = map_of(ready).data[row, column]
        np.testing.assert_allclose(drawn, expected[steps - 1], atol=1e-5)
        assert problems(ready.session) == []

    check(3)
    for steps in (2, 1):
        queries.undo()
        check(steps)
    assert queries.can_redo
    for steps in (2, 3):
        queries.redo()
        check(steps)
    assert not queries.can_redo
    queries.clear()
    assert context.query is None and np.isnan(map_of(ready).data).all()
    queries.undo()
    check(3)
    queries.redo()
    assert context.query is None and np.isnan(map_of(ready).data).all()
    queries.undo()
    queries.undo()
    queries.point(*place_of(ready, 60), "unlike")
    # Another change: what was undone before it cannot be redone.
    assert not queries.can_redo
    check(3)


def test_form_and_map_are_named_after_what_their_slot_holds(
    ready: SimilarityWidget, loaded: LoadedFeatures, tmp_path: Path
) -> None:
    session = ready.session
    context_of(session).queries.point(*place_of(ready, 5))
    run = tmp_path / "run"
    run.mkdir()
    chosen = ready.second.encoder.spec
    known = (
        ("random:test_vit", "random:test_vit"),
        (str(run), "run"),
        ("random:test_resnet", "random:test_resnet"),
    )
    for spec, label in known:
        session.set_features(session.slide, "first", made_by(loaded, spec, label))
        settle(session)
        layer = map_of(ready)
        assert ready.first.encoder.spec == spec
        assert layer.name == f"similarity: {label} (slide, patch)"
        assert ready.first.summary().startswith(label)
        assert problems(session) == []
    assert ready.second.encoder.spec == chosen
    # With what cannot be computed here, the form stays as it is.
    gone = made_by(loaded, str(tmp_path / "moved"), "moved")
    session.set_features(session.slide, "first", gone)
    settle(session)
    assert ready.first.encoder.spec == "random:test_resnet"
    assert map_of(ready).name == "similarity: moved (slide, patch)"


def test_a_query_that_no_features_answer_leaves_no_map_of_an_earlier_one(
    ready: SimilarityWidget, click: Click
) -> None:
    click(centre_um(ready, 5))
    queries = context_of(ready.session).queries
    assert np.isfinite(map_of(ready).data).any()
    other = replace(queries.spec, slide="of another slide", directions={"none": None})
    queries.run(other)
    settle(ready.session)
    assert queries.query is None and np.isnan(map_of(ready).data).all()
    assert not problems(ready.session)
