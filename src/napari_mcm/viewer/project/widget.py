"""The dock widget *Project*."""

from __future__ import annotations

from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QAbstractListModel, QModelIndex, QSize, Qt
from qtpy.QtGui import QFont, QIcon, QImage, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QGridLayout,
    QHBoxLayout,
    QListView,
    QMenu,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_mcm.core.project import ENDING, ProjectSlide
from napari_mcm.viewer.project.controller import ProjectController, project_of
from napari_mcm.viewer.project.disk import unnamed_folder
from napari_mcm.viewer.project.pictures import SIDE_PX, SlidePictures
from napari_mcm.viewer.project.unsaved import name_of
from napari_mcm.viewer.qt.dock import DockedWidget
from napari_mcm.viewer.qt.helpers import connect, note, set_enabled_with_reason
from napari_mcm.viewer.qt.path_field import (
    ask_file,
    ask_files,
    ask_folder,
    ask_save,
)
from napari_mcm.viewer.qt.slide_selector import FILES
from napari_mcm.viewer.qt.thumbnail_strip import image_of

if TYPE_CHECKING:
    import napari

_FILTER = f"Projects (*{ENDING});;All files (*)"
_ICON_PX = 56


class ProjectWidget(DockedWidget):
    """Shows the slides of the project, and opens and saves projects.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer that the widget is docked in.
    """

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self.project = ProjectPanel(project_of(self.session))
        # The list scrolls itself, and takes all the height there is.
        self._lay_out(self.project)
        self.session.recent.reload()


class ProjectPanel(QWidget):
    """The list of slides, and the buttons of the project.

    Parameters
    ----------
    project : ProjectController
        The project.
    """

    def __init__(self, project: ProjectController) -> None:
        super().__init__()
        self._project = project
        self.name, self.note = note(), note()
        self.open = QPushButton("&Open project…")
        self.recent = QPushButton("Open &recent")
        self.save = QPushButton("Save project &as…")
        self.add = QPushButton("A&dd slides…")
        self.locate = QPushButton("F&ind missing slides…")
        self.remove = QPushButton("Remove from pro&ject")
        self.slides = QListView()
        self._rows = _Rows(project)
        self._set_up()
        self._lay_out()
        connect(project.changed, self.refresh)
        connect(project.slides_changed, self._slides_changed)
        connect(project.folder_needed, self._ask_folder)
        self._slides_changed()

    def _set_up(self) -> None:
        view = self.slides
        view.setModel(self._rows)
        view.setAccessibleName("Slides of the project")
        view.setIconSize(QSize(_ICON_PX, _ICON_PX))
        view.setUniformItemSizes(True)
        view.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        view.setMinimumSize(100, 240)
        view.setToolTip("Double-click, or Enter: open the slide and show it")
        view.activated.connect(self._activated)
        view.doubleClicked.connect(self._activated)
        self.open.setToolTip("Open a project: its slides, queries and results")
        self.open.clicked.connect(self._open)
        self._recent_menu = QMenu(self.recent)
        self._recent_menu.setToolTipsVisible(True)
        self._recent_menu.aboutToShow.connect(self._fill_recent)
        self.recent.setMenu(self._recent_menu)
        self.save.setToolTip(
            "Save the project in a file of its own; from then on it is saved after each "
            "change"
        )
        self.save.clicked.connect(self._save)
        menu = QMenu(self.add)
        self.add.setMenu(menu)
        self.add.setToolTip("Add slides to the project, without opening them")
        for text, call in (("Files…", self._add), ("Folder…", self._add_folder)):
            if (action := menu.addAction(text)) is not None:
                action.triggered.connect(call)
        self.locate.clicked.connect(self._ask_folder)
        self.remove.clicked.connect(self._remove)

    def _lay_out(self) -> None:
        buttons = QGridLayout()
        for place, button in enumerate((self.open, self.recent, self.save, self.add)):
            buttons.addWidget(button, *divmod(place, 2))
        below = QHBoxLayout()
        below.addWidget(self.locate)
        below.addWidget(self.remove)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.name)
        column.addLayout(buttons)
        column.addWidget(self.slides, 1)
        column.addWidget(self.note)
        column.addLayout(below)

    def refresh(self) -> None:
        """Show name, note and the current slide, and enable the buttons."""
        project = self._project
        slides, missing = len(project.project.slides), len(project.missing)
        plural = "" if slides == 1 else "s"
        lines = [f"<b>{escape(project.name)}</b>, {slides:,} slide{plural}"]
        if missing:
            lines.append(f"{missing:,} not found")
        self.name.setText(", ".join(lines))
        self.name.setToolTip(str(project.path or "Not saved in a file yet"))
        self.note.setText(project.note)
        self.note.setVisible(bool(project.note))
        recent = "" if project.recent() else "no project was opened or saved yet"
        set_enabled_with_reason(self.recent, "Projects that were used last", recent)
        none = "" if slides else "the project has no slides"
        set_enabled_with_reason(
            self.remove, "Take the selected slides out; their files stay", none
        )
        self.locate.setVisible(bool(missing))
        self.locate.setToolTip("Choose the folder that they were moved to")
        self._rows.refresh()

    def _slides_changed(self) -> None:
        self._rows.read()
        self.refresh()

    def chosen(self) -> list[int]:
        """Return the positions of the selected slides."""
        return sorted(index.row() for index in self.slides.selectedIndexes())

    def _activated(self, index: QModelIndex) -> None:
        self._project.open_slide(index.row())

    def _open(self) -> None:
        if path := ask_file(self, "Open a project", _FILTER):
            self._project.open(path)

    def _fill_recent(self) -> None:
        self._recent_menu.clear()
        for path in self._project.recent():
            action = self._recent_menu.addAction(_name_of(path))
            if action is not None:
                action.setToolTip(str(path))
                action.triggered.connect(partial(self._project.open, path))

    def _save(self) -> None:
        start = str(self._project.path or f"project{ENDING}")
        if path := ask_save(self, "Save the project", start, _FILTER):
            self._project.save_as(path)

    def _add(self) -> None:
        if paths := ask_files(self, "Add slides", FILES):
            self._project.add_slides(paths)

    def _add_folder(self) -> None:
        if path := ask_folder(self, "Add the slides of a folder"):
            self._project.add_slides([path])

    def _ask_folder(self) -> None:
        project = self._project
        places = [project.position_of(key) for key in project.missing]
        names = [project.project.slides[at].name for at in places if at is not None]
        what = names[0] if len(names) == 1 else f"{len(names):,} slides"
        if path := ask_folder(self, f"Where is the folder with {what}?"):
            project.search_folder(path)

    def _remove(self) -> None:
        self._project.remove_slides(self.chosen())


