"""The MIL widget: training, results, and attention on a slide."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from napari_mcm.cli.app import load_verb, make_parser
from napari_mcm.cli.options import read_config
from napari_mcm.core.errors import ConfigError, RunError
from napari_mcm.core.features import read_features
from napari_mcm.core.features.feature_set import FeatureSet, NeighbourhoodConfig
from napari_mcm.core.features.interchange import save_features
from napari_mcm.core.grid import GridConfig, make_grid
from napari_mcm.core.mil.config import MilConfig
from napari_mcm.core.mil.ensemble import load_ensemble
from napari_mcm.core.mil.train import train
from napari_mcm.core.runtime.jobs import run
from napari_mcm.core.slides import open_slide
from napari_mcm.core.tissue import find_tissue
from napari_mcm.viewer.app.jobs import JobState
from napari_mcm.viewer.app.persistence import remember_recent
from napari_mcm.viewer.layers.metadata import placed
from napari_mcm.viewer.mil.attention_controller import find_slide, locate_slide
from napari_mcm.viewer.mil.attention_panel import _caveat
from napari_mcm.viewer.mil.run import read_run, state_of
from napari_mcm.viewer.mil.widget import TABS, MilWidget
from tests.core.mil.conftest import DIM, ENCODER, make_config, write_cohort
from tests.viewer.conftest import MPP, finish, plain, write_slide

SLOW = 60_000
MARKED = 7
"""The patch that tells the class of the slides that can be seen."""
SEEN = ("s00", "s02")


def write_seen(slides: Path, features: Path, name: str, label: int) -> None:
    """Write a slide, and features in which one patch stands out."""
    with open_slide(write_slide(slides / f"{name}.tif"), MPP) as slide:
        grid = make_grid(slide, find_tissue(slide), GridConfig(patch_size=100))
    rng = np.random.default_rng(label)
    vectors = rng.standard_normal((len(grid), DIM)).astype(np.float32)
    if label:
        vectors[MARKED, label] += 8
    status = np.zeros(len(grid), np.uint8)
    found = FeatureSet(vectors, grid, status, {**ENCODER, "dim": DIM})
    save_features(found, features / f"{name}.features.zarr", overwrite=True)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Give a table and features; two of the slides have pixels, in `slides`."""
    folder = tmp_path_factory.mktemp("cohort")
    table, features = write_cohort(folder)
    (folder / "slides").mkdir()
    for label, name in enumerate(SEEN):
        write_seen(folder / "slides", features, name, label)
    return table, features


