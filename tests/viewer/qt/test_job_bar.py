"""The bar of a running job."""

from __future__ import annotations

from typing import Any

from napari_mcm.core.runtime.jobs import Progress
from napari_mcm.viewer.app.jobs import JobRunner, JobState
from napari_mcm.viewer.qt.job_bar import JobBar


def test_an_outcome_goes_with_its_slide_and_an_error_stays(qtbot: Any) -> None:
    jobs = JobRunner()
    bar, status = JobBar(jobs), jobs.status
    qtbot.addWidget(bar)
    status.message, status.state = "315 patches of C2", JobState.DONE
    assert bar.outcome.text() == "315 patches of C2" and not bar.outcome.isHidden()
    bar.clear_outcome()
    assert bar.outcome.text() == "" and bar.outcome.isHidden()
    status.state = JobState.RUNNING
    status.message, status.state = "317 patches of C3", JobState.DONE
    assert bar.outcome.text() == "317 patches of C3"
    status.state = JobState.FAILED
    bar.clear_outcome()
    assert "317 patches of C3" in bar.line.text()


def test_the_bar_does_not_move_while_nothing_can_be_counted(qtbot: Any) -> None:
    # Qt animates a bar without a range, and each frame redraws the whole window.
    jobs = JobRunner()
    bar = JobBar(jobs)
    qtbot.addWidget(bar)
    jobs.status.state = JobState.RUNNING
    jobs.status.progress = Progress("Starting PyTorch", 0, None)
    assert bar.bar.maximum() > bar.bar.minimum() == bar.bar.value() == 0
    assert "Starting PyTorch" in bar.line.text()
