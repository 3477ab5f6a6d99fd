"""The click test of a run in the Fine-tune widget, on two generated serial sections."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtWidgets import QApplication

from napari_mcm.core.encoders.compute import ComputeConfig
from napari_mcm.core.grid import GridConfig
from napari_mcm.core.mcm.config import (
    ContextConfig,
    FinetuneConfig,
    OptimiserConfig,
)
from napari_mcm.core.mcm.finetune import finetune
from napari_mcm.core.runtime.jobs import Progress, run
from napari_mcm.core.synthetic.cohort import SampleConfig, generate_cohort
from napari_mcm.core.tissue import TissueMask
from napari_mcm.viewer.app.jobs import JobState
from napari_mcm.viewer.finetune.click_test import (
    FOLDER,
    ClickResult,
    Recalls,
    section_folder,
)
from napari_mcm.viewer.finetune.run import read_run
from napari_mcm.viewer.finetune.widget import FinetuneWidget
from tests.viewer.conftest import finish, write_slide
from tests.viewer.finetune.test_widget import SLOW, wait_for_job

STUDENT = "random:test_efficientnet"


@pytest.fixture(scope="module")
def block(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Two sections of a block, and a run trained on a third slide."""
    folder = tmp_path_factory.mktemp("block")
    config = SampleConfig(slides=2, size=1536, mpp=1.0, serial=True, workers=1)
    cohort = run(generate_cohort(folder / "sections", config))
    return (*cohort.slides, folder)


@pytest.fixture
def trained(block: tuple[Path, Path, Path], tmp_path: Path) -> Path:
    """A finished run of two steps, on a slide that no section resembles."""
    learned = write_slide(tmp_path / "learned.tif", mpp=1.0)
    return train(learned, tmp_path / "run")


def train(slide: Path, out: Path) -> Path:
    config = FinetuneConfig(
        slides=(slide,),
        student=STUDENT,
        teacher="random:test_resnet",
        out=out,
        grid=GridConfig(patch_size=32, mpp=1.0),
        context=ContextConfig(s=3, depth=1, heads=2, width=32, predictor_width=32),
        optimiser=OptimiserConfig(head_epochs=0, batch_windows=8, student_lr=1e-2),
        compute=ComputeConfig(device="cpu", precision="float32", threads=1),
    )
    run(finetune(config))
    return out


@pytest.fixture
def dock(viewer: Any, trained: Path, qtbot: QtBot) -> Iterator[FinetuneWidget]:
    """The widget, with the finished run."""
    _, docked = viewer.window.add_plugin_dock_widget("napari-mcm", "Fine-tune")
    docked.controller.show_run(trained)
    qtbot.waitUntil(lambda: docked.controller.run is not None, timeout=SLOW)
    yield docked
    finish(docked)


def press(dock: FinetuneWidget, first: Path, second: Path, qtbot: QtBot) -> None:
    panel = dock.results.clicks
    panel.first.put(first)
    panel.second.put(second)
    qtbot.waitUntil(panel.run.isEnabled, timeout=SLOW)
    panel.run.click()
    qtbot.waitUntil(lambda: dock.session.jobs.status.busy, timeout=SLOW)


def written(folder: Path) -> dict[str, Any]:
    (file,) = (folder / FOLDER).glob("*/serial.json")
    return json.loads(file.read_text(encoding="utf-8"))


def expected(content: dict[str, Any]) -> str:
    """The sentence, counted from the ranks of each query."""
    shares = {}
    for test in content["tests"]:
        hits = [rank <= 1 for rank in test["wide"]]
        key = test["encoder"], test["neighbourhood"]["radius"]
        shares[key] = f"{sum(hits) / len(hits):.2f}".lstrip("0")
    one = content["tests"][0]
    counts = one["wide_count"]
    chance = sum(count / one["candidates"] for count in counts) / len(counts)
    student, after = STUDENT.replace(":", "-"), "run"
    return (
        "A click finds its own place in the next section "
        f"({content['queries']} clicks): before {shares[student, 0]}, after "
        f"{shares[after, 0]}; with context 3 × 3: before {shares[student, 1]}, after "
        f"{shares[after, 1]}; by chance {f'{chance:.3f}'.lstrip('0')}."
    )


def test_the_line_says_what_the_job_has_written(
    dock: FinetuneWidget,
    trained: Path,
    block: tuple[Path, Path, Path],
    qtbot: QtBot,
) -> None:
    first, second, _ = block
    panel = dock.results.clicks
    assert not panel.run.isEnabled() and "choose two sections" in panel.run.toolTip()
    assert not panel.sentence.isVisibleTo(dock.results)
    press(dock, first, second, qtbot)
    wait_for_job(dock, qtbot)
    status = dock.session.jobs.status
    assert status.state is JobState.DONE, status.details
    content = written(trained)
    assert panel.sentence.text() == expected(content)
    assert panel.sentence.isVisibleTo(dock.results)
    assert f"{first.name.split('.')[0]} asked in" in panel.details.text()
    # Both sections are unknown to the encoder.
    assert panel.warning.text() == "" and content["patch_um"] == 32
    compute = panel.as_command().config.compute
    assert compute.precision == "float32"
    # The command is the same test.
    assert panel.as_command().words[:3] == ["napari-mcm", "evaluate", str(first)]
    # It is there when the run is opened again.
    again = read_run(trained)
    assert again is not None and again.clicks is not None
    assert f"{again.clicks.sentence()}." == panel.sentence.text()


