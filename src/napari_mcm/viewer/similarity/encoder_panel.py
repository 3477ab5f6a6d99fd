"""The part for one encoder: choose it, and compute or load its features."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from weakref import ref

from psygnal import Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_mcm.core.features.lookup import KnownFile
from napari_mcm.core.runtime.command import Command
from napari_mcm.core.slides.paths import slide_name
from napari_mcm.viewer.app.commands import extract_command
from napari_mcm.viewer.app.features import (
    FeatureRequest,
    LoadedFeatures,
    compute_features,
    encoder_label,
    load_features,
)
from napari_mcm.viewer.app.found import found_features
from napari_mcm.viewer.app.imports import EXTRACTING, import_in_background
from napari_mcm.viewer.app.session import Session
from napari_mcm.viewer.app.settings import preferences
from napari_mcm.viewer.app.workloads import extraction_work
from napari_mcm.viewer.layers.metadata import SlideMetadata, slide_of
from napari_mcm.viewer.qt.command_panel import CommandMenu
from napari_mcm.viewer.qt.encoder_field import LOAD_TIP, EncoderField, LoadButton
from napari_mcm.viewer.qt.estimate_line import EstimateLine
from napari_mcm.viewer.qt.helpers import (
    connect,
    note,
    set_enabled_with_reason,
    set_shown,
)
from napari_mcm.viewer.qt.patch_fields import PatchOptions
from napari_mcm.viewer.qt.primary_button import PrimaryButton
from napari_mcm.viewer.training.slide_picker import open_slides

_BUTTONS = {
    "first": "Compute featu&res",
    "second": "Compu&te features",
    # Without a mnemonic: all its letters belong to other buttons of the dock.
    "third": "Compute features",
}
_KEYS = {"first": " (Alt+R)", "second": " (Alt+T)", "third": ""}
_ADVICE = "choose a smaller encoder, or larger patches"
_FIRST = "No features yet: compute them once, then click to search."
_COMPUTE = "Find tissue, cover it with patches and encode them, in the background"


class EncoderPanel(QWidget):
    """Chooses an encoder, and makes its features of the active slide.

    Parameters
    ----------
    title : str
        What the encoder is for: ``"Compare with"``.
    session : Session
        Session of the viewer.
    slot : str
        Slot of the session for the features.
    options : PatchOptions
        Form with the options of patches and the folder of feature files.

    Attributes
    ----------
    action : QWidget
        The buttons that compute and load features.
    sentence : str
        What the user should do or know; empty if nothing.
    failed : Signal
        Emitted with a one-line message if options are missing or invalid.
    changed : Signal
        Emitted when the encoder, its features or the sentence changed.
    """

    failed = Signal(str)
    changed = Signal()

    def __init__(
        self, title: str, session: Session, slot: str, options: PatchOptions
    ) -> None:
        super().__init__()
        self._session, self._slot, self._options = session, slot, options
        self.sentence = ""
        self.title = QLabel(title)
        self.encoder = EncoderField(f"{title}: encoder")
        self.encoder.editTextChanged.connect(lambda _: self.refresh())
        # Who chooses an encoder computes with it, although features were found.
        self.encoder.activated.connect(lambda _: import_in_background(EXTRACTING))
        self.title.setBuddy(self.encoder)
        self.compute = PrimaryButton(_BUTTONS[slot])
        self.compute.clicked.connect(self.start)
        self._found = found_features(session)
        self.use = PrimaryButton("Use")
        self.use.setAccessibleName(f"{title}: use the features found on disk")
        self.use.setToolTip("Load the features that were found on disk")
        self.use.clicked.connect(self._use_found)
        self.estimate = EstimateLine(session, _ADVICE)
        self.load = LoadButton("Load…")
        self.load.setAccessibleName(f"{title}: load features")
        self.load.chosen.connect(self.load_file)
        self.state = note()
        self.command = CommandMenu(title, self.as_command, self.failed.emit)
        self._lay_out()
        connect(session.recent.changed, self._offer)
        connect(self._found.changed, self._found_changed)
        self._offer()
        session.recent.reload()
        self._followed: ref[LoadedFeatures] | None = None
        connect(session.slide_changed, self._follow)
        connect(session.features_changed, self._follow)
        connect(session.jobs.status.events.state, self.refresh)
        connect(session.jobs.status.events.state, self.estimate.again)
        connect(session.tissue.changed, self.estimate.again)
        connect(session.patches_changed, self.refresh)
        options.folder.textChanged.connect(lambda _: self._ask_duration())
        options.overwrite.toggled.connect(lambda _: self._ask_duration())
        self.refresh()

    def _lay_out(self) -> None:
        self.action = QWidget()
        row = QHBoxLayout()
        row.addWidget(self.use)
        row.addWidget(self.compute, 1)
        row.addWidget(self.load)
        under = QVBoxLayout(self.action)
        under.setContentsMargins(0, 0, 0, 0)
        under.setSpacing(3)
        under.addWidget(self.estimate)
        under.addLayout(row)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        first = QHBoxLayout()
        first.addWidget(self.title)
        first.addWidget(self.encoder, 1)
        column.addLayout(first)
        column.addWidget(self.action)
        below = QHBoxLayout()
        below.addWidget(self.state, 1)
        below.addWidget(self.command)
        column.addLayout(below)
        column.addWidget(self.command.feedback)

    def _follow(self) -> None:
        """Name the encoder whose features have just come, and show them."""
        loaded = self.loaded
        if loaded is not None and (
            self._followed is None or self._followed() is not loaded
        ):
            self._followed = ref(loaded)
            spec = str(loaded.index.features.encoder.get("spec") or "")
            # A run that was moved, or another tool's model, cannot be computed with.
            if spec and (encoder_label(spec) == loaded.label or Path(spec).exists()):
                self.encoder.offer(spec)
                self.encoder.setCurrentText(spec)
        self.refresh()

    def refresh(self) -> None:
        """Show the features, and enable the buttons that can be used."""
        metadata = self._session.metadata
        reason = self._reason(metadata)
        set_enabled_with_reason(self.load, LOAD_TIP, reason)
        if not reason and metadata is not None and metadata.mpp is None:
            reason = "the slide's resolution is unknown: enter it above"
        opened = slide_of(self._session.slide)
        if not reason and opened is not None and opened.truncation:
            reason = "the file of the slide is truncated"
        if not reason and not self.encoder.spec:
            reason = "no encoder is chosen"
        set_enabled_with_reason(self.compute, _COMPUTE + _KEYS[self._slot], reason)
        loaded = self._session.features(self._slot)
        self.state.setText(_describe(loaded))
        self.state.setToolTip(str(loaded.path) if loaded else "")
        offered, looking = self.offered, self._found.loading
        self.sentence = self._session.doing(self._slot) or _sentence(
            metadata, loaded, offered, looking, reason
        )
        # Comparing is optional: only the first encoder is the next thing to do.
        needed = self._slot == "first" and loaded is None and not looking
        self.compute.set_primary(needed and not reason and offered is None)
        self.use.set_primary(needed)
        set_shown(self.use, offered is not None)
        if offered is not None:
            self.use.setToolTip(f"Load {offered.describe()}\n{offered.path}")
        self._ask_duration()
        self.changed.emit()

    def _ask_duration(self) -> None:
        """Ask how long it takes to compute the features, if there are none."""
        config = None
        if self._session.doing(self._slot):
            # The time left stands beside the progress of the job.
            self.estimate.ask(None, None)
            return
        if self._slot == "first" and self.loaded is None:
            with suppress(ValueError):
                config = self.request().config
        self.estimate.ask(config, extraction_work)

    @property
    def offered(self) -> KnownFile | None:
        """The feature file on disk for this encoder; None if there is none to use.

        It is that of the chosen encoder, else the newest one.
        """
        files = (
            ()
            if self.loaded is not None or self._found.loading
            else self._found.offered
        )
        chosen = [one for one in files if one.spec == self.encoder.spec]
        return next(iter((*chosen, *files)), None)

    def _use_found(self) -> None:
        if (offered := self.offered) is not None:
            self._found.use(offered, self._slot)

    @property
    def loaded(self) -> LoadedFeatures | None:
        """The features of the active slide; None if there are none."""
        return self._session.features(self._slot)

    def summary(self) -> str:
        """Return the encoder and its patches in one line."""
        loaded = self._session.features(self._slot)
        if loaded is None:
            return encoder_label(self.encoder.spec) or "no encoder"
        features = loaded.index.features
        patches, um = len(features), features.grid.patch_um
        return f"{loaded.label} · {patches:,} patches of {um:.3g}\u00a0µm"

    def _offer(self) -> None:
        """Offer the latest fine-tuned encoders and feature files."""
        self.encoder.offer_runs(self._session.recent.runs)
        found = [one.path for one in self._found.offered]
        recent = self._session.recent.features
        self.load.offer(tuple(dict.fromkeys((*found, *recent))))

    def _found_changed(self) -> None:
        """Offer the features that were found, and say so while they are loaded."""
        self._offer()
        self.refresh()

    def _reason(self, metadata: SlideMetadata | None) -> str:
        if metadata is None:
            return "no slide is open"
        return "another job is running" if self._session.jobs.status.busy else ""

    def answer_click(self) -> str:
        """Say why a click on the slide finds nothing, and return what is said."""
        doing = self._session.doing(self._slot)
        if doing.startswith("Computing"):
            self.sentence = (
                "The features of this slide are being computed: wait for them."
            )
        elif self.sentence == _FIRST:
            self.sentence = "No features of this slide yet: press Compute features."
        self.changed.emit()
        return self.sentence

    def start(self) -> None:
        """Compute features of the active slide in the background."""
        try:
            request = self.request()
        except ValueError as error:
            self.failed.emit(str(error))
            return
        title = f"Features of {slide_name(request.slide)}, {request.label}"
        self._session.run_features(
            title,
            self._slot,
            lambda: compute_features(request),
            timing=self.estimate.timing(request.config),
            doing=f"Computing the features of {slide_name(request.slide)}…",
        )

    def request(self) -> FeatureRequest:
        """Return the request of the button *Compute features*.

        Raises
        ------
        ValueError
            If an option is missing or invalid; the message is one line.
        """
        metadata, spec = self._session.metadata, self.encoder.spec
        if metadata is None or metadata.mpp is None:
            raise ValueError("No slide is open, or its resolution is unknown")
        if not spec:
            raise ValueError("No encoder is chosen")
        try:
            grid = self._options.grid()
        except ValueError as error:
            raise ValueError(
                f"Resolution: {error}. Give µm per pixel, or auto"
            ) from None
        slide = Path(metadata.path)
        return FeatureRequest(
            slide,
            metadata.mpp_override,
            spec,
            encoder_label(spec),
            grid,
            self._options.out(slide, spec),
            self._options.overwrite.isChecked(),
            self._session.tissue.drawn_mask(self._session.slide),
            preferences().compute,
        )

    def as_command(self) -> Command:
        """Return the command that does the same as the button."""
        config, session = self.request().config, self._session
        # The command reads a drawn mask from its file beside the slide.
        drawn = open_slides(session, [session.slide] if session.slide else []).tissue
        return extract_command(config.model_copy(update={"tissue": drawn}))

    def load_file(self, path: Path) -> None:
        """Load a feature file of the active slide in the background."""
        metadata = self._session.metadata
        if metadata is not None:
            slide, mpp = Path(metadata.path), metadata.mpp_override
            self._session.run_features(
                f"Loading {path.name}",
                self._slot,
                lambda: load_features(path, slide, mpp),
                doing=f"Loading {path.name}…",
            )


def _sentence(
    metadata: SlideMetadata | None,
    loaded: LoadedFeatures | None,
    offered: KnownFile | None,
    looking: bool,
    reason: str,
) -> str:
    """Return what the user should do next for these features, or know of them."""
    if loaded is not None:
        return f"Warning: {loaded.warning}." if loaded.warning else ""
    if metadata is None or metadata.mpp is None:
        return ""
    if looking:
        return "Looking for features of this slide…"
    if offered is not None:
        return f"Found on disk: {offered.describe()}."
    if reason:
        return f"No features yet, and none can be computed now: {reason}."
    return _FIRST


def _describe(loaded: LoadedFeatures | None) -> str:
    if loaded is None:
        return "No features yet."
    warning = f" Warning: {loaded.warning}." if loaded.warning else ""
    return f"{loaded.label}: {loaded.describe()}.{warning}"
