"""How patches are laid over the slide, and where features are written to."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path

from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_mcm.core.grid import GridConfig
from napari_mcm.viewer.widgets.parts import narrow

AUTO = "auto"
RESOLUTIONS = (AUTO, "0.25", "0.5", "1", "2")
FOLDER = "napari-mcm"


class PatchOptions(QWidget):
    """A folded form: resolution, patch size, output folder."""

    def __init__(self) -> None:
        super().__init__()
        defaults = GridConfig()
        fields = GridConfig.model_fields
        self.mpp = narrow(QComboBox())
        self.mpp.setEditable(True)
        self.mpp.addItems(RESOLUTIONS)
        self.mpp.setCurrentText(str(defaults.mpp))
        self.mpp.setToolTip(str(fields["mpp"].description))
        self.patch_size = QSpinBox()
        self.patch_size.setRange(16, 4096)
        self.patch_size.setValue(defaults.patch_size)
        self.patch_size.setSuffix(" px")
        self.patch_size.setToolTip(str(fields["patch_size"].description))
        self.folder = QLineEdit()
        self.folder.setPlaceholderText("beside the slide")
        self.folder.setToolTip(
            "Folder for feature files. Left empty: napari-mcm/<encoder> beside the "
            "slide, or in your home folder where that cannot be written to"
        )
        self.browse = QPushButton("…")
        self.browse.setToolTip("Choose the folder for feature files")
        self.browse.setAccessibleName("Choose the folder for feature files")
        self.browse.clicked.connect(self._browse)
        self.overwrite = QCheckBox("Replace &files made in another way")
        self.overwrite.setToolTip(
            "Files of the same name but other patches or weights are otherwise left as "
            "they are, with an error (--overwrite on the command line)"
        )
        self._lay_out()

    def _lay_out(self) -> None:
        inner = QWidget()
        form = QFormLayout(inner)
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("&Resolution (µm/px)", self.mpp)
        form.addRow("Patch si&ze", self.patch_size)
        row = QHBoxLayout()
        row.addWidget(self.folder, 1)
        row.addWidget(self.browse)
        label = QLabel("Save &to")
        label.setBuddy(self.folder)
        form.addRow(label, row)
        form.addRow(self.overwrite)
        folded = QCollapsible("Patches and files")
        folded.setToolTip("Resolution and size of patches, folder for features")
        folded.addWidget(inner)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(folded)

    def grid(self) -> GridConfig:
        """Give the options as the engine takes them.

        Raises
        ------
        ValueError
            If the resolution is not a number above 0.
        """
        text = self.mpp.currentText().strip().lower()
        if text == AUTO:
            return GridConfig(patch_size=self.patch_size.value())
        if not (mpp := float(text)) > 0:
            raise ValueError(f"{mpp:g} is not above 0")
        return GridConfig(mpp=mpp, patch_size=self.patch_size.value())

    def out(self, slide: Path, encoder: str) -> Path:
        """Give the folder for features of a slide made with an encoder."""
        chosen = self.folder.text().strip()
        if chosen:
            return Path(chosen).expanduser() / folder_name(encoder)
        return writable_base(slide) / folder_name(encoder)

    def _browse(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder for feature files")
        if folder:
            self.folder.setText(folder)


def encoder_label(spec: str) -> str:
    """Name an encoder for people: a run by its folder, a model by its name."""
    path = Path(spec)
    if not path.exists():
        return spec.removeprefix("offline:").removeprefix("hf-hub:")
    path = path.resolve()
    if path.is_file():
        path = path.parent
    return path.parent.name if path.name == "encoder" else path.name


def folder_name(spec: str) -> str:
    """Name a folder for an encoder's features.

    Runs are told apart by where they lie: two of the same name do not share.
    """
    path = Path(spec)
    name = encoder_label(spec) if path.exists() else spec
    name = re.sub(r"[^\w.-]+", "-", name).strip("-") or "encoder"
    if not path.exists():
        return name
    place = hashlib.blake2b(str(path.resolve()).encode(), digest_size=3)
    return f"{name}-{place.hexdigest()}"