def test_it_follows_a_fine_tuning_and_warns_of_a_section_that_was_learned_from(
    viewer: Any,
    block: tuple[Path, Path, Path],
    tmp_path: Path,
    qtbot: QtBot,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second, _ = block
    out = tmp_path / "run"
    viewer.open(first, plugin="napari-mcm")
    _, dock = viewer.window.add_plugin_dock_widget("napari-mcm", "Fine-tune")
    panel = dock.results.clicks
    # An open slide is offered by its name.
    panel.first.choice.setCurrentText(first.name.split(".")[0])
    panel.second.put(second)
    assert panel.sections == (first, second)
    train(first, out)
    # As if the training had been started in the dock.
    dock.controller._trained(out)
    qtbot.waitUntil(lambda: dock.session.jobs.status.busy, timeout=SLOW)
    assert dock.session.jobs.status.title == "Click test of run"
    wait_for_job(dock, qtbot)
    status = dock.session.jobs.status
    assert status.state is JobState.DONE, status.details
    assert panel.sentence.text() == expected(written(out))
    name = first.name.split(".")[0]
    said = f"Warning: slide {name} is in the training set of encoder run"
    assert panel.warning.text().startswith(said)
    check_folders(dock, out, monkeypatch)
    # A slide that was closed stays chosen.
    viewer.layers.clear()
    QApplication.processEvents()
    assert panel.sections == (first, second)
    finish(dock)


def check_folders(
    dock: FinetuneWidget, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another mask has other patches, so another folder; the newest result is shown."""
    sections = dock.results.clicks.sections
    (used,) = (out / FOLDER).iterdir()
    assert dock.controller.click_config(sections).out == used
    names = [used.name]
    with monkeypatch.context() as patched:
        for filled in (40, 60):
            mask = np.zeros((96, 96), bool)
            mask[:filled] = True
            drawn = TissueMask(mask, (16.0, 16.0), "drawn")
            patched.setattr(dock.session.tissue, "drawn_mask", lambda _, m=drawn: m)
            names.append(section_folder(dock.session, sections))
    assert len(set(names)) == 3
    newer = out / FOLDER / names[1]
    newer.mkdir()
    content = written(out) | {"queries": 77}
    (newer / "serial.json").write_text(json.dumps(content))
    shown = read_run(out)
    assert shown is not None and shown.clicks is not None
    assert shown.clicks.queries == 77


def test_slides_that_do_not_correspond_give_one_line(
    dock: FinetuneWidget,
    block: tuple[Path, Path, Path],
    tmp_path: Path,
    qtbot: QtBot,
) -> None:
    other = write_slide(tmp_path / "other.tif", mpp=1.0)
    press(dock, block[0], other, qtbot)
    wait_for_job(dock, qtbot)
    status = dock.session.jobs.status
    assert status.state is JobState.FAILED
    assert "does not correspond to other" in status.message
    assert "\n" not in status.message
    assert dock.results.clicks.sentence.text() == ""
    panel = dock.results.clicks
    panel.second.put(block[0])
    panel.run.click()
    assert not status.busy
    assert "two different sections" in dock.problem.text()


def test_a_cancelled_test_goes_on_with_what_it_has(
    dock: FinetuneWidget,
    trained: Path,
    block: tuple[Path, Path, Path],
    qtbot: QtBot,
) -> None:
    first, second, _ = block
    jobs = dock.session.jobs
    press(dock, first, second, qtbot)
    folder = trained / FOLDER
    # The sections are registered, and features are being extracted.
    qtbot.waitUntil(
        lambda: (
            isinstance(jobs.status.progress, Progress)
            and any(folder.glob("*/registration-*.npz"))
        ),
        timeout=SLOW,
    )
    dock.job.cancel.click()
    wait_for_job(dock, qtbot)
    assert jobs.status.state is JobState.CANCELLED
    assert not list(folder.glob("*/serial.json"))
    (kept,) = folder.glob("*/registration-*.npz")
    made = kept.stat().st_mtime_ns
    press(dock, first, second, qtbot)
    wait_for_job(dock, qtbot)
    assert jobs.status.state is JobState.DONE, jobs.status.details
    assert kept.stat().st_mtime_ns == made
    assert dock.results.clicks.sentence.text() == expected(written(trained))


def test_a_run_of_the_students_name_is_told_what_to_do(
    dock: FinetuneWidget, block: tuple[Path, Path, Path], tmp_path: Path, qtbot: QtBot
) -> None:
    from dataclasses import replace

    student = tmp_path / "elsewhere" / "run"
    student.mkdir(parents=True)
    dock.controller.run = replace(dock.controller.run, student=str(student))
    panel = dock.results.clicks
    panel.first.put(block[0])
    panel.second.put(block[1])
    panel.run.click()
    assert not dock.session.jobs.status.busy
    assert "both named run: rename" in dock.problem.text()


def test_the_sentence_is_that_of_the_docs() -> None:
    recalls = (
        Recalls("patch", 0.18, 0.36, 0.18, -0.1, 0.26),
        Recalls("3 × 3", 0.74, 1.0, 0.26, 0.2, 0.3),
    )
    result = ClickResult(("a", "b"), 412, 9, 0.004, recalls, None)
    assert result.sentence() == (
        "A click finds its own place in the next section (412 clicks): before .18, "
        "after .36; with context 3 × 3: before .74, after 1.00; by chance .004"
    )
    assert "patch +.18 [-.10, +.26]" in result.details()
    assert "3 × 3 +.26 [+.20, +.30]" in result.details()
    assert result.details().endswith(
        "a asked in b, median registration error not measured."
    )
