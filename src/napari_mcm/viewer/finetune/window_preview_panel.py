"""Show the context windows of a training on the slide, and one with its mask."""

from __future__ import annotations

import numpy as np
from qtpy.QtGui import QImage
from qtpy.QtWidgets import QCheckBox, QPushButton, QVBoxLayout, QWidget

from napari_mcm.viewer.app.session import Session
from napari_mcm.viewer.finetune.form import FinetuneForm
from napari_mcm.viewer.finetune.window_preview import WindowPreview
from napari_mcm.viewer.qt.helpers import connect, note, set_enabled_with_reason
from napari_mcm.viewer.training.run_images import Picture

_SHOW = (
    "Draw the context windows of the first epoch, as a checkerboard; every epoch "
    "places them differently"
)

_ANOTHER = "Go to the next training window; masked patches are hatched"


class WindowPreviewPanel(QWidget):
    """Show windows on the slide, and one of them as the student sees it.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    form : FinetuneForm
        Form with the options.
    """

    def __init__(self, session: Session, form: FinetuneForm) -> None:
        super().__init__()
        self.preview = WindowPreview(session, form.config)
        self.show_windows = QCheckBox("&Show windows on the slide")
        self.show_windows.setToolTip(_SHOW)
        self.show_windows.toggled.connect(self.preview.show)
        self.about, self.window_note = note(), note()
        self.another = QPushButton("One window, &masked")
        self.another.clicked.connect(self.preview.another)
        self.picture = Picture()
        self.picture.setAccessibleName("A window as the student sees it")
        column = QVBoxLayout(self)
        column.setContentsMargins(4, 8, 0, 0)
        for part in (self.show_windows, self.about, self.another, self.window_note):
            column.addWidget(part)
        column.addWidget(self.picture)
        connect(form.changed, self._form_changed)
        connect(session.slide_changed, self._form_changed)
        connect(self.preview.changed, self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show the current windows, and the chosen one."""
        preview, shown = self.preview, self.preview.shown
        text = "Tick the box to see the training windows on the tissue."
        if preview.busy:
            text = "Finding tissue and placing windows…"
        elif preview.problem:
            text = preview.problem
        elif preview.plan is not None:
            text = preview.plan.describe()
        self.about.setText(text)
        some = preview.plan is not None and bool(preview.plan.refs)
        set_enabled_with_reason(
            self.another, _ANOTHER, "" if some else "no windows are shown"
        )
        self.window_note.setText(shown.text if shown else "")
        self.window_note.setVisible(shown is not None)
        image = QImage()
        if shown is not None:
            pixels = np.ascontiguousarray(shown.picture)
            height, width, _ = pixels.shape
            layout = QImage.Format.Format_RGB888
            image = QImage(pixels.tobytes(), width, height, 3 * width, layout).copy()
        self.picture.show_image(image)

    def _form_changed(self) -> None:
        self.preview.update()
