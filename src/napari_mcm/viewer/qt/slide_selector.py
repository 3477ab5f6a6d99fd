"""The box that chooses the active slide, opens slides and takes a resolution."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QGroupBox,
    QHBoxLayout,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_mcm.viewer.app.session import Session
from napari_mcm.viewer.layers.metadata import SlideMetadata
from napari_mcm.viewer.qt.helpers import connect, narrow, note, set_enabled_with_reason
from napari_mcm.viewer.qt.path_field import ask_file, ask_folder

FILES = (
    "Slides (*.svs *.tif *.tiff *.btf *.ndpi *.scn *.bif *.qptiff *.mrxs *.vms *.vmu "
    "*.svslide *.dcm *.zarr.zip *.png *.jpg *.jpeg);;All files (*)"
)


class SlideSelector(QGroupBox):
    """Chooses the active slide, opens slides, and asks for a missing resolution.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    brief : bool
        Whether to omit size and resolution, which the dock shows elsewhere.
    """

    def __init__(self, session: Session, brief: bool = False) -> None:
        super().__init__("Slide")
        self._session, self._brief = session, brief
        self.choice = narrow(QComboBox())
        self.choice.setAccessibleName("Active slide")
        self.choice.activated.connect(self._chosen)
        self.open = QPushButton("&Open slide…")
        self.open.setToolTip("Open a whole-slide image with this plugin")
        self.open.clicked.connect(self._browse)
        self.open_folder = QPushButton("Open fol&der…")
        self.open_folder.setToolTip("Open a folder of DICOM files, or an OME-Zarr")
        self.open_folder.clicked.connect(self._browse_folder)
        self.metadata = note()
        self.mpp = QDoubleSpinBox()
        self.mpp.setDecimals(4)
        self.mpp.setRange(0.01, 100)
        self.mpp.setValue(0.5)
        self.mpp.setSuffix(" µm per pixel")
        self.mpp.setToolTip("Resolution of level 0: typically 0.25 at 40×, 0.5 at 20×")
        self.set_mpp = QPushButton("S&et")
        self.set_mpp.setToolTip("Use this resolution for the slide")
        self.set_mpp.clicked.connect(lambda: session.set_mpp(self.mpp.value()))
        self._lay_out()
        connect(session.slide_changed, self.refresh)
        self.refresh()

    def _lay_out(self) -> None:
        opening = QHBoxLayout()
        opening.addWidget(self.open)
        opening.addWidget(self.open_folder)
        self._missing = QWidget()
        row = QHBoxLayout(self._missing)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.mpp, 1)
        row.addWidget(self.set_mpp)
        column = QVBoxLayout(self)
        column.addWidget(self.choice)
        column.addLayout(opening)
        column.addWidget(self.metadata)
        column.addWidget(self._missing)

    def refresh(self) -> None:
        """Show the open slides and the metadata of the active one."""
        slides = self._session.layers.slides()
        self.choice.clear()
        self.choice.addItems([slide.name for slide in slides])
        if self._session.slide in slides:
            self.choice.setCurrentIndex(slides.index(self._session.slide))
        reason = "" if slides else "no slide is open"
        set_enabled_with_reason(self.choice, "The slide that the docks work on", reason)
        metadata = self._session.metadata
        self.metadata.setText(_describe(metadata))
        shown_elsewhere = (
            self._brief and metadata is not None and metadata.mpp is not None
        )
        self.metadata.setVisible(not shown_elsewhere)
        self.metadata.setToolTip(metadata.path if metadata else "")
        # A resolution that the user entered stays editable, because it may be wrong.
        editable = metadata is not None and (
            metadata.mpp is None or metadata.mpp_override
        )
        self._missing.setVisible(bool(editable))
        if metadata is not None and metadata.mpp_override:
            self.mpp.setValue(metadata.mpp_override)

    def _chosen(self, index: int) -> None:
        self._session.choose_slide(self._session.layers.slides()[index])

    def _browse(self) -> None:
        self.take(ask_file(self, "Open a slide", FILES))

    def _browse_folder(self) -> None:
        self.take(ask_folder(self, "Open a slide in a folder"))

    def take(self, path: str) -> None:
        """Open a slide in the background; errors are shown in the dock.

        Parameters
        ----------
        path : str
            File or folder of the slide; empty to do nothing.
        """
        if path:
            self.metadata.setVisible(True)
            self.metadata.setText(f"Opening {Path(path).name}…")
            self._session.open(path, self.refresh)


def _describe(metadata: SlideMetadata | None) -> str:
    if metadata is None:
        return "Open a slide, or choose File > Open Sample > Generated H&E slide."
    width, height = metadata.size
    size = f"{width:,} × {height:,} px"
    if metadata.mpp is None:
        return (
            f"{size}. The file states no resolution: enter it in µm per pixel to "
            "compute features."
        )
    source = " (entered by you)" if metadata.mpp_override else ""
    return f"{size}, {metadata.mpp[0]:.4g} µm per pixel{source}"
