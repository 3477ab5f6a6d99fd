"""Which features the shown slide has, and files of them to open."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import QComboBox, QFormLayout, QGroupBox, QLabel

from napari_mcm.viewer.app.features import SLOTS, Loaded, load_features
from napari_mcm.viewer.app.session import Session
from napari_mcm.viewer.qt.encoder_field import LOAD_TIP, LoadButton
from napari_mcm.viewer.qt.helpers import connect, narrow, note, set_enabled_with_reason

NAMES = ("First encoder", "Second encoder", "Third encoder")


class FeatureFilesPanel(QGroupBox):
    """Features of the shown slide, by their place in the *Similarity* widget.

    Parameters
    ----------
    session : Session
        Of the viewer.
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
        session.recent.look()
        self.refresh()

    @property
    def slot(self) -> str:
        """The session's slot that features are put into."""
        return SLOTS[self.place.currentIndex()]

    def open_file(self, path: Path) -> None:
        """Load a feature file for the shown slide in the background."""
        session, slide = self._session, self._session.slide
        metadata = session.metadata
        if metadata is None or slide is None or session.jobs.status.busy:
            return
        slot, pixels, mpp = self.slot, Path(metadata.path), metadata.mpp_override

        def take(loaded: Loaded) -> None:
            session.set_features(slide, slot, loaded)
            session.jobs.status.message = f"{loaded.describe()}, in {loaded.path}"
            self.remember(loaded.path)

        title = f"Loading {path.name}"
        session.jobs.start(title, lambda: load_features(path, pixels, mpp), take)

    def remember(self, path: Path) -> None:
        """Keep a file for next time."""
        self._session.recent.keep_features(path)

    def refresh(self) -> None:
        """Show what the slide has, and whether a file can be opened."""
        session = self._session
        reason = ""
        if session.metadata is None:
            reason = "no slide is open"
        elif session.jobs.status.busy:
            reason = "another job is running"
        set_enabled_with_reason(self.load, LOAD_TIP, reason)
        found = {slot: session.features(slot) for slot in SLOTS}
        for slot, name in zip(SLOTS, NAMES, strict=True):
            loaded, line = found[slot], self.lines[slot]
            line.setVisible(loaded is not None)
            if loaded is not None:
                line.setText(f"{name}: {loaded.label}, {loaded.describe()}.")
                line.setToolTip(str(loaded.path))
        self.none.setVisible(not any(found.values()))
        self.none.setText(
            "None yet. With features, click on the slide: see Similarity."
        )

    def _offer(self) -> None:
        self.load.offer(self._session.recent.features)