@pytest.fixture(scope="module")
def trained(
    cohort: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Give a finished run, only to be looked at."""
    return run(
        train(make_config(cohort, tmp_path_factory.mktemp("runs") / "abmil"))
    ).run_dir


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep what is remembered out of the user's own settings."""
    file = tmp_path / "settings" / "mil.json"
    monkeypatch.setattr("napari_mcm.viewer.app.persistence._mil_file", lambda: file)
    return file


@pytest.fixture
def mil(viewer: Any) -> Iterator[MilWidget]:
    """The widget, docked in an empty viewer."""
    _, docked = viewer.window.add_plugin_dock_widget("napari-mcm", "MIL")
    docked.resize(320, 700)
    yield docked
    finish(docked)


@pytest.fixture
def ready(mil: MilWidget, cohort: tuple[Path, Path], tmp_path: Path) -> MilWidget:
    """The widget, filled in for a training of a few seconds."""
    mil.form.cohort.put(cohort[0])
    mil.form.features.put(cohort[1])
    mil.start.out.put(tmp_path / "run")
    mil.form.main.field("split.folds").setValue(3)
    for name, value in (("epochs", 8), ("min_epochs", 4), ("patience", 4)):
        mil.form.more.field(f"training.{name}").setValue(value)
    mil.form.more.field("figures.resamples").setValue(20)
    mil.form.more.field("training.lr").setText("0.001")
    return mil


@pytest.fixture
def shown(
    mil: MilWidget, trained: Path, cohort: tuple[Path, Path], qtbot: QtBot
) -> MilWidget:
    """The widget, showing the finished run."""
    mil.results.run.put(trained)
    mil.results.show_it.click()
    qtbot.waitUntil(lambda: mil.controller.run is not None, timeout=SLOW)
    mil.results.slides.put(cohort[0].parent / "slides")
    return mil


def wait_for_job(mil: MilWidget, qtbot: QtBot) -> None:
    qtbot.waitUntil(lambda: not mil.session.jobs.status.busy, timeout=SLOW)


def start(mil: MilWidget, qtbot: QtBot) -> None:
    qtbot.waitUntil(mil.start.start.isEnabled, timeout=SLOW)
    mil.start.start.click()
    qtbot.waitUntil(lambda: mil.session.jobs.status.busy, timeout=SLOW)


def select(mil: MilWidget, name: str) -> None:
    mil.results.filter.setText(name)
    mil.results.table.selectRow(0)
    assert mil.results.table.slide() == name


def open_with_attention(mil: MilWidget, qtbot: QtBot, name: str) -> None:
    select(mil, name)
    mil.results.open.click()
    qtbot.waitUntil(lambda: mil.attention.shown is not None, timeout=SLOW)
    qtbot.waitUntil(lambda: bool(mil.attention.tops), timeout=SLOW)


def test_a_cohort_is_trained_with_curves_and_its_results_are_shown(
    ready: MilWidget, qtbot: QtBot, tmp_path: Path
) -> None:
    stages: list[str] = []
    ready.session.jobs.status.events.progress.connect(
        lambda progress: stages.append(progress.stage if progress else "")
    )
    start(ready, qtbot)
    wait_for_job(ready, qtbot)
    status = ready.session.jobs.status
    assert status.state is JobState.DONE, status.details
    assert {"Fold 1 of 3", "Fold 2 of 3", "Fold 3 of 3"} <= set(stages)
    assert set(ready.controller.curves) == {(0, 0), (1, 0), (2, 0)}
    assert len(ready.controller.curves[0, 0]["validation_loss"]) >= 4
    qtbot.waitUntil(lambda: ready.controller.run is not None, timeout=SLOW)
    assert ready.tabs.tabText(ready.tabs.currentIndex()) == "Results"
    assert ready.results.figures.item(0, 0).text() == "AUROC"
    assert float(ready.results.figures.item(0, 1).text()) > 0.9
    assert ready.results.figures.item(0, 3).text() == "0.500"
    assert ready.results.table.content.rowCount() == 24
    # The curves are the same when they are read from the run.
    live = dict(ready.controller.curves)
    ready.controller.show_run(tmp_path / "run")
    qtbot.waitUntil(lambda: ready.controller.curves is not live, timeout=SLOW)
    qtbot.waitUntil(lambda: "1: " in ready.curves.text.text(), timeout=SLOW)
    assert ready.curves.choice.currentText() == "Validation loss"


def test_a_run_is_broken_off_and_gone_on_with(
    ready: MilWidget, qtbot: QtBot, tmp_path: Path
) -> None:
    ready.form.more.field("training.epochs").setValue(5000)
    ready.form.more.field("training.min_epochs").setValue(300)
    start(ready, qtbot)
    qtbot.waitUntil(lambda: bool(ready.controller.curves), timeout=SLOW)
    ready.job.cancel.click()
    qtbot.waitUntil(lambda: not ready.session.jobs.status.busy, timeout=3000)
    assert ready.session.jobs.status.state is JobState.CANCELLED
    assert state_of(tmp_path / "run").kind == "unfinished"
    qtbot.waitUntil(lambda: "Resume" in plain(ready.start.start), timeout=SLOW)
    first = len(ready.controller.curves[0, 0]["validation_loss"])
    drawn: list[int] = []
    ready.controller.series_changed.connect(
        lambda: drawn.append(
            len(ready.controller.curves.get((0, 0), {}).get("step", []))
        )
    )
    start(ready, qtbot)
    assert drawn[0] >= first
    qtbot.waitUntil(
        lambda: (
            len(ready.controller.curves.get((0, 0), {}).get("step", [])) > first + 1
        ),
        timeout=SLOW,
    )
    # Each epoch once, those of before the break among them.
    steps = ready.controller.curves[0, 0]["step"]
    assert steps == sorted(set(steps)) and steps[0] == 0
    ready.job.cancel.click()
    wait_for_job(ready, qtbot)


def test_the_copied_line_gives_the_very_same_options(
    ready: MilWidget, tmp_path: Path
) -> None:
    model = ready.form.main.field("aggregator.model")
    model.setCurrentIndex(model.findText("DSMIL"))
    ready.form.more.field("training.balanced").setChecked(False)
    command, config = ready.start.as_command(), ready.form.config(ready.start.out.path)
    assert config.aggregator.model == "dsmil" and config.training.epochs == 8
    ready.start.command.save_to(tmp_path / "config.json")
    for words in (command.words[3:], ["--config", str(tmp_path / "config.json")]):
        arguments = make_parser("mil train").parse_args(words)
        options = read_config(arguments, load_verb("mil train").OPTIONS)
        assert MilConfig(**options.model_dump(exclude={"resume"})) == config
    assert "--no-balanced" in command.words and "--seeds" not in command.words


def test_what_is_missing_is_said(mil: MilWidget, cohort: tuple[Path, Path]) -> None:
    assert not mil.start.start.isEnabled()
    assert "no run folder" in mil.start.start.toolTip()
    assert "no trained run" in mil.prediction.predict.toolTip()


def test_a_wrong_option_is_named_in_place(ready: MilWidget, qtbot: QtBot) -> None:
    ready.form.more.field("training.lr").setText("-3")
    qtbot.waitUntil(ready.start.start.isEnabled, timeout=SLOW)
    ready.start.start.click()
    assert ready.problem.text().startswith("Learning rate:")
    assert not ready.session.jobs.status.busy


def test_a_table_that_is_none_is_told_at_once(
    mil: MilWidget, qtbot: QtBot, tmp_path: Path
) -> None:
    table = tmp_path / "bad.csv"
    table.write_text("a,b\n1,2\n")
    mil.form.cohort.put(table)
    qtbot.waitUntil(lambda: bool(mil.form.cohort_note.text()), timeout=SLOW)
    assert "no column of slides" in mil.form.cohort_note.text()


def test_the_cohort_is_described(ready: MilWidget, qtbot: QtBot) -> None:
    qtbot.waitUntil(lambda: bool(ready.form.cohort_note.text()), timeout=SLOW)
    text = ready.form.cohort_note.text()
    assert text == "24 slides of 12 patients: 12 normal, 12 tumour."


def test_too_many_folds_are_refused_before_the_start(
    ready: MilWidget, qtbot: QtBot
) -> None:
    qtbot.waitUntil(ready.start.start.isEnabled, timeout=SLOW)
    ready.form.main.field("split.folds").setValue(7)
    qtbot.waitUntil(lambda: not ready.start.start.isEnabled(), timeout=SLOW)
    line = "has 6 patients, too few for 7 folds"
    assert line in ready.form.cohort_note.text()
    assert line in ready.start.start.toolTip()
    ready.form.main.field("split.folds").setValue(3)
    qtbot.waitUntil(ready.start.start.isEnabled, timeout=SLOW)
    assert "too few" not in ready.form.cohort_note.text()


def test_a_folder_that_is_no_run_is_told_in_one_line(
    mil: MilWidget, qtbot: QtBot, tmp_path: Path
) -> None:
    mil.results.run.put(tmp_path)
    mil.results.show_it.click()
    qtbot.waitUntil(lambda: bool(mil.problem.text()), timeout=SLOW)
    assert "no run of mil train" in mil.problem.text()
    assert mil.controller.run is None


def test_predictions_sort_by_score(shown: MilWidget) -> None:
    table = shown.results.table
    table.sortByColumn(3, Qt.SortOrder.DescendingOrder)
    order = table.order
    scores = [float(order.index(i, 3).data()) for i in range(order.rowCount())]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) > 2
    assert "probability of tumour" in shown.results.about.text()


