"""The tab *Windows*: what a training would see, drawn on the slide."""

from __future__ import annotations

import numpy as np
from qtpy.QtGui import QImage
from qtpy.QtWidgets import QCheckBox, QPushButton, QVBoxLayout, QWidget

from napari_mcm.viewer.session import Session
from napari_mcm.viewer.widgets.finetune_form import FinetuneForm
from napari_mcm.viewer.widgets.mil_picture import Picture
from napari_mcm.viewer.widgets.parts import allow, follow, note
from napari_mcm.viewer.window_preview import WindowPreview

_SHOW = (
    "Draw the context windows of the first epoch, each in another shade than its "
    "neighbours; they are laid anew in every epoch"
)
_ANOTHER = (
    "Go to the next window that would be learned from; masked patches are hatched"
)


class WindowBox(QWidget):
    """Shows windows on the slide, and one of them as the student sees it.

    Parameters
    ----------
    session : Session
        Of the viewer.
    form : FinetuneForm
        What is asked for.
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
        follow(form.changed, self._form_changed)
        follow(session.slide_changed, self._form_changed)
        follow(self.preview.changed, self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show what is laid, and the window that is looked at."""
        preview, shown = self.preview, self.preview.shown
        text = "Tick the box to see which tissue is learned from, in which windows."
        if preview.busy:
            text = "Looking for tissue and laying windows…"
        elif preview.problem:
            text = preview.problem
        elif preview.plan is not None:
            text = preview.plan.describe()
        self.about.setText(text)
        some = preview.plan is not None and bool(preview.plan.refs)
        allow(self.another, _ANOTHER, "" if some else "no windows are shown")
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
