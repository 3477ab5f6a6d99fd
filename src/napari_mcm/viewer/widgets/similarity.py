"""The dock widget *Similarity*: click on a slide, see what is alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, Qt
from qtpy.QtWidgets import QFrame, QScrollArea, QVBoxLayout, QWidget

from napari_mcm.viewer.session import session_of
from napari_mcm.viewer.widgets.encoder_slot import EncoderSlot
from napari_mcm.viewer.widgets.job_bar import JobBar
from napari_mcm.viewer.widgets.parts import follow, note
from napari_mcm.viewer.widgets.patch_options import PatchOptions
from napari_mcm.viewer.widgets.query_box import QueryBox
from napari_mcm.viewer.widgets.slide_box import SlideBox

if TYPE_CHECKING:
    import napari


class SimilarityWidget(QWidget):
    """Features of the open slide by one or two encoders, and queries by a click.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer that it is docked in.
    """

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        self.session = session = session_of(napari_viewer)
        self.slide = SlideBox(session)
        self.options = PatchOptions()
        self.first = EncoderSlot("Encoder", session, "first", self.options)
        self.second = EncoderSlot("Compare with", session, "second", self.options)
        self.second.encoder.setCurrentIndex(1)
        self.query = QueryBox(session)
        self.problem = note()
        self.job = JobBar(session.jobs)
        self._lay_out()
        self._connect()
        # A closed dock unparents the widget; a closed viewer destroys it.
        user = id(self)
        self.destroyed.connect(lambda *_: session.leave(user))
        session.enter(user)

    def _lay_out(self) -> None:
        inner = QWidget()
        column = QVBoxLayout(inner)
        column.setContentsMargins(0, 0, 4, 0)
        parts: list[QWidget] = [self.slide, self.options, self.first, self.second]
        for part in (*parts, self.query):
            column.addWidget(part)
        column.addStretch(1)
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setWidget(inner)
        outer = QVBoxLayout(self)
        outer.addWidget(area, 1)
        outer.addWidget(self.problem)
        # Always in sight, however far the form is scrolled.
        outer.addWidget(self.job)

    def _connect(self) -> None:
        self._say("")
        for part in (self.slide, self.first, self.second):
            part.failed.connect(self._say)
        follow(self.session.slide_changed, self._clear)
        follow(self.session.jobs.status.events.state, self._clear)

    def _clear(self) -> None:
        self._say("")

    def _say(self, problem: str) -> None:
        self.problem.setText(problem)
        self.problem.setVisible(bool(problem))

    def event(self, event: QEvent | None) -> bool:
        """Notice being docked and undocked: closing a dock tells nothing else."""
        changed = event is not None and event.type() == QEvent.Type.ParentChange
        if changed and hasattr(self, "session"):
            user = id(self)
            if self.parent() is None:
                self.session.leave(user)
            else:
                self.session.enter(user)
        return bool(super().event(event))
