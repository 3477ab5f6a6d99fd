"""Choose the slides of a task."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal
from qtpy.QtWidgets import QComboBox, QFormLayout, QWidget

from napari_mcm.core.errors import ConfigError, McmError
from napari_mcm.core.mil.cohort import read_cohort
from napari_mcm.core.slides import ReadConfig
from napari_mcm.core.slides.find import find_slides
from napari_mcm.core.tissue import TissueConfig
from napari_mcm.viewer.app.persistence import drawn_mask_path
from napari_mcm.viewer.app.session import Session
from napari_mcm.viewer.layers.metadata import SlideMetadata, slide_of
from napari_mcm.viewer.qt.helpers import connect, narrow, note, while_alive
from napari_mcm.viewer.qt.path_field import PathField, ask_files
from napari_mcm.viewer.qt.slide_selector import FILES

if TYPE_CHECKING:
    from napari.layers import Layer


PRESENT, OPEN, SOME, FOLDER, TABLE = range(5)

WAYS = (
    "The slide that is shown",
    "All open slides",
    "Files",
    "A folder of slides",
    "A table of slides (CSV)",
)


class FilesField(PathField):
    """Take the paths of several files in one line."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """The chosen files."""
        parts = (part.strip() for part in self.line.text().split(os.pathsep))
        return tuple(Path(part).expanduser() for part in parts if part)

    def _browse(self) -> None:
        self.take(os.pathsep.join(ask_files(self, self._name, self._files)))


class SlidePicker(QWidget):
    """Choose among open slides, files, a folder and a table.

    Parameters
    ----------
    session : Session
        Session of the viewer.

    Attributes
    ----------
    changed : Signal
        Other slides are chosen.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self.way = narrow(QComboBox())
        self.way.addItems(list(WAYS))
        self.way.setToolTip("Slides to use: open ones, or files")
        self.files = FilesField("Slides", "Slide files", FILES)
        self.folder = PathField("Folder of slides", "All slides in the folder are used")
        self.table = PathField(
            "Table of slides",
            "CSV with a header and the columns slide and path",
            "Tables (*.csv);;All files (*)",
        )
        self.said = note()
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Slides", self.way)
        self._fields = {SOME: self.files, FOLDER: self.folder, TABLE: self.table}
        for field in self._fields.values():
            form.addRow(field)
            connect(field.changed, self._edited)
        form.addRow(self.said)
        self.way.currentIndexChanged.connect(lambda _: self._edited())
        connect(session.slide_changed, self._edited)
        self._edited()

    def chosen(self) -> ChosenSlides:
        """Return the chosen slides.

        Raises
        ------
        ValueError
            With one line that names what is missing.
        """
        way, session = self.way.currentIndex(), self._session
        if way == PRESENT:
            return open_slides(session, [session.slide] if session.slide else [])
        if way == OPEN:
            return open_slides(session, session.layers.slides())
        if way == TABLE and self.table.path is not None:
            try:
                return listed_slides(self.table.path)
            except McmError as error:
                raise ValueError(str(error)) from None
        if paths := self._paths():
            return ChosenSlides(paths)
        raise ValueError(f"{WAYS[way]}: nothing is chosen")

    def beside(self) -> Path | None:
        """Return a path in the folder of the slides, beside which results go."""
        way = self.way.currentIndex()
        if way in (PRESENT, OPEN):
            metadata = self._session.metadata
            return Path(metadata.path) if metadata is not None else None
        if way == FOLDER and self.folder.path is not None:
            return self.folder.path / "slides"
        return self.table.path if way == TABLE else next(iter(self.files.paths), None)

    def _paths(self) -> tuple[Path, ...]:
        way, folder = self.way.currentIndex(), self.folder.path
        if way == FOLDER:
            return (folder,) if folder is not None else ()
        return self.files.paths if way == SOME else ()

    def _edited(self) -> None:
        way = self.way.currentIndex()
        for key, field in self._fields.items():
            field.setVisible(key == way)
        self._describe()
        self.changed.emit()

    def _describe(self) -> None:
        say, disk = while_alive(self._say), self._session.disk
        key = f"slides {id(self)}"
        disk.drop(key)
        self._say("")
        way, table = self.way.currentIndex(), self.table.path
        if way in (PRESENT, OPEN):
            try:
                chosen = self.chosen()
            except ValueError as error:
                self._say(str(error))
                return
            if way == OPEN:
                self._say(", ".join(path.name for path in chosen.paths))
        elif way == TABLE and table is not None:
            disk.submit(key, lambda: describe(listed_slides(table).paths), say, say)
        elif paths := self._paths():
            disk.submit(key, lambda: describe(paths), say, say)

    def _say(self, text: str) -> None:
        self.said.setText(text)
        self.said.setVisible(bool(text))