def test_the_plot_of_the_run_is_shown(shown: MilWidget, qtbot: QtBot) -> None:
    qtbot.waitUntil(lambda: shown.results.picture.heightForWidth(200) > 0, timeout=SLOW)
    assert shown.results.plot.currentText() == "ROC"
    assert shown.results.picture.heightForWidth(200) == 200


def test_a_slide_of_the_table_opens_with_its_attention(
    shown: MilWidget, qtbot: QtBot
) -> None:
    open_with_attention(shown, qtbot, "s02")
    session = shown.session
    assert session.metadata.name == "s02"
    layer = session.layers.map_of(session.slide, "attention")
    grid = shown.attention.shown.prediction.features.grid
    scale, translate = placed(session.slide, grid.origin, grid.patch_size_level0)
    np.testing.assert_allclose(layer.scale, scale)
    np.testing.assert_allclose(layer.translate, translate)
    assert layer.units == session.slide.units and layer.name == "attention (rank)"
    # The patch that tells the class has rank 1, glass is transparent.
    assert layer.data[tuple(grid.lattice[MARKED])] == 1
    assert np.isnan(layer.data).any()
    assert shown.attention.tops[0].row == MARKED
    assert shown.prediction.result.text().startswith("tumour ")
    assert shown.tabs.currentIndex() == TABS.index("Slide")


