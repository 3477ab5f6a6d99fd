"""The box that chooses the active slide, opens slides and takes a resolution."""

from __future__ import annotations

from pathlib import Path

from psygnal import Signal
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
from napari_mcm.viewer.layers.metadata import SlideMetadata, slide_of, truncated
from napari_mcm.viewer.qt.helpers import connect, narrow, note, set_enabled_with_reason
from napari_mcm.viewer.qt.path_field import ask_file, ask_folder
from napari_mcm.viewer.qt.primary_button import PrimaryButton

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

    Attributes
    ----------
    opening, missing : QWidget
        The buttons that open slides, and the fields for a missing resolution.
    sentence : str
        What the user should do or wait for; empty once a slide is ready.
    changed : Signal
        Emitted when the slide, its summary or the sentence changed.
    """

    changed = Signal()

    def __init__(self, session: Session, brief: bool = False) -> None:
        super().__init__("Slide")
        self._session, self._brief = session, brief
        self.sentence = ""
        self.choice = narrow(QComboBox())
        self.choice.setAccessibleName("Active slide")
        self.choice.activated.connect(self._chosen)
        self.open = PrimaryButton("&Open slide…")
        self.open.setToolTip("Open a whole-slide image with this plugin (Alt+O)")
        self.open.clicked.connect(self._browse)
        self.open_folder = QPushButton("Open fol&der…")
        self.open_folder.setToolTip("Open a folder of DICOM files, or OME-Zarr (Alt+D)")
        self.open_folder.clicked.connect(self._browse_folder)
        self.metadata = note()
        self.mpp = QDoubleSpinBox()
        self.mpp.setDecimals(4)
        self.mpp.setRange(0.01, 100)
        self.mpp.setValue(0.5)
        self.mpp.setSuffix(" µm per pixel")
        self.mpp.setToolTip("Resolution of level 0: typically 0.25 at 40×, 0.5 at 20×")
        self.set_mpp = PrimaryButton("S&et")
        self.set_mpp.setToolTip("Use this resolution for the slide (Alt+E)")
        self.set_mpp.clicked.connect(lambda: session.set_mpp(self.mpp.value()))
        self._lay_out()
        connect(session.slide_changed, self.refresh)
        self.refresh()

    def _lay_out(self) -> None:
        self.opening, self.missing = QWidget(), QWidget()
        row = QHBoxLayout(self.opening)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.open)
        row.addWidget(self.open_folder)
        row = QHBoxLayout(self.missing)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.mpp, 1)
        row.addWidget(self.set_mpp)
        column = QVBoxLayout(self)
        column.addWidget(self.choice)
        column.addWidget(self.opening)
        column.addWidget(self.metadata)
        column.addWidget(self.missing)

    def summary(self) -> str:
        """Return the slide, its resolution and whether it has a tissue mask, in a line.

        The name is omitted where several slides are open: the list shows it.
        """
        session, metadata = self._session, self._session.metadata
        if metadata is None or session.slide is None:
            return "Slide"
        parts = [session.slide.name] if self.choice.count() < 2 else []
        if metadata.mpp is not None:
            parts.append(f"{metadata.mpp[0]:.3g} µm/px")
        if session.tissue.mask_of(session.slide) is not None:
            parts.append("✓ tissue")
        return " · ".join(parts) or "Slide"

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
        ready = metadata is not None and metadata.mpp is not None
        cut = truncated(slide_of(self._session.slide))
        missing = "" if ready else self.metadata.text()
        self.sentence = " ".join(filter(None, (cut, missing)))
        self.open.set_primary(metadata is None)
        self.set_mpp.set_primary(metadata is not None and metadata.mpp is None)
        self.metadata.setVisible(not (self._brief and ready))
        self.metadata.setToolTip(metadata.path if metadata else "")
        # A resolution that the user entered stays editable, because it may be wrong.
        editable = metadata is not None and (
            metadata.mpp is None or metadata.mpp_override
        )
        self.missing.setVisible(bool(editable))
        if metadata is not None and metadata.mpp_override:
            self.mpp.setValue(metadata.mpp_override)
        self.changed.emit()

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
            self.sentence = f"Opening {Path(path).name}…"
            self.metadata.setText(self.sentence)
            self.changed.emit()
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