@dataclass(frozen=True)
class ChosenSlides:
    """Hold the chosen slides, with what the viewer knows about them.

    Attributes
    ----------
    paths : tuple of Path
        Files, and folders of files.
    read : ReadConfig
        Has the resolution that the user gave.
    tissue : TissueConfig
        Has the masks that were drawn on open slides.
    """

    paths: tuple[Path, ...]
    read: ReadConfig = ReadConfig()
    tissue: TissueConfig = TissueConfig()


def open_slides(session: Session, layers: Sequence[Layer]) -> ChosenSlides:
    """Choose slides that are open.

    Raises
    ------
    ValueError
        With one line, if there is none, or they cannot be used together.
    """
    metadata = [f for layer in layers if (f := SlideMetadata.of_layer(layer))]
    if not metadata:
        raise ValueError("No slide is open")
    for fact in metadata:
        if fact.mpp is None:
            raise ValueError(f"The resolution of {fact.name} is unknown: enter it")
    stated = {fact.mpp_override for fact in metadata}
    if len(stated) > 1:
        raise ValueError(
            "The resolution that you entered would apply to all open slides: choose "
            "one slide, or close the others"
        )
    (mpp,) = stated
    return ChosenSlides(
        tuple(Path(fact.path) for fact in metadata),
        ReadConfig(mpp_override=mpp),
        TissueConfig(masks=_masks(session, layers)),
    )


def listed_slides(table: Path) -> ChosenSlides:
    """Choose the slides whose paths a table lists.

    Raises
    ------
    ConfigError
        If it cannot be read, or a slide is missing.
    """
    cohort = read_cohort(table, labelled=False)
    found = []
    for case in cohort.cases:
        if not case.path:
            hint = "Add a column path: the file of each slide, relative to the table"
            raise ConfigError(f"has no path of {case.slide}", table, hint)
        path = table.parent / case.path
        if not path.exists():
            raise ConfigError(f"{case.slide} is not at {path}", table)
        found.append(path.absolute())
    return ChosenSlides(tuple(dict.fromkeys(found)))


def describe(paths: Sequence[Path]) -> str:
    """Summarize the chosen slides: ``12 slides: a, b, c, …``.

    Raises
    ------
    SlideError
        If one is missing, or a folder has none.
    """
    found = find_slides(paths)
    names = ", ".join(path.name for path in found[:3])
    more = ", …" if len(found) > 3 else ""
    count = "1 slide" if len(found) == 1 else f"{len(found):,} slides"
    return f"{count}: {names}{more}"


def _masks(session: Session, layers: Sequence[Layer]) -> Path | None:
    """Return the folder of the masks drawn on open slides; None without any."""
    session.tissue.flush()
    drawn = [
        drawn_mask_path(slide)
        for layer in layers
        if session.tissue.drawn_mask(layer) is not None
        and (slide := slide_of(layer)) is not None
    ]
    if len(layers) == 1 and drawn:
        return drawn[0]
    folders = {path.parent for path in drawn}
    if len(folders) > 1:
        raise ValueError(
            "Masks were drawn on slides in different folders: move the slides into one"
        )
    return folders.pop() if folders else None