def test_scaling_is_chosen_and_named(shown: MilWidget, qtbot: QtBot) -> None:
    open_with_attention(shown, qtbot, "s02")
    session = shown.session
    layer = session.layers.map_of(session.slide, "attention")
    box = shown.prediction.scaling
    box.setCurrentIndex(box.findData("raw"))
    box.activated.emit(box.currentIndex())
    qtbot.waitUntil(lambda: layer.name == "attention (raw)", timeout=SLOW)
    assert np.nansum(layer.data) == pytest.approx(1, abs=1e-4)
    assert layer.contrast_limits[1] == pytest.approx(np.nanmax(layer.data))
    assert len(shown.attention.tops) > 0


def test_a_click_on_a_top_patch_goes_there(shown: MilWidget, qtbot: QtBot) -> None:
    open_with_attention(shown, qtbot, "s02")
    strip = shown.prediction.strip
    assert strip.count() == len(shown.attention.tops)
    strip.itemClicked.emit(strip.item(0))
    grid = shown.attention.shown.prediction.features.grid
    wanted = grid.centres[MARKED][::-1] * MPP
    centre = shown.session.viewer.scene.camera.center[-2:]
    np.testing.assert_allclose(centre, wanted, atol=MPP)


def test_each_class_has_its_own_map_where_the_model_has_it(
    mil: MilWidget, cohort: tuple[Path, Path], tmp_path: Path, qtbot: QtBot
) -> None:
    config = make_config(cohort, tmp_path / "clam")
    several = config.aggregator.model_copy(update={"model": "clam_mb"})
    run(train(config.model_copy(update={"aggregator": several})))
    mil.controller.show_run(tmp_path / "clam")
    qtbot.waitUntil(lambda: mil.controller.run is not None, timeout=SLOW)
    mil.attention.slides = cohort[0].parent / "slides"
    open_with_attention(mil, qtbot, "s02")
    session, tops = mil.session, mil.attention.tops
    layer = session.layers.map_of(session.slide, "attention")
    assert layer.name == "attention to tumour (rank)"
    first = layer.data.copy()
    mil.prediction.shown_class.activated.emit(0)
    qtbot.waitUntil(lambda: layer.name == "attention to normal (rank)", timeout=SLOW)
    assert not np.array_equal(first, layer.data, equal_nan=True)
    qtbot.waitUntil(lambda: mil.attention.tops not in ([], tops), timeout=SLOW)


def test_the_keyboard_opens_a_slide_and_goes_to_a_patch(
    shown: MilWidget, qtbot: QtBot
) -> None:
    select(shown, "s02")
    qtbot.keyClick(shown.results.table, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: bool(shown.attention.tops), timeout=SLOW)
    strip, camera = shown.prediction.strip, shown.session.viewer.scene.camera
    strip.setCurrentRow(0)
    qtbot.keyClick(strip, Qt.Key.Key_Right)
    qtbot.keyClick(strip, Qt.Key.Key_Return)
    grid = shown.attention.shown.prediction.features.grid
    wanted = grid.centres[shown.attention.tops[1].row][::-1] * MPP
    np.testing.assert_allclose(camera.center[-2:], wanted, atol=MPP)


