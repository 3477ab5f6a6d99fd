"""The form of a fine-tuning: slides, encoders, and all options of the engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from psygnal import Signal
from qtpy.QtWidgets import QFormLayout, QVBoxLayout, QWidget

from napari_mcm.core.mcm.config import PRESET_LABELS, PRESETS, FinetuneConfig
from napari_mcm.viewer.app.session import Session
from napari_mcm.viewer.qt.collapsible_forms import AllOptions
from napari_mcm.viewer.qt.encoder_field import EncoderField
from napari_mcm.viewer.qt.fields import ChoiceLabels
from napari_mcm.viewer.qt.helpers import connect
from napari_mcm.viewer.qt.option_form import Labels, make_config
from napari_mcm.viewer.qt.patch_fields import PatchFields
from napari_mcm.viewer.training.slide_picker import SlidePicker

MAIN: Labels = (
    ("preset", "Prese&t"),
    ("optimiser.epochs", "Epochs"),
    ("optimiser.batch_windows", "Batch size (windows)"),
    ("context.s", "Window (patches)"),
    ("context.mask_ratio", "Mas&k ratio"),
    ("held_out.validation", "Held-out fraction"),
)
GROUPS = {
    "context": "Context window",
    "target": "Targets",
    "optimiser": "Optimiser",
    "held_out": "Held out and probes",
    "compute": "Device and precision",
    "": "Reading and saving",
}
"""Groups of options by the first part of their names, and their titles."""
_SET_ELSEWHERE = {
    *("preset", "slides", "student", "teacher", "out", "read.mpp_override"),
    *("grid.mpp", "grid.patch_size", "grid.min_tissue"),
}
_WORDS: Mapping[str, ChoiceLabels] = {"preset": {None: "defaults", **PRESET_LABELS}}


class FinetuneForm(QWidget):
    """Choose slides, encoders and options of a fine-tuning.

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
        self.slides = SlidePicker(session)
        self._recent = session.recent
        self.student = EncoderField("Student")
        self.teacher = EncoderField("Teacher", ("student",))
        self.patches = PatchFields(session)
        self.options = AllOptions(FinetuneConfig, MAIN, GROUPS, _SET_ELSEWHERE, _WORDS)
        self.more = self.options.more
        self._lay_out()
        self.student.setCurrentText(_default("student"))
        self.teacher.setCurrentText(_default("teacher"))
        for field in (self.student, self.teacher):
            field.editTextChanged.connect(lambda _: self.changed.emit())
        connect(session.recent.changed, self._offer)
        self._offer()
        session.recent.reload()
        connect(self.slides.changed, self._edited)
        connect(session.patches_changed, self._edited)
        self.options.main.changed.connect(self._option_edited)
        for form in self.options.groups.values():
            connect(form.changed, self._edited)

    def _lay_out(self) -> None:
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.slides)
        encoders = QFormLayout()
        encoders.addRow("&Student", self.student)
        encoders.addRow("Te&acher", self.teacher)
        column.addLayout(encoders)
        column.addWidget(self.options.main)
        column.addWidget(self.patches)

    def config(self, out: Path | None = None) -> FinetuneConfig:
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
        chosen = self.slides.chosen()
        for name, field in (("student", self.student), ("teacher", self.teacher)):
            if not field.spec:
                raise ValueError(f"No {name} is chosen")
        try:
            grid = self.patches.grid()
        except ValueError as error:
            raise ValueError(
                f"Resolution: {error}. Give µm per pixel, or auto"
            ) from None
        values = self.options.values()
        values |= {
            "slides": chosen.paths,
            "student": self.student.spec,
            "teacher": self.teacher.spec,
            "out": out,
            "grid.mpp": grid.mpp,
            "grid.patch_size": grid.patch_size,
            "grid.min_tissue": grid.min_tissue,
            "read.mpp_override": chosen.read.mpp_override,
        }
        if chosen.tissue.masks is not None:
            values["tissue.masks"] = chosen.tissue.masks
        return make_config(FinetuneConfig, values, self.options.labels)

    def beside(self) -> Path | None:
        """Return a path in the folder of the slides, beside which runs are proposed."""
        return self.slides.beside()

    def missing(self) -> str:
        """Name what is still to be chosen; empty where nothing is."""
        try:
            self.slides.chosen()
        except ValueError as error:
            return str(error)
        return ""

    def show_preset(self, preset: str | None) -> None:
        """Show the options of a preset; options of no preset stay as they are."""
        config = FinetuneConfig.model_validate({"preset": preset})
        self.options.show_config(config, _preset_options())
        if preset is not None and "teacher" in PRESETS[preset]:
            self.teacher.setCurrentText(config.teacher)
        elif self.teacher.spec == "student":
            self.teacher.setCurrentText(_default("teacher"))

    def _option_edited(self, name: str) -> None:
        if name == "preset":
            self.show_preset(self.options.main.values()["preset"])
        self.changed.emit()

    def _offer(self) -> None:
        for field in (self.student, self.teacher):
            field.offer_runs(self._recent.runs)

    def _edited(self) -> None:
        self.changed.emit()


def _preset_options() -> set[str]:
    found = set()
    for preset in PRESETS.values():
        for name, value in preset.items():
            if isinstance(value, dict):
                found |= {f"{name}.{option}" for option in value}
    return found


def _default(name: str) -> str:
    return str(FinetuneConfig.model_fields[name].default)