def _name_of(path: Path) -> str:
    if path.parent == unnamed_folder():
        return f"Unsaved, {name_of(path)}"
    return path.name.removesuffix(ENDING)


class _Rows(QAbstractListModel):
    """The slides of a project, as Qt's views read them: only those that are seen."""

    def __init__(self, project: ProjectController) -> None:
        super().__init__()
        self._project = project
        self._pictures = SlidePictures(project)
        self._shown: tuple[ProjectSlide, ...] = ()
        self._keys: list[str] = []
        self._path = project.path
        self._missing: set[str] = set()
        self._pictures.arrived.connect(self._arrived)

    def read(self) -> None:
        """Take the slides of the project."""
        project = self._project
        slides = project.project.slides
        is_other = project.path != self._path
        if is_other:
            self._pictures.forget()
        # A slide that was found has a thumbnail now.
        self._pictures.forget(self._missing - project.missing)
        self._path, self._missing = project.path, set(project.missing)
        # Reset only where rows come or go: that loses the place in a long list.
        reset = is_other or len(slides) != len(self._shown)
        if reset:
            self.beginResetModel()
        self._shown = slides
        self._keys = [project.key_of(slide) for slide in slides]
        if reset:
            self.endResetModel()
        else:
            self.refresh()

    def refresh(self) -> None:
        """Draw the rows that are seen again."""
        if self._shown:
            self.dataChanged.emit(self.index(0), self.index(len(self._shown) - 1))

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """Return the number of slides."""
        return 0 if parent is not None and parent.isValid() else len(self._shown)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return the name, thumbnail, font or tooltip of a slide."""
        slide = self._shown[index.row()]
        key = self._keys[index.row()]
        missing = key in self._project.missing
        if role == Qt.ItemDataRole.DisplayRole:
            name = slide.name or Path(slide.absolute).name
            return f"{name}\nnot found" if missing else name
        if role == Qt.ItemDataRole.DecorationRole:
            return self._icon(slide)
        if role == Qt.ItemDataRole.FontRole:
            font = QFont()
            font.setBold(key == self._project.current_key())
            font.setItalic(missing)
            return font
        if role == Qt.ItemDataRole.ToolTipRole:
            return slide.absolute or slide.path
        return None

    def _icon(self, slide: ProjectSlide) -> QIcon:
        found = self._pictures.picture(slide)
        if found is not None and found.pixels is not None:
            image = image_of(found.pixels)
        else:
            image = QImage(SIDE_PX, SIDE_PX, QImage.Format.Format_RGB888)
            image.fill(Qt.GlobalColor.gray)
        # A square, so that names are in line.
        square = QPixmap(SIDE_PX, SIDE_PX)
        square.fill(Qt.GlobalColor.transparent)
        return QIcon(_centred(square, QPixmap.fromImage(image)))

    def _arrived(self, key: str) -> None:
        if (at := self._project.position_of(key)) is not None and at < len(self._shown):
            self.dataChanged.emit(self.index(at), self.index(at))


def _centred(square: QPixmap, picture: QPixmap) -> QPixmap:
    from qtpy.QtGui import QPainter

    painter = QPainter(square)
    left = (square.width() - picture.width()) // 2
    top = (square.height() - picture.height()) // 2
    painter.drawPixmap(left, top, picture)
    painter.end()
    return square
