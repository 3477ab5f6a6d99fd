"""Input fields for the resolution, size and tissue fraction of patches."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_mcm.core.grid import GridConfig
from napari_mcm.viewer.app.features import encoder_label
from napari_mcm.viewer.app.persistence import writable_base
from napari_mcm.viewer.app.session import Session
from napari_mcm.viewer.app.settings import preferences
from napari_mcm.viewer.qt.collapsible_forms import CollapsibleSection
from napari_mcm.viewer.qt.helpers import connect, narrow
from napari_mcm.viewer.qt.path_field import ask_folder

AUTO = "auto"

RESOLUTIONS = (AUTO, "0.25", "0.5", "1", "2")


class PatchFields(QWidget):
    """Input fields for the options of patches, synchronised between all docks.

    Parameters
    ----------
    session : Session
        Session of the viewer, which stores the options.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        fields = GridConfig.model_fields
        self.mpp = narrow(QComboBox())
        self.mpp.setEditable(True)
        self.mpp.addItems(RESOLUTIONS)
        self.mpp.setToolTip(str(fields["mpp"].description))
        self.patch_size = _spin(16, 4096, " px")
        self.patch_size.setToolTip(str(fields["patch_size"].description))
        self.min_tissue = _spin(0, 100, " %")
        self.min_tissue.setSingleStep(5)
        self.min_tissue.setToolTip("Smallest fraction of a patch that must be tissue")
        self._lay_out()
        self.refresh()
        self.mpp.editTextChanged.connect(self._edited)
        self.patch_size.valueChanged.connect(self._edited)
        self.min_tissue.valueChanged.connect(self._edited)
        connect(session.patches_changed, self.refresh)

    def _lay_out(self) -> None:
        form = QFormLayout(self)
        form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Resolution (µm/px)", self.mpp)
        form.addRow("Patch si&ze", self.patch_size)
        form.addRow("Min. tissue fraction", self.min_tissue)

    def grid(self) -> GridConfig:
        """Return the options as a configuration.

        Raises
        ------
        ValueError
            If the resolution is not a number above 0.
        """
        text = self.mpp.currentText().strip().lower()
        options = {
            "patch_size": self.patch_size.value(),
            "min_tissue": self.min_tissue.value() / 100,
        }
        if text == AUTO:
            return GridConfig(**options)
        if not 0 < (mpp := float(text)) < 1000:
            raise ValueError(f"{mpp:g} is not between 0 and 1000")
        return GridConfig(mpp=mpp, **options)

    def refresh(self) -> None:
        """Show the options of the session, unless the fields already agree with them."""
        patches = self._session.patches
        try:
            if self.grid() == patches:
                return
        except ValueError:
            pass
        for field in (self.mpp, self.patch_size, self.min_tissue):
            field.blockSignals(True)
        self.mpp.setCurrentText(
            AUTO if patches.mpp == AUTO else format(patches.mpp, "g")
        )
        self.patch_size.setValue(patches.patch_size)
        self.min_tissue.setValue(round(patches.min_tissue * 100))
        for field in (self.mpp, self.patch_size, self.min_tissue):
            field.blockSignals(False)

    def _edited(self) -> None:
        # While typing, the resolution may be incomplete: ignore it until it is valid.
        try:
            self._session.use_patches(self.grid())
        except ValueError:
            return


def _spin(least: int, most: int, unit: str) -> QSpinBox:
    spin = QSpinBox()
    spin.setRange(least, most)
    spin.setSuffix(unit)
    return spin


class PatchOptions(QWidget):
    """A collapsed form for patches and for the folder of feature files.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.fields = PatchFields(session)
        self.mpp, self.patch_size = self.fields.mpp, self.fields.patch_size
        self.folder = QLineEdit()
        self.folder.setPlaceholderText("beside the slide")
        self.folder.setToolTip(
            "Folder for feature files. Empty: the preferred folder, else "
            "napari-mcm/<encoder> beside the slide, or in your home folder if that is "
            "read-only"
        )
        self.browse = QPushButton("…")
        self.browse.setToolTip("Choose the folder for feature files")
        self.browse.setAccessibleName("Choose the folder for feature files")
        self.browse.clicked.connect(self._browse)
        self.overwrite = QCheckBox("Overwrite incompatible files")
        self.overwrite.setToolTip(
            "Replace files of the same name that have other patches or weights; "
            "without this they stay, with an error (--overwrite on the command line)"
        )
        self._lay_out()

    def _lay_out(self) -> None:
        inner = QWidget()
        form = QFormLayout(inner)
        form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow(self.fields)
        row = QHBoxLayout()
        row.addWidget(self.folder, 1)
        row.addWidget(self.browse)
        label = QLabel("Save to")
        label.setBuddy(self.folder)
        form.addRow(label, row)
        form.addRow(self.overwrite)
        folded = CollapsibleSection("Patches and files")
        folded.setToolTip("Resolution and size of patches, folder for features")
        folded.addWidget(inner)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(folded)

    def grid(self) -> GridConfig:
        """Return the options as the engine takes them.

        Raises
        ------
        ValueError
            If the resolution is not a number above 0.
        """
        return self.fields.grid()

    def out(self, slide: Path, encoder: str) -> Path:
        """Return the folder for feature files.

        Parameters
        ----------
        slide : Path
            The slide.
        encoder : str
            The encoder as the engine takes it.
        """
        chosen = self.folder.text().strip()
        if chosen:
            return Path(chosen).expanduser() / folder_name(encoder)
        base = preferences().output_folder or writable_base(slide)
        return base / folder_name(encoder)

    def _browse(self) -> None:
        folder = ask_folder(self, "Folder for feature files")
        if folder:
            self.folder.setText(folder)


def folder_name(spec: str) -> str:
    """Return a folder name for the features of an encoder.

    For a run it contains a hash of the path, so that runs with the same name do not share
    a folder.
    """
    path = Path(spec)
    name = encoder_label(spec) if path.exists() else spec
    name = re.sub(r"[^\w.-]+", "-", name).strip("-") or "encoder"
    if not path.exists():
        return name
    path_hash = hashlib.blake2b(str(path.resolve()).encode(), digest_size=3)
    return f"{name}-{path_hash.hexdigest()}"