def test_a_run_folder_is_proposed_beside_the_cohort(
    mil: MilWidget, cohort: tuple[Path, Path]
) -> None:
    mil.start.fresh.click()
    assert mil.problem.text() == "No table of slides is chosen"
    mil.form.cohort.put(cohort[0])
    runs = cohort[0].parent / "napari-mcm" / "runs"
    assert mil.start.out.path == runs / "mil-1"


def test_recent_runs_are_offered(mil: MilWidget, qtbot: QtBot, trained: Path) -> None:
    remember_recent("mil runs", str(trained))
    mil.start.out.put(trained.parent / "other")
    qtbot.waitUntil(lambda: bool(mil.start.recent.menu().actions()), timeout=SLOW)
    mil.start.recent.menu().actions()[0].trigger()
    assert mil.start.out.path == trained
    qtbot.waitUntil(lambda: not mil.start.show_run.isHidden(), timeout=SLOW)
    mil.start.show_run.click()
    qtbot.waitUntil(lambda: mil.controller.run is not None, timeout=SLOW)


def test_an_unfinished_run_has_curves_but_no_results(
    shown: MilWidget, qtbot: QtBot, trained: Path, tmp_path: Path
) -> None:
    copy, finished = tmp_path / "copy", shown.controller.run
    shutil.copytree(trained, copy)
    (copy / "summary.json").unlink()
    shown.controller.show_run(copy)
    qtbot.waitUntil(lambda: shown.controller.folder == copy, timeout=SLOW)
    assert set(shown.controller.curves) == {(0, 0), (1, 0), (2, 0)}
    assert shown.controller.run is finished
    shown.results.run.put(copy)
    shown.results.show_it.click()
    qtbot.waitUntil(lambda: "is not finished" in shown.problem.text(), timeout=SLOW)


def test_an_open_slide_of_the_same_name_is_another(
    shown: MilWidget, cohort: tuple[Path, Path], tmp_path: Path, qtbot: QtBot
) -> None:
    session = shown.session
    path = write_slide(tmp_path / "s02.tif", mpp=0.6)
    session.viewer.open(path, plugin="napari-mcm")
    other = session.slide
    open_with_attention(shown, qtbot, "s02")
    assert session.slide is not other and session.metadata is not None
    first = session.slide
    assert Path(session.metadata.path).parent == cohort[0].parent / "slides"
    # Now both are open, the other one on top.
    session.choose_slide(other)
    qtbot.waitUntil(lambda: shown.attention.shown is None, timeout=SLOW)
    open_with_attention(shown, qtbot, "s02")
    assert session.slide is first and len(session.layers.slides()) == 2


def test_a_folder_of_other_slides_of_that_name_is_refused(
    cohort: tuple[Path, Path], tmp_path: Path
) -> None:
    write_slide(tmp_path / "s02.tif", mpp=0.6)
    (tmp_path / "deep").mkdir()
    with pytest.raises(ConfigError, match="another slide called s02 than the one"):
        locate_slide("s02", [], [cohort[1]], None, tmp_path)
    own = next((cohort[0].parent / "slides").glob("s02.*"))
    copy = shutil.copy(own, tmp_path / "deep" / own.name)
    assert locate_slide("s02", [], [cohort[1]], None, tmp_path) == copy
    assert locate_slide("s02", [], [], None, tmp_path) == tmp_path / "s02.tif"


def test_a_slide_is_found_by_the_table_or_by_name(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "s1"
    inner.mkdir(parents=True)
    (inner.parent / "s1.svs").touch()
    (tmp_path / "s10.svs").touch()
    assert find_slide("s1", None, tmp_path) == inner.parent / "s1.svs"
    known = tmp_path / "s10.svs"
    assert find_slide("s1", known, None) == known
    assert find_slide("s1", tmp_path / "gone.svs", inner.parent.parent).exists()
    with pytest.raises(ConfigError, match="no slide called s2"):
        find_slide("s2", None, tmp_path)


def test_a_folder_is_told_apart_from_a_run(tmp_path: Path, trained: Path) -> None:
    assert state_of(tmp_path / "new").kind == state_of(tmp_path).kind == "free"
    assert state_of(trained).kind == "finished"
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"slides": []}')
    assert state_of(other).kind == "other"


