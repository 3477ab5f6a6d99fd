"""Fine-tuned runs that end while a project is open, which belong to it."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_mcm.viewer.app.background import BackgroundWorker
from napari_mcm.viewer.project import disk

if TYPE_CHECKING:
    from napari_mcm.viewer.app.session import Session


class ProjectRuns:
    """Finds the runs that ended in this session.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    worker : BackgroundWorker
        Thread that looks at their folders.

    Attributes
    ----------
    found : Signal
        Emitted with a list of their folders, which may be empty.
    """

    found = Signal(object)

    def __init__(self, session: Session, worker: BackgroundWorker) -> None:
        self._session, self._worker = session, worker
        self._begun = time.time()
        session.recent.changed.connect(self._look)

    def _look(self) -> None:
        self._worker.submit(
            "runs",
            partial(disk.runs_since, self._session.recent.runs, self._begun),
            self.found.emit,
            self._session.report_error,
        )
