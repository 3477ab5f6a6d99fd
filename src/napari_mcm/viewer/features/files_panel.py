"""The box that lists the features of the active slide and opens feature files."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import QComboBox, QFormLayout, QGroupBox, QLabel

from napari_mcm.viewer.app.features import SLOTS, LoadedFeatures, load_features
from napari_mcm.viewer.app.session import Session
from napari_mcm.viewer.qt.encoder_field import LOAD_TIP, LoadButton
from napari_mcm.viewer.qt.helpers import connect, narrow, note, set_enabled_with_reason

NAMES = ("First encoder", "Second encoder", "Third encoder")
"""Display names of the session's slots for features."""


class FeatureFilesPanel(QGroupBox):
    """The box with the features of the active slide, by their slots.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    """

    def __init__(self, session: Session) -> None:
        super().__init__("Features of the shown slide")
        self._session = session
        self.place = narrow(QComboBox())
        self.place.addItems(list(NAMES))
        self.place.setToolTip(
            "Place in the Similarity widget for the features extracted or opened "
            "next; features in several places are compared"
        )
        self.load = LoadButton("Ope&n features…")
        self.load.chosen.connect(self.open_file)
        self.lines = {slot: note() for slot in SLOTS}
        self.none = note()
        form = QFormLayout(self)
        for line in (self.none, *self.lines.values()):
            form.addRow(line)
        label = QLabel("Use &as")
        label.setBuddy(self.place)
        form.addRow(label, self.place)
        form.addRow(self.load)
        connect(session.slide_changed, self.refresh)
        connect(session.features_changed, self.refresh)
        connect(session.jobs.status.events.state, self.refresh)
        connect(session.recent.changed, self._offer)
        self._offer()
        session.recent.reload()
        self.refresh()

    @property
    def slot(self) -> str:
        """The slot of the session for the features that are computed or opened next."""
        return SLOTS[self.place.currentIndex()]

    def open_file(self, path: Path) -> None:
        """Load a feature file of the active slide in the background."""
        session, slide = self._session, self._session.slide
        metadata = session.metadata
        if metadata is None or slide is None or session.jobs.status.busy:
            return
        slot, pixels, mpp = self.slot, Path(metadata.path), metadata.mpp_override

        def take(loaded: LoadedFeatures) -> None:
            session.set_features(slide, slot, loaded)
            session.jobs.status.message = f"{loaded.describe()}, in {loaded.path}"
            self.remember(loaded.path)

        title = f"Loading {path.name}"
        session.jobs.start(title, lambda: load_features(path, pixels, mpp), take)

    def remember(self, path: Path) -> None:
        """Add a feature file to the recent ones."""
        self._session.recent.add_features(path)

    def refresh(self) -> None:
        """Show the features of the slide, and enable the button if it can be used."""
        session = self._session
        reason = ""
        if session.metadata is None:
            reason = "no slide is open"
        elif session.jobs.status.busy:
            reason = "another job is running"
        set_enabled_with_reason(self.load, LOAD_TIP, reason)
        features = {slot: session.features(slot) for slot in SLOTS}
        for slot, name in zip(SLOTS, NAMES, strict=True):
            loaded, line = features[slot], self.lines[slot]
            line.setVisible(loaded is not None)
            if loaded is not None:
                line.setText(f"{name}: {loaded.label}, {loaded.describe()}.")
                line.setToolTip(str(loaded.path))
        self.none.setVisible(not any(features.values()))
        self.none.setText(
            "None yet. With features, click on the slide to see similar patches."
        )

    def _offer(self) -> None:
        self.load.offer(self._session.recent.features)
