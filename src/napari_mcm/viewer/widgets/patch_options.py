"""How patches are laid over the slide, and where features are written to."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from qtpy.QtWidgets import (
    QCheckBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_mcm.core.grid import GridConfig
from napari_mcm.viewer.places import writable_base
from napari_mcm.viewer.session import Session
from napari_mcm.viewer.settings import preferences
from napari_mcm.viewer.widgets.dialogs import ask_folder
from napari_mcm.viewer.widgets.fold import Fold
from napari_mcm.viewer.widgets.patch_fields import PatchFields


class PatchOptions(QWidget):
    """A folded form: resolution, patch size, output folder.

    Parameters
    ----------
    session : Session
        Of the viewer.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.fields = PatchFields(session)
        self.mpp, self.patch_size = self.fields.mpp, self.fields.patch_size
        self.folder = QLineEdit()
        self.folder.setPlaceholderText("beside the slide")
        self.folder.setToolTip(
            "Folder for feature files. Left empty: that of the preferences, or "
            "napari-mcm/<encoder> beside the slide, or in your home folder where that "
            "cannot be written to"
        )
        self.browse = QPushButton("…")
        self.browse.setToolTip("Choose the folder for feature files")
        self.browse.setAccessibleName("Choose the folder for feature files")
        self.browse.clicked.connect(self._browse)
        self.overwrite = QCheckBox("Replace files made otherwise")
        self.overwrite.setToolTip(
            "Files of the same name but other patches or weights are otherwise left as "
            "they are, with an error (--overwrite on the command line)"
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
        folded = Fold("Patches and files")
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
        return self.fields.grid()

    def out(self, slide: Path, encoder: str) -> Path:
        """Give the folder for features of a slide made with an encoder."""
        chosen = self.folder.text().strip()
        if chosen:
            return Path(chosen).expanduser() / folder_name(encoder)
        base = preferences().output_folder or writable_base(slide)
        return base / folder_name(encoder)

    def _browse(self) -> None:
        folder = ask_folder(self, "Folder for feature files")
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