def test_an_open_slide_is_used_again(
    shown: MilWidget, qtbot: QtBot, cohort: tuple[Path, Path]
) -> None:
    viewer = shown.session.viewer
    for name in SEEN:
        viewer.open(cohort[0].parent / "slides" / f"{name}.tif", plugin="napari-mcm")
    open_with_attention(shown, qtbot, "s00")
    assert [layer.name for layer in shown.session.layers.slides()] == list(SEEN)
    assert shown.session.metadata.name == "s00"
    first, second = shown.session.layers.slides()
    assert first.visible and not second.visible


def test_the_open_slide_is_predicted(
    shown: MilWidget, qtbot: QtBot, cohort: tuple[Path, Path]
) -> None:
    path = cohort[0].parent / "slides" / "s00.tif"
    shown.session.viewer.open(path, plugin="napari-mcm")
    shown.prediction.predict.click()
    qtbot.waitUntil(lambda: shown.attention.shown is not None, timeout=SLOW)
    assert shown.prediction.result.text().startswith("normal ")
    # Only the fold that has not seen it is asked.
    assert shown.attention.shown.prediction.models == 1


def test_the_line_looks_at_the_slide_as_the_window_does(
    shown: MilWidget, qtbot: QtBot, cohort: tuple[Path, Path]
) -> None:
    path = cohort[0].parent / "slides" / "s00.tif"
    shown.session.viewer.open(path, plugin="napari-mcm")
    shown.prediction.predict.click()
    qtbot.waitUntil(lambda: shown.attention.shown is not None, timeout=SLOW)
    seen = shown.attention.shown
    shown.attention.use_scaling("raw")
    shown.prediction.command.copy.trigger()
    words = shlex.split(QApplication.clipboard().text())
    assert words[:3] == ["napari-mcm", "mil", "attention"]
    arguments = make_parser("mil attention").parse_args(words[3:])
    config = read_config(arguments, load_verb("mil attention").OPTIONS)
    asked = seen.request
    assert (config.run, Path(config.slide)) == (asked.run, asked.slide)
    assert config.features == asked.folders[0] and config.scaling == "raw"
    result = load_verb("mil attention").run(config).result
    each = [result["probabilities"][name] for name in seen.prediction.classes]
    np.testing.assert_allclose(each, seen.prediction.probabilities, atol=1e-5)


