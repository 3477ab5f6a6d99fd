"""Show the click test of a run, and offer it for two serial sections."""

from __future__ import annotations

from pathlib import Path

from psygnal import Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_mcm.core.runtime.command import Command
from napari_mcm.viewer.app.session import Session
from napari_mcm.viewer.finetune.controller import FinetuneController
from napari_mcm.viewer.layers.metadata import SlideMetadata
from napari_mcm.viewer.qt.collapsible_forms import CollapsibleSection
from napari_mcm.viewer.qt.command_panel import CommandMenu
from napari_mcm.viewer.qt.helpers import (
    connect,
    narrow,
    note,
    set_enabled_with_reason,
)
from napari_mcm.viewer.qt.path_field import PathField
from napari_mcm.viewer.qt.slide_selector import FILES

_RUN = (
    "Ask patches of the first section in the second, with the student before and after "
    "fine-tuning: how many find their own place?"
)

_AFTER = (
    "Run the test after each fine-tuning in this dock, once both sections are chosen"
)

_FILE = "A file"


class SectionField(QWidget):
    """Choose a slide among the open ones, or a file.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    name, tip : str
        Display name, and tooltip.

    Attributes
    ----------
    changed : Signal
        Another slide is chosen.
    """

    changed = Signal()

    def __init__(self, session: Session, name: str, tip: str) -> None:
        super().__init__()
        self._session = session
        self.choice = narrow(QComboBox())
        self.choice.setAccessibleName(name)
        self.choice.setToolTip(tip)
        self.file = PathField(f"{name}: file", tip, FILES)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.choice)
        column.addWidget(self.file)
        self.setFocusProxy(self.choice)
        self.choice.currentIndexChanged.connect(lambda _: self._edited())
        connect(self.file.changed, self._edited)
        connect(session.slide_changed, self.refresh)
        self.refresh()

    @property
    def path(self) -> Path | None:
        """The chosen slide; None if there is none."""
        if self.choice.currentText() != _FILE:
            chosen = self.choice.currentData()
            return Path(chosen) if chosen else None
        return self.file.path.absolute() if self.file.path is not None else None

    def put(self, path: Path) -> None:
        """Choose a slide by its path."""
        if (at := self.choice.findData(str(path))) >= 0:
            self.choice.setCurrentIndex(at)
        else:
            self.file.put(path)
            self.choice.setCurrentText(_FILE)

    def refresh(self) -> None:
        """List the open slides; a chosen one that was closed becomes a file."""
        before = self.path
        self.choice.blockSignals(True)
        self.choice.clear()
        self.choice.addItem("None", "")
        for layer in self._session.layers.slides():
            if (slide := SlideMetadata.of_layer(layer)) is not None:
                self.choice.addItem(slide.name, slide.path)
        self.choice.addItem(_FILE, "")
        if before is not None:
            self.put(before)
        self.choice.blockSignals(False)
        self._edited()

    def _edited(self) -> None:
        self.file.setVisible(self.choice.currentText() == _FILE)
        self.changed.emit()


class ClickTestPanel(QWidget):
    """Show the click test of the run, and offer it for two sections.

    Parameters
    ----------
    controller : FinetuneController
        Has the run, and runs the test.
    """

    def __init__(self, controller: FinetuneController) -> None:
        super().__init__()
        self._controller = controller
        session = controller.session
        self.sentence, self.details, self.warning = note(), note(), note()
        tip = "A slide of the block, best not in the training set"
        self.first = SectionField(session, "First section", tip)
        self.second = SectionField(session, "Second section", f"The next one. {tip}")
        self.after = QCheckBox("After each fine-tuning")
        self.after.setToolTip(_AFTER)
        self.after.setChecked(True)
        self.run = QPushButton("Run the click test")
        self.run.clicked.connect(lambda _: self._start())
        self.command = CommandMenu(
            "Click test", self.as_command, session.report_error, saves=False
        )
        self._lay_out()
        for signal in (
            controller.run_changed,
            session.jobs.status.events.state,
            self.first.changed,
            self.second.changed,
        ):
            connect(signal, self.refresh)
        connect(controller.trained, self._start_after)
        self.refresh()

    def _lay_out(self) -> None:
        inner = QWidget()
        form = QFormLayout(inner)
        form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        form.setContentsMargins(0, 0, 0, 0)
        for text, field in (("First section", self.first), ("Second", self.second)):
            label = QLabel(text)
            label.setBuddy(field)
            form.addRow(label, field)
        row = QHBoxLayout()
        row.addWidget(self.run, 1)
        row.addWidget(self.command)
        form.addRow(self.after)
        form.addRow(row)
        form.addRow(self.command.feedback)
        self.folded = CollapsibleSection("Click test (two serial sections)")
        self.folded.setToolTip(
            "Measure without labels whether fine-tuning helps: a click on a section "
            "should find its own place in the next section of the block"
        )
        self.folded.addWidget(inner)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for part in (self.sentence, self.warning, self.details, self.folded):
            column.addWidget(part)

    @property
    def sections(self) -> tuple[Path, ...]:
        """The chosen sections: the one that is asked, and the one that is searched."""
        paths = self.first.path, self.second.path
        return tuple(path for path in paths if path is not None)

    def as_command(self) -> Command:
        """Return the command that runs the same test.

        Raises
        ------
        ValueError
            With one line that says what is missing.
        """
        if reason := self._missing():
            raise ValueError(f"{reason[0].upper()}{reason[1:]}")
        config = self._controller.click_config(self.sections)
        return Command("evaluate", config, "slides")

    def refresh(self) -> None:
        """Show the result of the run, and whether a test can start."""
        run = self._controller.run
        found = run.clicks if run is not None else None
        self._say(self.sentence, f"{found.sentence()}." if found else "")
        self._say(self.details, found.details() if found else "")
        warned = found is not None and bool(found.warning)
        self._say(
            self.warning, f"Warning: {found.warning}." if found and warned else ""
        )
        busy = "another job is running" if self._busy() else ""
        set_enabled_with_reason(self.run, _RUN, self._missing() or busy)

    def _say(self, label: QLabel, text: str) -> None:
        label.setText(text)
        label.setVisible(bool(text))

    def _busy(self) -> bool:
        return self._controller.session.jobs.status.busy

    def _missing(self) -> str:
        if self._controller.run is None:
            return "no finished run is shown"
        return "" if len(self.sections) == 2 else "choose two sections"

    def _start(self) -> None:
        self._controller.test_clicks(self.sections)

    def _start_after(self) -> None:
        if self.after.isChecked() and not self._missing() and not self._busy():
            self._start()
