"""The bar of a running job."""

from __future__ import annotations

from typing import Any

from napari_mcm.core.runtime.jobs import Progress
from napari_mcm.viewer.app.jobs import JobRunner, JobState
from napari_mcm.viewer.qt.job_bar import JobBar


def test_the_bar_does_not_move_while_nothing_can_be_counted(qtbot: Any) -> None:
    # Qt animates a bar without a range, and each frame redraws the whole window.
    jobs = JobRunner()
    bar = JobBar(jobs)
    qtbot.addWidget(bar)
    jobs.status.state = JobState.RUNNING
    jobs.status.progress = Progress("Starting PyTorch", 0, None)
    assert bar.bar.maximum() > bar.bar.minimum() == bar.bar.value() == 0
    assert "Starting PyTorch" in bar.line.text()
