"""The Fine-tune widget: set up, preview, train, cancel, go on, compare."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QLineEdit,
)

from napari_mcm.cli.app import load_verb, make_parser
from napari_mcm.cli.options import read_config
from napari_mcm.core.grid import GridConfig
from napari_mcm.core.mcm.config import PRESET_LABELS, FinetuneConfig
from napari_mcm.core.mcm.window_pixels import read_window
from napari_mcm.core.runtime.jobs import Job, Progress
from napari_mcm.viewer.app.features import SLOTS, encoder_label
from napari_mcm.viewer.app.jobs import JobState
from napari_mcm.viewer.finetune.run import read_run, state_of
from napari_mcm.viewer.finetune.widget import TABS, FinetuneWidget
from napari_mcm.viewer.finetune.window_preview import MASKED, WINDOWS
from napari_mcm.viewer.qt import close_guard as closing
from napari_mcm.viewer.similarity.context import context_of
from napari_mcm.viewer.training.chart import lines_of
from napari_mcm.viewer.training.metrics import add_step, read_series
from napari_mcm.viewer.training.slide_picker import FOLDER, OPEN, TABLE
from tests.viewer.conftest import (
    MPP,
    features_of,
    finish,
    plain,
    unfold,
    wait_until,
    write_slide,
)

SLOW = 100_000


@pytest.fixture
def tuning(viewer: Any, slide_path: Path) -> Iterator[FinetuneWidget]:
    """The widget, docked in a viewer that shows the slide, set to tiny encoders."""
    viewer.open(slide_path, plugin="napari-mcm")
    _, docked = viewer.window.add_plugin_dock_widget("napari-mcm", "Fine-tune")
    docked.resize(320, 700)
    form = docked.form
    form.student.setCurrentText("random:test_efficientnet")
    form.teacher.setCurrentText("random:test_resnet")
    form.patches.patch_size.setValue(32)
    for name, value in (("s", 3), ("mask_ratio", 0.4)):
        form.options.main.field(f"context.{name}").setValue(value)
    for name, value in (("depth", 1), ("heads", 2)):
        form.options.groups["context"].field(f"context.{name}").setValue(value)
    for name in ("width", "predictor_width"):
        form.options.groups["context"].field(f"context.{name}").setValue(32)
    form.options.groups["optimiser"].put("optimiser.head_epochs", 0)
    yield docked
    docked.windows.preview.wait()
    finish(docked)


def parsed(line: list[str]) -> FinetuneConfig:
    """Read a copied line as the program does."""
    arguments = make_parser("finetune").parse_args(line)
    options = read_config(arguments, load_verb("finetune").OPTIONS)
    return FinetuneConfig(**options.model_dump(exclude={"resume"}))


def start(widget: FinetuneWidget, qtbot: QtBot) -> None:
    qtbot.waitUntil(widget.start.start.isEnabled, timeout=SLOW)
    widget.start.start.click()
    qtbot.waitUntil(lambda: widget.session.jobs.status.busy, timeout=SLOW)


def wait_for_job(widget: FinetuneWidget, qtbot: QtBot) -> None:
    qtbot.waitUntil(lambda: not widget.session.jobs.status.busy, timeout=SLOW)


def test_a_training_runs_and_its_encoder_is_compared(
    tuning: FinetuneWidget, qtbot: QtBot, tmp_path: Path, slide_path: Path
) -> None:
    tuning.start.out.put(tmp_path / "run")
    start(tuning, qtbot)
    assert tuning.tabs.tabText(tuning.tabs.currentIndex()) == "Run"
    wait_for_job(tuning, qtbot)
    status = tuning.session.jobs.status
    assert status.state is JobState.DONE, status.details
    qtbot.waitUntil(lambda: tuning.controller.run is not None, timeout=SLOW)
    # What was drawn live is what the run has written.
    written = read_series(tmp_path / "run")
    assert tuning.controller.series["loss"] == written["loss"]
    assert tuning.results.curves.charts["Loss"].isVisibleTo(tuning.results)
    assert "patches per second" in tuning.results.curves.text.text()
    compare_with_one_click(tuning, qtbot, slide_path)


def compare_with_one_click(
    tuning: FinetuneWidget, qtbot: QtBot, slide_path: Path
) -> None:
    """See maps of before, after and the teacher, of a query that was asked once."""
    session, results = tuning.session, tuning.results
    status = session.jobs.status
    add = session.viewer.window.add_plugin_dock_widget
    _, similarity = add("napari-mcm", "Similarity")
    session.set_features(session.slide, "first", features_of(slide_path))
    context_of(session).queries.point(600, 500)
    wait_until(lambda: session.layers.map_of(session.slide, "first") is not None)
    # What a run was made with counts, not what is chosen by now.
    tuning.form.patches.patch_size.setValue(64)
    results.compare.click()
    wait_for_job(tuning, qtbot)
    assert status.state is JobState.DONE, status.details
    assert session.features("first").label == "random:test_efficientnet"
    assert session.features("second").label == "run"
    assert session.features("third") is None
    # The slide is the one that was trained on, and both docks say so.
    said = "slide slide is in the training set of encoder run"
    assert session.features("first").warning == ""
    assert session.features("second").warning.startswith(said)
    assert results.warning.text().startswith(f"Warning: {said}")
    # Maps and forms have the names of what they show by now.
    around = context_of(session).queries.neighbourhood.describe()
    named = {"first": "random:test_efficientnet", "second": "run"}
    for slot, label in named.items():
        name = f"similarity: {label} (slide, {around})"
        wait_until(
            lambda slot=slot, name=name: (
                session.layers.map_of(session.slide, slot).name == name
            )
        )
        form = getattr(similarity, slot)
        assert encoder_label(form.encoder.spec) == label
        assert form.summary().startswith(f"{label} · ")
    maps = context_of(session).query.maps
    assert not np.allclose(maps["first"].values, maps["second"].values)
    assert results.with_teacher.isVisibleTo(results)
    assert "random:test_resnet" in results.with_teacher.toolTip()
    results.with_teacher.click()
    results.compare.click()
    wait_for_job(tuning, qtbot)
    assert status.state is JobState.DONE, status.details
    assert session.features("third").label == "random:test_resnet"
    assert context_of(session).query.maps["third"] is not None
    for slot in SLOTS:
        features = session.features(slot).index.features
        assert (features.grid.patch_size, features.grid.mpp) == (32, MPP)
        assert len(context_of(session).query.maps[slot].values) == len(features)


def test_a_run_without_a_teacher_of_its_own_is_compared_without(
    tmp_path: Path,
) -> None:
    config = FinetuneConfig(
        student="random:test_resnet", grid=GridConfig(patch_size=48)
    ).model_dump(mode="json")
    summary = {"mpp": 1.5, "loss_first": 1.0}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    for teacher, expected in (
        ("student", ""),
        ("random:test_resnet", ""),
        ("random:test_vit", "random:test_vit"),
    ):
        text = json.dumps({**config, "teacher": teacher})
        (tmp_path / "config.json").write_text(text)
        run = read_run(tmp_path)
        assert run is not None and run.teacher == expected
        # Automatic is what was settled on for the slides that were learned from.
        assert run.grid == GridConfig(patch_size=48, mpp=1.5)


def test_a_run_is_broken_off_and_gone_on_with(
    tuning: FinetuneWidget, qtbot: QtBot, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    tuning.start.out.put(folder)
    tuning.form.options.main.field("optimiser.epochs").setValue(500)
    start(tuning, qtbot)
    qtbot.waitUntil(
        lambda: len(tuning.controller.series.get("step", [])) > 1, timeout=SLOW
    )
    tuning.job.cancel.click()
    wait_for_job(tuning, qtbot)
    assert tuning.session.jobs.status.state is JobState.CANCELLED
    assert state_of(folder).kind == "unfinished"
    qtbot.waitUntil(lambda: "Resume" in plain(tuning.start.start), timeout=SLOW)
    assert tuning.start.as_command().words[-2:] == ["--resume", str(folder)]
    done = len(tuning.controller.series["step"])
    start(tuning, qtbot)
    qtbot.waitUntil(
        lambda: len(tuning.controller.series.get("step", [])) > done + 1, timeout=SLOW
    )
    # Each step once, those of before the break among them.
    steps = tuning.controller.series["step"]
    assert steps == [float(n) for n in range(len(steps))]
    tuning.job.cancel.click()
    wait_for_job(tuning, qtbot)
    tuning.start.check_folder()
    qtbot.waitUntil(lambda: bool(tuning.start._menu.actions()), timeout=SLOW)
    assert str(tmp_path) in tuning.start._menu.actions()[0].text()


def test_the_copied_line_gives_the_very_same_options(
    tuning: FinetuneWidget, tmp_path: Path
) -> None:
    tuning.start.out.put(tmp_path / "it's a run")
    form = tuning.form
    form.options.groups["optimiser"].field("optimiser.student_lr").setText("3e-05")
    form.options.groups["optimiser"].field("optimiser.flips").setChecked(False)
    form.options.main.field("held_out.validation").setValue(0.2)
    command = tuning.start.as_command()
    config = form.config(tmp_path / "it's a run")
    assert config.optimiser.student_lr == 3e-5 and config.context.s == 3
    assert parsed(command.words[2:]) == config
    tuning.start.command.save_to(tmp_path / "config.json")
    assert parsed(["--config", str(tmp_path / "config.json")]) == config
    tuning.start.command.copy.click()
    clipboard = QApplication.clipboard().text()
    assert clipboard == command.line and "--epochs" not in clipboard


def test_a_preset_sets_the_fields_and_is_copied(tuning: FinetuneWidget) -> None:
    form = tuning.form
    box = form.options.main.field("preset")
    box.setCurrentIndex(box.findText(PRESET_LABELS["paper"]))
    norm = form.options.groups["target"].values()["target.target_norm"]
    assert norm == "none" and form.config().optimiser.batch_norm == "train"
    words = tuning.start.as_command().words
    assert words[words.index("--preset") + 1] == "paper"
    assert "--target-norm" not in words
    form.options.groups["optimiser"].put("optimiser.batch_norm", "frozen")
    words = tuning.start.as_command().words
    assert words[words.index("--batch-norm") + 1] == "frozen"
    assert (
        parsed(words[2:]).model_dump()
        == form.config(tuning.start.out.path).model_dump()
    )
    box.setCurrentIndex(box.findText(PRESET_LABELS["self"]))
    assert form.config().teacher == "student"


def test_windows_are_drawn_as_they_are_learned_from(
    tuning: FinetuneWidget, qtbot: QtBot
) -> None:
    box, session = tuning.windows, tuning.session
    box.show_windows.setChecked(True)
    qtbot.waitUntil(lambda: box.preview.plan is not None, timeout=SLOW)
    plan = box.preview.plan
    layer = session.layers.drawn(WINDOWS)
    assert layer.units == session.slide.units
    placed = sum(int((ref.index >= 0).sum()) for ref in plan.refs)
    assert np.isfinite(layer.data).sum() == placed
    assert f"{len(plan.refs):,} windows of 3×3" in box.about.text()
    box.another.click()
    qtbot.waitUntil(lambda: box.preview.shown is not None, timeout=SLOW)
    # The patches that are hatched are those that the training masks.
    ref = plan.refs[0]
    window = read_window(ref, plan.config)
    drawn = session.layers.drawn(MASKED)
    corner = drawn.translate - drawn.scale / 2 + session.slide.scale / 2
    cell = drawn.data.shape[0] // 3
    for patch in np.flatnonzero(window.patches >= 0):
        x, y = ref.grid.xy[window.patches[patch]]
        at = (np.array([y, x]) * MPP - corner + 1e-6) // (drawn.scale * cell)
        row, column = (int(n) * cell for n in at)
        inner = drawn.data[row + 1 : row + cell - 1, column + 1 : column + cell - 1]
        assert np.isfinite(inner).any() == window.masked[patch]
    tuning.form.options.main.field("context.s").setValue(4)
    qtbot.waitUntil(lambda: "of 4×4" in box.about.text(), timeout=SLOW)
    session.viewer.layers.remove(drawn)
    box.show_windows.setChecked(False)
    assert not layer.visible


def test_preview_needs_no_torch() -> None:
    import subprocess
    import sys

    check = (
        "import sys, napari_mcm.core.mcm.windows, napari_mcm.viewer.finetune.widget; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", check], check=True, timeout=120)


def test_slides_come_from_a_folder_or_a_table(
    tuning: FinetuneWidget, qtbot: QtBot, tmp_path: Path, slide_path: Path
) -> None:
    choice = tuning.form.slides
    folder = tmp_path / "many"
    folder.mkdir()
    for name in ("a", "b"):
        write_slide(folder / f"{name}.tif")
    choice.way.setCurrentIndex(FOLDER)
    assert "nothing is chosen" in tuning.start._reason() or not tuning.start.out.path
    choice.folder.put(folder)
    qtbot.waitUntil(lambda: "2 slides: a.tif, b.tif" in choice.said.text())
    assert choice.chosen().paths == (folder,)
    table = tmp_path / "cohort.csv"
    table.write_text("slide,path\na,many/a.tif\nb,many/b.tif\n")
    choice.way.setCurrentIndex(TABLE)
    choice.table.put(table)
    assert choice.chosen().paths == (folder / "a.tif", folder / "b.tif")
    table.write_text("slide,path\nz,many/z.tif\n")
    with pytest.raises(ValueError, match="z is not at"):
        choice.chosen()
    choice.way.setCurrentIndex(OPEN)
    assert choice.chosen().paths == (slide_path,)


def test_a_mask_that_was_drawn_is_learned_from(
    tuning: FinetuneWidget, qtbot: QtBot
) -> None:
    from napari_mcm.core.tissue import find_tissue
    from napari_mcm.viewer.app.persistence import drawn_mask_path
    from napari_mcm.viewer.layers.metadata import slide_of

    session = tuning.session
    slide = slide_of(session.slide)
    session.tissue.show_found(session.slide, find_tissue(slide))
    assert tuning.form.config().tissue.masks is None
    session.tissue.mask_of(session.slide).layer.data = np.ones_like(
        session.tissue.mask_of(session.slide).layer.data
    )
    config = tuning.form.config()
    assert config.tissue.masks == drawn_mask_path(slide)
    session.disk.wait()
    assert config.tissue.masks.exists()


def test_what_is_missing_is_said(viewer: Any) -> None:
    _, widget = viewer.window.add_plugin_dock_widget("napari-mcm", "Fine-tune")
    assert not widget.start.start.isEnabled()
    assert "run folder" in widget.start.start.toolTip()
    widget.start.command.copy.click()
    assert widget.problem.text() == "No slide is open"
    finish(widget)


def test_a_wrong_option_is_named_in_place(tuning: FinetuneWidget, qtbot: QtBot) -> None:
    field = tuning.form.options.groups["optimiser"].field("optimiser.student_lr")
    field.setText("fast")
    qtbot.waitUntil(tuning.start.start.isEnabled, timeout=SLOW)
    tuning.start.start.click()
    assert tuning.problem.text().startswith("Student rate:")
    assert not tuning.session.jobs.status.busy


def test_a_divergence_is_one_line_with_details(
    tuning: FinetuneWidget, qtbot: QtBot, tmp_path: Path
) -> None:
    tuning.start.out.put(tmp_path / "run")
    tuning.form.options.main.field("optimiser.epochs").setValue(50)
    optimiser = tuning.form.options.groups["optimiser"]
    optimiser.put("optimiser.student_lr", 1e30)
    optimiser.put("optimiser.head_lr", 1e30)
    optimiser.put("optimiser.warmup", 0.0)
    start(tuning, qtbot)
    wait_for_job(tuning, qtbot)
    assert tuning.session.jobs.status.state is JobState.FAILED
    line = tuning.job.line.text()
    assert "diverged" in line and "\n" not in line
    assert tuning.job.details.isVisibleTo(tuning.job)
    assert "Traceback" in tuning.session.jobs.status.details


def test_closing_the_dock_asks_and_keeps(
    tuning: FinetuneWidget,
    qtbot: QtBot,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    answer = [False]

    def ask(_parent: Any, title: str) -> bool:
        asked.append(title)
        return answer[0]

    monkeypatch.setattr(closing, "ask_to_stop", ask)
    tuning.start.out.put(tmp_path / "run")
    tuning.form.options.main.field("optimiser.epochs").setValue(500)
    start(tuning, qtbot)
    qtbot.waitUntil(
        lambda: len(tuning.controller.series.get("step", [])) > 0, timeout=SLOW
    )
    dock = tuning.parent()
    dock.title.close_button.click()
    assert len(asked) == 1 and "test_efficientnet" in asked[0]
    assert tuning.session.jobs.status.state is JobState.RUNNING
    answer[0] = True
    dock.title.close_button.click()
    wait_for_job(tuning, qtbot)
    assert len(asked) == 2 and tuning.parent() is None
    assert state_of(tmp_path / "run").kind == "unfinished"


class UserCloses(QCloseEvent):
    """What the window system sends; scripts cannot make one."""

    def spontaneous(self) -> bool:
        return True


def test_closing_the_window_asks(
    make_napari_viewer: Any, plugin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer = make_napari_viewer(show=True)
    _, widget = viewer.window.add_plugin_dock_widget("napari-mcm", "Fine-tune")
    _, other = viewer.window.add_plugin_dock_widget("napari-mcm", "Features")
    window = viewer.window._qt_window
    asked: list[str] = []

    def ask(_parent: Any, title: str) -> bool:
        asked.append(title)
        return len(asked) > 1

    def endless() -> Job[None]:
        while True:
            yield Progress("Waiting", 0, None)
            time.sleep(0.01)

    monkeypatch.setattr(closing, "ask_to_stop", ask)
    QApplication.processEvents()
    widget.session.jobs.start("Waiting", endless, lambda _: None)
    QApplication.sendEvent(window, UserCloses())
    assert asked == ["Waiting"] and window.isVisible()
    assert widget.session.jobs.status.state is JobState.RUNNING
    QApplication.sendEvent(window, UserCloses())
    # The job has ended by the time that the window is gone.
    assert len(asked) == 2 and not widget.session.jobs.status.busy
    for docked in (widget, other):
        docked.session.disk.wait()


def test_a_dock_that_is_not_the_last_is_closed_without_a_question(
    tuning: FinetuneWidget, viewer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closing, "ask_to_stop", lambda *_: pytest.fail("asked"))
    _, other = viewer.window.add_plugin_dock_widget("napari-mcm", "Similarity")
    other.parent().title.close_button.click()
    assert other.parent() is None


def test_steps_that_come_again_replace_the_first() -> None:
    series: dict[str, list[float]] = {}
    for step in range(4):
        add_step(series, step, {"loss": float(step)})
    add_step(series, 2, {"loss": 9.0, "held_out_loss": 5.0})
    assert series["step"] == [0, 1, 2] and series["loss"] == [0, 1, 9]
    assert math.isnan(series["held_out_loss"][0]) and series["held_out_loss"][2] == 5
    lines = lines_of(series, {"loss": "step", "held_out_loss": "kept out"})
    assert lines == {"step": ([1, 2, 3], [0, 1, 9]), "kept out": ([3], [5])}


def test_it_fits_a_narrow_dock_and_all_is_explained(tuning: FinetuneWidget) -> None:
    unfold(tuning)
    assert tuning.minimumSizeHint().width() <= 320
    for kind in (QAbstractButton, QComboBox, QAbstractSpinBox, QLineEdit):
        parts = (tuning.form, tuning.form.more, tuning.start)
        for child in (child for part in parts for child in part.findChildren(kind)):
            above = [child, child.parent(), child.parent().parent()]
            assert any(part.toolTip() for part in above), child
    assert [tuning.tabs.tabText(i) for i in range(3)] == list(TABS)
