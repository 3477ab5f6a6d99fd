"""The box that starts a feature extraction."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from qtpy.QtWidgets import QFormLayout, QGroupBox, QPushButton, QVBoxLayout

from napari_mcm.core.features.config import ExtractConfig
from napari_mcm.core.runtime.command import Command
from napari_mcm.viewer.app.commands import extract_command
from napari_mcm.viewer.app.features import encoder_label
from napari_mcm.viewer.app.session import Session
from napari_mcm.viewer.app.settings import preferences
from napari_mcm.viewer.app.workloads import extraction_work
from napari_mcm.viewer.features.files_panel import FeatureFilesPanel
from napari_mcm.viewer.features.jobs import ExtractionOutcome, extract_run
from napari_mcm.viewer.qt.collapsible_forms import CollapsibleForms
from napari_mcm.viewer.qt.command_panel import CommandPanel
from napari_mcm.viewer.qt.encoder_field import EncoderField
from napari_mcm.viewer.qt.estimate_line import EstimateLine
from napari_mcm.viewer.qt.helpers import connect, set_enabled_with_reason
from napari_mcm.viewer.qt.option_form import Labels, OptionForm, make_config
from napari_mcm.viewer.qt.patch_fields import PatchOptions
from napari_mcm.viewer.training.slide_picker import SlidePicker

MORE: Labels = (
    ("compute.device", "Device"),
    ("compute.precision", "Precision"),
    ("batch_size", "Patches per batch"),
    ("workers", "Reading threads"),
    ("block", "Patches per write"),
    ("grid.allow_upsampling", "Enlarge coarse slides"),
    ("read.icc", "Colours by the slide's profile"),
    ("tissue.tissue_mpp", "Tissue at (µm/px)"),
    ("beside", "Keep incompatible files too"),
)
START, ANYWAY = "E&xtract features", "E&xtract anyway"
_ADVICE = "choose fewer slides, a smaller encoder, larger patches, or a GPU (Device)"
_EXTRACT = (
    "Find tissue, cover it with patches and encode them, in the background. Complete "
    "files are kept; interrupted files resume"
)


class ExtractPanel(QGroupBox):
    """The box with the options of a feature extraction and its start button.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    files : FeatureFilesPanel
        Has the slot for the features of the active slide.
    """

    def __init__(self, session: Session, files: FeatureFilesPanel) -> None:
        super().__init__("Extract")
        self._session, self._files = session, files
        self.slides = SlidePicker(session)
        self.encoder = EncoderField("Encoder")
        self.options = PatchOptions(session)
        self.more = OptionForm(ExtractConfig, MORE)
        preferred = preferences().compute
        self.more.put("compute.device", preferred.device)
        self.more.put("compute.precision", preferred.precision)
        self.extract = QPushButton(START)
        self.extract.clicked.connect(self.start)
        self.estimate = EstimateLine(session, _ADVICE)
        self.command = CommandPanel(self.as_command, session.report_error)
        self._lay_out()
        connect(self.slides.changed, self.refresh)
        self.encoder.editTextChanged.connect(lambda _: self.refresh())
        connect(session.jobs.status.events.state, self.refresh)
        connect(session.jobs.status.events.state, self.estimate.again)
        connect(session.patches_changed, self.refresh)
        connect(session.tissue.changed, self.estimate.again)
        connect(self.more.changed, self.refresh)
        connect(self.estimate.changed, self._name_button)
        connect(session.recent.changed, self._offer)
        self._offer()
        session.recent.reload()
        self.refresh()

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.addRow("Encode&r", self.encoder)
        folded = CollapsibleForms("More options", self.more)
        folded.setToolTip("Device, batch, threads; the command line has all")
        column = QVBoxLayout(self)
        column.setContentsMargins(2, 4, 2, 4)
        column.addWidget(self.slides)
        column.addLayout(form)
        for part in (self.options, folded, self.estimate, self.extract, self.command):
            column.addWidget(part)

    def refresh(self) -> None:
        """Enable the button if it can be used, and estimate how long it would take."""
        reason = self._reason()
        set_enabled_with_reason(self.extract, _EXTRACT, reason)
        config = None
        if not reason or self._session.jobs.status.busy:
            with suppress(ValueError):
                config = self.config()
        self.estimate.ask(config, extraction_work)

    def _name_button(self) -> None:
        self.extract.setText(ANYWAY if self.estimate.is_long else START)

    def config(self) -> ExtractConfig:
        """Return the options in the form.

        Raises
        ------
        ValueError
            If an option is missing or invalid; the message is one line.
        """
        chosen = self.slides.chosen()
        if not (encoder := self.encoder.spec):
            raise ValueError("No encoder is chosen")
        try:
            grid = self.options.grid()
        except ValueError as error:
            raise ValueError(
                f"Resolution: {error}. Give µm per pixel, or auto"
            ) from None
        values = {
            **self.more.values(),
            "slides": chosen.paths,
            "encoder": encoder,
            "out": self._out(encoder),
            "overwrite": self.options.overwrite.isChecked(),
            "compile": "off",  # it needs Triton, see libraries.py
            "grid.mpp": grid.mpp,
            "grid.patch_size": grid.patch_size,
            "grid.min_tissue": grid.min_tissue,
            "read.mpp_override": chosen.read.mpp_override,
            "tissue.masks": chosen.tissue.masks,
        }
        return make_config(ExtractConfig, values, MORE)

    def as_command(self) -> Command:
        """Return the command that does the same as the button."""
        return extract_command(self.config())

    def start(self) -> None:
        """Start the extraction in the background."""
        session, slide, metadata = (
            self._session,
            self._session.slide,
            self._session.metadata,
        )
        try:
            config = self.config()
        except ValueError as error:
            session.report_error(str(error))
            return
        present = Path(metadata.path) if metadata is not None else None
        (encoder,), slot = config.encoder, self._files.slot
        label = encoder_label(encoder)

        def take(done: ExtractionOutcome) -> None:
            if done.loaded is not None and slide is not None:
                session.set_features(slide, slot, done.loaded)
            for file in done.result.files[-1:]:
                self._files.remember(file)
            session.jobs.status.message = done.describe()

        title = f"Features by {label}"
        ready = session.disk.wait
        session.jobs.start(
            title,
            lambda: extract_run(config, present, label, ready),
            take,
            timing=self.estimate.timing(config),
        )

    def _offer(self) -> None:
        """Offer the latest fine-tuned encoders."""
        self.encoder.offer_runs(self._session.recent.runs)

    def _out(self, encoder: str) -> Path:
        slide = self.slides.beside()
        if slide is None:
            raise ValueError("No slides are chosen")
        return self.options.out(slide, encoder)

    def _reason(self) -> str:
        if self._session.jobs.status.busy:
            return "another job is running"
        try:
            self.slides.chosen()
        except ValueError as error:
            return str(error)
        return "" if self.encoder.spec else "no encoder is chosen"