def test_the_dock_predicts_with_the_neighbourhood_of_the_run(
    mil: MilWidget, qtbot: QtBot, cohort: tuple[Path, Path], tmp_path: Path
) -> None:
    square = NeighbourhoodConfig(radius=1)
    config = make_config(cohort, tmp_path / "wide")
    run_dir = run(train(config.model_copy(update={"neighbourhood": square}))).run_dir
    mil.results.run.put(run_dir)
    mil.results.show_it.click()
    qtbot.waitUntil(lambda: mil.controller.run is not None, timeout=SLOW)
    assert "3 × 3 patches" in mil.results.about.text()
    assert "3 × 3 patches" in mil.prediction.run.text()
    path = cohort[0].parent / "slides" / "s02.tif"
    mil.session.viewer.open(path, plugin="napari-mcm")
    mil.prediction.predict.click()
    qtbot.waitUntil(lambda: mil.attention.shown is not None, timeout=SLOW)
    seen = mil.attention.shown
    assert seen.prediction.features.neighbourhood == square
    assert "context 3 × 3" in seen.heatmap.title
    # A plain mean over the patches around each, and the run's own models.
    raw = read_features(cohort[1] / "s02.features.zarr")
    at = {tuple(place): row for row, place in enumerate(raw.grid.lattice)}
    means = []
    for y, x in raw.grid.lattice:
        around = [at.get((y + i, x + j)) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        rows = [row for row in around if row is not None]
        means.append(raw.features[rows].astype(np.float64).mean(axis=0))
    vectors = np.asarray(means, np.float32)
    wanted = run(load_ensemble(run_dir, unseen="s02").predict_with_attention(vectors))
    np.testing.assert_allclose(
        seen.prediction.probabilities, wanted.probabilities, atol=1e-5
    )
    np.testing.assert_allclose(seen.prediction.attention, wanted.attention, atol=1e-5)


def test_the_form_offers_the_neighbourhood(ready: MilWidget) -> None:
    assert ready.form.config().neighbourhood == NeighbourhoodConfig()
    assert "--context" not in ready.start.as_command().words
    ready.form.main.field("neighbourhood.radius").setValue(2)
    assert ready.form.config().neighbourhood.radius == 2
    words = ready.start.as_command().words
    assert words[words.index("--context") + 1] == "2"


def test_a_slide_without_features_is_told_where_to_get_them(
    shown: MilWidget, qtbot: QtBot, slide_path: Path
) -> None:
    shown.session.viewer.open(slide_path, plugin="napari-mcm")
    shown.prediction.predict.click()
    wait_for_job(shown, qtbot)
    assert shown.session.jobs.status.state is JobState.FAILED
    assert "Similarity widget" in shown.job.line.text()


def test_a_slide_that_is_not_found_is_told(
    shown: MilWidget, qtbot: QtBot, tmp_path: Path
) -> None:
    shown.results.slides.put(tmp_path)
    select(shown, "s05")
    shown.results.open.click()
    qtbot.waitUntil(lambda: bool(shown.problem.text()), timeout=SLOW)
    assert "no slide called s05" in shown.problem.text()


def test_deleted_layers_do_no_harm(shown: MilWidget, qtbot: QtBot) -> None:
    open_with_attention(shown, qtbot, "s02")
    session = shown.session
    session.viewer.layers.remove(session.layers.map_of(session.slide, "attention"))
    shown.attention.use_scaling("minmax")
    qtbot.waitUntil(
        lambda: session.layers.map_of(session.slide, "attention") is not None,
        timeout=SLOW,
    )
    patch = shown.attention.tops[0]
    session.viewer.layers.clear()
    shown.attention.go_to(patch)
    assert shown.attention.shown is None and not shown.prediction.content.isVisible()
    open_with_attention(shown, qtbot, "s02")


def test_closing_the_dock_stops_the_training(
    ready: MilWidget, qtbot: QtBot, tmp_path: Path
) -> None:
    ready.form.more.field("training.epochs").setValue(5000)
    ready.form.more.field("training.min_epochs").setValue(5000)
    start(ready, qtbot)
    qtbot.waitUntil(lambda: bool(ready.controller.curves), timeout=SLOW)
    ready.session.viewer.window.remove_dock_widget(ready)
    QApplication.processEvents()
    wait_for_job(ready, qtbot)
    assert state_of(tmp_path / "run").kind == "unfinished"


def test_folders_are_remembered(
    shown: MilWidget, qtbot: QtBot, memory: Path, trained: Path
) -> None:
    qtbot.waitUntil(memory.exists, timeout=SLOW)
    again = MilWidget(shown.session.viewer)
    qtbot.addWidget(again)
    qtbot.waitUntil(lambda: again.results.run.path == trained, timeout=SLOW)


def test_a_damaged_run_is_told_in_one_line(trained: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    (copy / "figures.json").write_text('{"pooled": 3}')
    with pytest.raises(RunError, match="cannot be read") as caught:
        read_run(copy)
    assert "\n" not in str(caught.value)


def test_two_viewers_do_not_mix(
    shown: MilWidget, make_napari_viewer: Any, qtbot: QtBot
) -> None:
    other = MilWidget(make_napari_viewer())
    qtbot.addWidget(other)
    open_with_attention(shown, qtbot, "s02")
    assert other.controller.run is None and other.attention.shown is None
    assert not other.session.layers.slides()
    finish(other)


def test_it_fits_into_a_narrow_dock(shown: MilWidget, qtbot: QtBot) -> None:
    open_with_attention(shown, qtbot, "s02")
    assert shown.minimumSizeHint().width() <= 320


def test_an_encoder_that_has_learned_from_the_slide_is_marked() -> None:
    about = {"spec": "mine", "learned_from": {"slides": {"ab": "then"}, "probes": {}}}
    grid = SimpleNamespace(slide={"name": "now", "fingerprint": "ab"})
    features = SimpleNamespace(encoder=about, grid=grid)
    prediction = SimpleNamespace(features=features, unseen=True, caveat="")
    text = _caveat(SimpleNamespace(prediction=prediction))
    assert text.startswith("Warning: slide now is in the training set of encoder mine")
    grid.slide["fingerprint"] = "cd"
    assert _caveat(SimpleNamespace(prediction=prediction)) == ""
