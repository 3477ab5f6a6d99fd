"""The box that registers two sections, says how far off it is, and links their views."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
)

from napari_mcm.viewer.app.registrations import ENDING
from napari_mcm.viewer.qt.command_panel import CommandMenu
from napari_mcm.viewer.qt.helpers import (
    connect,
    narrow,
    note,
    set_enabled_with_reason,
    set_shown,
)
from napari_mcm.viewer.qt.path_field import ask_file, ask_save
from napari_mcm.viewer.qt.primary_button import PrimaryButton
from napari_mcm.viewer.registration.commands import register_command

if TYPE_CHECKING:
    from napari_mcm.core.registration import Registration
    from napari_mcm.viewer.app.registrations import KnownRegistration
    from napari_mcm.viewer.registration.controller import SectionsController

WEAK = 0.75
"""Fraction of squares that match in place below which a registration is called weak."""

_REGISTER = (
    "Find where each place of this slide lies on the other one: turned, mirrored, "
    "stretched. Takes 10 to 30 seconds (Alt+R)"
)
_LINK = (
    "Show both sections in halves of the canvas that move together: the same place, "
    "turned alike"
)
_EDGES = (
    "Draw the edges of each section's tissue on the other one: where they lie on its own "
    "edges, the registration is right"
)
_FILES = f"Registrations (*{ENDING} *.npz)"


class RegisterPanel(QGroupBox):
    """The box with the two sections, their registration and its error.

    Parameters
    ----------
    sections : SectionsController
        The two slides.
    """

    def __init__(self, sections: SectionsController) -> None:
        super().__init__("Registration")
        self._sections = sections
        session = sections.session
        self.other = narrow(QComboBox())
        self.other.setAccessibleName("Other section")
        self.other.activated.connect(self._chosen)
        self.register = PrimaryButton("&Register")
        self.register.clicked.connect(sections.register)
        self.state, self.tissue, self.edges, self.warning = (note() for _ in range(4))
        self.state.setTextFormat(Qt.TextFormat.PlainText)
        self.link = QCheckBox("Lin&k views")
        self.link.clicked.connect(sections.link)
        self.show_edges = QCheckBox("Show ed&ges of the other section")
        self.show_edges.clicked.connect(sections.show_edges)
        self.load = QPushButton("Load…")
        self.load.clicked.connect(self._browse_load)
        self.save = QPushButton("Save…")
        self.save.clicked.connect(self._browse_save)
        self.command = CommandMenu(
            "Registration", lambda: register_command(sections), session.report_error
        )
        self._lay_out()
        connect(sections.changed, self.refresh)
        connect(session.jobs.status.events.state, self.refresh)
        self.refresh()

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        label = QLabel("Other section")
        label.setBuddy(self.other)
        form.addRow(label, self.other)
        files = QHBoxLayout()
        for button in (self.load, self.save, self.command):
            files.addWidget(button)
        self._errors = QFormLayout()
        self._errors.setContentsMargins(0, 0, 0, 0)
        for text, value in (("On tissue", self.tissue), ("On edges", self.edges)):
            value.setTextInteractionFlags(
                Qt.TextInteractionFlag.TextSelectableByMouse
                | Qt.TextInteractionFlag.TextSelectableByKeyboard
            )
            value.setAccessibleName(f"Error {text.lower()}")
            name = QLabel(text)
            name.setAlignment(Qt.AlignmentFlag.AlignTop)
            self._errors.addRow(name, value)
        column = QVBoxLayout(self)
        column.addLayout(form)
        column.addWidget(self.register)
        column.addWidget(self.state)
        column.addLayout(self._errors)
        column.addWidget(self.warning)
        column.addWidget(self.link)
        column.addWidget(self.show_edges)
        column.addLayout(files)
        column.addWidget(self.command.feedback)

    def refresh(self) -> None:
        """Show both slides and their registration, and enable what can be used."""
        sections, known = self._sections, self._sections.known
        self._list()
        missing = sections.missing()
        busy = "another job is running" if sections.session.jobs.status.busy else ""
        self.register.setText("&Register again" if known else "&Register")
        self.register.set_primary(known is None and not missing)
        set_enabled_with_reason(self.register, _REGISTER, missing or busy)
        self.state.setText(self._sentence(known, missing))
        found = None if known is None else known.registration
        self._show_errors(found)
        weak = "" if found is None else weakness(found)
        self.warning.setText(weak)
        set_shown(self.warning, bool(weak))
        without = "" if known else missing or "the sections are not registered"
        set_enabled_with_reason(self.link, _LINK, without)
        set_enabled_with_reason(self.show_edges, _EDGES, without)
        self.link.setChecked(sections.is_linked)
        self.show_edges.setChecked(sections.shows_edges and known is not None)
        set_enabled_with_reason(self.save, "Write the registration to a file", without)
        set_enabled_with_reason(
            self.load, "Use a registration file of these two slides", missing
        )

    def _list(self) -> None:
        others, other = self._sections.others(), self._sections.other
        self.other.clear()
        self.other.addItems([slide.name for slide in others])
        if other in others:
            self.other.setCurrentIndex(others.index(other))
        reason = "" if others else "only one slide is open"
        set_enabled_with_reason(self.other, "The section to register to", reason)

    def _sentence(self, known: KnownRegistration | None, missing: str) -> str:
        sections = self._sections
        if known is not None:
            return describe(known)
        if sections.refused and sections.current and sections.other:
            return (
                f"✕ Not registered: {sections.refused}. Nothing was changed. Register "
                "neighbouring sections of one block."
            )
        if missing:
            return f"{missing[0].upper()}{missing[1:]}."
        return "Not registered yet. It takes 10 to 30 seconds."

    def _show_errors(self, found: Registration | None) -> None:
        self._errors.setRowVisible(0, found is not None)
        self._errors.setRowVisible(1, found is not None)
        if found is not None:
            self.tissue.setText(found.residual.describe())
            self.edges.setText(found.edges.describe())

    def _chosen(self, index: int) -> None:
        self._sections.choose_other(self._sections.others()[index])

    def _browse_load(self) -> None:
        if path := ask_file(self, "Load a registration", _FILES):
            self._sections.load(Path(path))

    def _browse_save(self) -> None:
        current, other = self._sections.current, self._sections.other
        if current is None or other is None:
            return
        start = f"{current.name} to {other.name}{ENDING}"
        if path := ask_save(self, "Save the registration", start, _FILES):
            self._sections.save(Path(path))


def describe(known: KnownRegistration) -> str:
    """Return what a registration found, in a line or two.

    Parameters
    ----------
    known : KnownRegistration
        The registration.
    """
    found = known.registration
    first, second = found.first["name"], found.second["name"]
    mirrored = ", mirrored" if found.mirrored else ""
    saved = "" if known.path is None else ", saved"
    mark = "" if weakness(found) else "✓ "
    return (
        f"{mark}{first} to {second}: turned {found.angle_deg:.1f}°{mirrored}, "
        f"{found.overlap:.0%} on tissue{saved}"
    )


def weakness(found: Registration) -> str:
    """Return a warning about a registration that few squares support; else nothing.

    Parameters
    ----------
    found : Registration
        The registration.
    """
    residual = found.residual
    if not residual.blocks:
        return (
            "Warning: the tissue is too small to measure the error. Compare the edges."
        )
    if residual.near >= WEAK:
        return ""
    return (
        "Warning: weak. Few squares of tissue match at their place. Compare the edges "
        "before you rely on it."
    )
