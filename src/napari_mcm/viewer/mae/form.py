"""The form of a pre-training: pictures, slides, and all options of the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from psygnal import Signal
from qtpy.QtWidgets import QCheckBox, QFormLayout, QVBoxLayout, QWidget

from napari_mcm.core.mae.config import PRESETS, PretrainConfig
from napari_mcm.core.mae.pictures import ENDINGS
from napari_mcm.viewer.app.session import Session
from napari_mcm.viewer.qt.collapsible_forms import AllOptions
from napari_mcm.viewer.qt.helpers import connect
from napari_mcm.viewer.qt.option_form import Labels, make_config
from napari_mcm.viewer.qt.patch_fields import PatchFields
from napari_mcm.viewer.qt.path_field import PathField
from napari_mcm.viewer.training.slide_picker import FilesField, SlidePicker

MAIN: Labels = (
    ("preset", "Prese&t"),
    ("model.model", "ViT"),
    ("model.image_size", "Image size (p&x)"),
    ("images.tiles", "Tiles per side"),
    ("masking.mask_ratio", "Mas&k ratio"),
    ("recipe.epochs", "&Epochs"),
    ("recipe.batch_size", "Batch size (images)"),
    ("recipe.base_lr", "Base LR (batch 256)"),
    ("start", "Start from"),
)
GROUPS = {
    "model": "Transformer",
    "masking": "Decoder and targets",
    "augment": "Augmentation and scaling",
    "recipe": "Optimiser",
    "compute": "Device and precision",
    "": "Reading and saving",
}
_SET_ELSEWHERE = {
    *("pictures", "out", "images.slides", "read.mpp_override"),
    *("grid.mpp", "grid.patch_size", "grid.min_tissue"),
}
_WORDS = {
    "preset": {
        "reference": "reference: defaults",
        "experiment1": "experiment 1: 50 % masked",
        "experiment2": "experiment 2: 75 % masked",
        "experiment3": "experiment 3: 25 % masked",
    },
    "model.model": {
        "tiny": "tiny: 192 wide",
        "small": "small: 384 wide",
        "base": "base: 768 wide",
        "large": "large: 1024 wide",
    },
}
PICTURES = f"Pictures ({' '.join(f'*{ending}' for ending in ENDINGS)});;All files (*)"
_TISSUE = "Train on tissue patches of slides, in addition to pictures or instead"


class PretrainForm(QWidget):
    """Choose training data and options of a pre-training.

    Parameters
    ----------
    session : Session
        Session of the viewer.

    Attributes
    ----------
    more : QWidget
        Collapsible forms of all other options, to be placed below.
    changed : Signal
        A choice has changed.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.folder = PathField(
            "Folder of pictures", "All pictures in the folder and its subfolders"
        )
        self.files = FilesField("Pictures", "Picture files", PICTURES)
        self.with_slides = QCheckBox("Tissue patches &of slides")
        self.with_slides.setToolTip(_TISSUE)
        self.slides = SlidePicker(session)
        self.patches = PatchFields(session)
        self.options = AllOptions(PretrainConfig, MAIN, GROUPS, _SET_ELSEWHERE, _WORDS)
        self.more = self.options.more
        self._lay_out()
        self.with_slides.toggled.connect(self._slides_wanted)
        for source in (self.folder, self.files, self.slides):
            connect(source.changed, self._edited)
        connect(session.patches_changed, self._edited)
        self.options.main.changed.connect(self._option_edited)
        for form in self.options.groups.values():
            connect(form.changed, self._edited)
        self._slides_wanted()

    def _lay_out(self) -> None:
        sources = QFormLayout()
        sources.addRow("Fol&der", self.folder)
        sources.addRow("Picture&s", self.files)
        column = QVBoxLayout(self)
        column.setContentsMargins(4, 8, 0, 0)
        column.addLayout(sources)
        for part in (self.with_slides, self.slides, self.patches, self.options.main):
            column.addWidget(part)

    def config(self, out: Path | None = None) -> PretrainConfig:
        """Return the options of the form.

        Parameters
        ----------
        out : Path, optional
            Run folder.

        Raises
        ------
        ValueError
            With one line that names what is missing or wrong.
        """
        if missing := self.missing():
            raise ValueError(missing)
        values = self.options.values()
        values |= {"pictures": self._pictures(), "out": out}
        if self.with_slides.isChecked():
            values |= self._slide_values()
        return make_config(PretrainConfig, values, self.options.labels)

    def beside(self) -> Path | None:
        """Return the path beside which runs are proposed, outside the training data."""
        if self.folder.path is not None:
            return self.folder.path
        if self.files.paths:
            return self.files.paths[0].parent
        return self.slides.beside() if self.with_slides.isChecked() else None

    def missing(self) -> str:
        """Name what is still to be chosen; empty where nothing is."""
        if self.with_slides.isChecked():
            try:
                self.slides.chosen()
            except ValueError as error:
                return str(error)
            return ""
        return "" if self._pictures() else "No pictures or slides are chosen"

    def show_preset(self, preset: str) -> None:
        """Show the options of a preset, and defaults for options of other presets."""
        config = PretrainConfig.model_validate({"preset": preset})
        names = {
            f"{group}.{option}"
            for several in PRESETS.values()
            for group, options in several.items()
            for option in options
        }
        self.options.show_config(config, names)

    def _pictures(self) -> tuple[Path, ...]:
        folder = self.folder.path
        return (*((folder,) if folder is not None else ()), *self.files.paths)

    def _slide_values(self) -> dict[str, Any]:
        chosen = self.slides.chosen()
        try:
            grid = self.patches.grid()
        except ValueError as error:
            raise ValueError(
                f"Resolution: {error}. Give µm per pixel, or auto"
            ) from None
        values: dict[str, Any] = {
            "images.slides": chosen.paths,
            "grid.mpp": grid.mpp,
            "grid.patch_size": grid.patch_size,
            "grid.min_tissue": grid.min_tissue,
            "read.mpp_override": chosen.read.mpp_override,
        }
        if chosen.tissue.masks is not None:
            values["tissue.masks"] = chosen.tissue.masks
        return values

    def _option_edited(self, name: str) -> None:
        if name == "preset":
            self.show_preset(self.options.main.values()["preset"])
        self.changed.emit()

    def _slides_wanted(self) -> None:
        wanted = self.with_slides.isChecked()
        self.slides.setVisible(wanted)
        self.patches.setVisible(wanted)
        self.changed.emit()

    def _edited(self) -> None:
        self.changed.emit()
