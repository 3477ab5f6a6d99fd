"""The box that finds, edits, saves and loads the tissue mask."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import (
    QGroupBox,
    QHBoxLayout,
    QPushButton,
    QVBoxLayout,
)

from napari_mcm.viewer.app.features import find_mask
from napari_mcm.viewer.app.session import Session
from napari_mcm.viewer.app.tissue import EditableMask
from napari_mcm.viewer.layers.metadata import slide_of
from napari_mcm.viewer.qt.command_panel import CommandMenu
from napari_mcm.viewer.qt.helpers import connect, note, set_enabled_with_reason
from napari_mcm.viewer.qt.path_field import ask_file, ask_save
from napari_mcm.viewer.slide.commands import tissue_command

_FIND = "Find tissue on the slide, in the background"
_EDIT = "Paint on the mask with napari's brush; press again to pan and zoom"
_SAVE = "Write the mask as GeoJSON (for QuPath) or PNG"
_LOAD = "Read a mask from GeoJSON or an image of the whole slide"
_KEYS = "Brush 2, eraser 1, fill 4, undo Ctrl+Z. [ and ] change its size; Space pans."
_WRITE = "GeoJSON (*.geojson);;PNG (*.png)"
_READ = "Masks (*.geojson *.json *.png *.tif *.tiff)"


class TissuePanel(QGroupBox):
    """The box with the tissue mask of the active slide.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    """

    def __init__(self, session: Session) -> None:
        super().__init__("Tissue")
        self._session = session
        self.search = QPushButton("Find &tissue")
        self.search.clicked.connect(self.start)
        self.edit = QPushButton("Ed&it mask")
        self.edit.setCheckable(True)
        self.edit.clicked.connect(self._toggle_editing)
        self.save = QPushButton("Save &mask…")
        self.save.clicked.connect(self._browse_save)
        self.load = QPushButton("Load ma&sk…")
        self.load.clicked.connect(self._browse_load)
        self.command = CommandMenu(
            "Find tissue", lambda: tissue_command(session), session.report_error
        )
        self.state = note()
        self._lay_out()
        connect(session.slide_changed, self.refresh)
        connect(session.tissue.changed, self.refresh)
        connect(session.jobs.status.events.state, self.refresh)
        connect(session.tissue.painting_changed, self.refresh)
        self.refresh()

    def _lay_out(self) -> None:
        column = QVBoxLayout(self)
        for pair in ((self.search, self.edit), (self.load, self.save)):
            row = QHBoxLayout()
            for button in pair:
                row.addWidget(button)
            column.addLayout(row)
        column.addWidget(self.command)
        column.addWidget(self.command.feedback)
        column.addWidget(self.state)

    def refresh(self) -> None:
        """Show the state of the mask, and enable the buttons that can be used."""
        session = self._session
        slide, editable = slide_of(session.slide), session.tissue.mask_of(session.slide)
        reason = "" if slide else "no slide is open"
        if slide is not None and slide.stated_mpp is None:
            reason = "the slide's resolution is unknown: enter it above"
        busy = "another job is running" if session.jobs.status.busy else ""
        set_enabled_with_reason(self.search, _FIND, reason or busy)
        set_enabled_with_reason(self.load, _LOAD, reason)
        nothing = reason or ("" if editable else "there is no mask yet")
        set_enabled_with_reason(self.edit, _EDIT, nothing)
        set_enabled_with_reason(self.save, _SAVE, nothing)
        painting = session.tissue.paints_on(session.slide)
        self.edit.setChecked(painting)
        text = describe(editable)
        self.state.setText(f"{text}\n{_KEYS}" if painting else text)

    def start(self) -> None:
        """Find the tissue of the active slide in the background."""
        session, layer = self._session, self._session.slide
        slide = slide_of(layer)
        if layer is not None and slide is not None:
            session.jobs.start(
                f"Tissue of {slide.name}",
                lambda: find_mask(slide),
                lambda mask: session.tissue.show_found(layer, mask),
            )

    def _toggle_editing(self, on: bool) -> None:
        session = self._session
        editable = session.tissue.mask_of(session.slide)
        if editable is None or session.slide is None:
            return
        editable.layer.visible = True
        editable.layer.mode = "paint" if on else "pan_zoom"
        session.layers.activate(editable.layer if on else session.slide)
        self.refresh()

    def _browse_save(self) -> None:
        slide = slide_of(self._session.slide)
        if slide is None or self._session.slide is None:
            return
        start = str(Path(slide.path).parent / f"{slide.name}.geojson")
        path = ask_save(self, "Save the mask", start, _WRITE)
        if path:
            self._session.tissue.save(self._session.slide, Path(path))

    def _browse_load(self) -> None:
        path = ask_file(self, "Load a mask", _READ)
        if path and self._session.slide is not None:
            self._session.tissue.load(self._session.slide, Path(path))


def describe(editable: EditableMask | None) -> str:
    """Return the tissue fraction and the origin of a mask as text."""
    if editable is None:
        return "No mask yet. Without one, tissue is found automatically."
    return f"{editable.mask.fraction:.1%} of the slide is tissue; {editable.note}."
