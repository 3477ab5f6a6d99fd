"""Labels from and to files, regions of other programs, and where people disagree."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import (
    QGridLayout,
    QListWidget,
    QListWidgetItem,
    QMenu,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_mcm.viewer.canvas.keys import digit_of
from napari_mcm.viewer.labelling.class_maps import fingerprint_of
from napari_mcm.viewer.labelling.label_files import LabelFiles
from napari_mcm.viewer.qt.helpers import connect, note
from napari_mcm.viewer.qt.path_field import ask_file, ask_files, ask_save

if TYPE_CHECKING:
    from napari_mcm.core.labelling import Disagreement
    from napari_mcm.viewer.labelling.context import LabellingContext

_LABELS = "Labels (*.labels.json)"
_NAMED = Qt.ItemDataRole.UserRole
_ROWS = 5


class FilesPanel(QWidget):
    """Buttons that load, merge, save and import labels, and the list of disagreements.

    Parameters
    ----------
    context : LabellingContext
        Labels, classifier and maps of the viewer.
    """

    def __init__(self, context: LabellingContext) -> None:
        super().__init__()
        self._context, self.files = context, LabelFiles(context)
        self.load = QPushButton("L&oad labels…")
        self.save = QPushButton("Sa&ve labels…")
        self.merge = QPushButton("&Merge labels of others…")
        self.regions = QPushButton("&Import regions")
        self.classifier = QPushButton("Open &classifier…")
        self.train = QPushButton("&Train on labels")
        self.disagreements = DisagreementList(self._settle)
        self.title = note()
        self._set_up()
        self._lay_out()
        connect(self.files.changed, self.refresh)
        connect(context.classifier.changed, self._show_given)
        self.refresh()
        self._show_given()

    def _set_up(self) -> None:
        for button, call, tip in (
            (self.load, self._load, "Add the labels of a file"),
            (
                self.save,
                self._save,
                "Write all labels to a file, for others and for the command line. They "
                "are kept with the slides and the project in any case",
            ),
            (
                self.merge,
                self._merge,
                "Merge label files of other people: the majority counts, and patches on "
                "which people disagree are listed",
            ),
        ):
            button.setToolTip(tip)
            button.clicked.connect(call)
        self.classifier.setToolTip("Map the classes of a classifier from a file")
        self.classifier.clicked.connect(self._open_classifier)
        self.train.setToolTip(
            "Leave the classifier from a file, and train on the labels"
        )
        self.train.clicked.connect(self._train)
        self.regions.setToolTip(
            "Label the patches in regions: of QuPath (GeoJSON with classes), or of a "
            "shapes or labels layer"
        )
        menu = QMenu(self.regions)
        menu.aboutToShow.connect(self._fill_regions)
        self.regions.setMenu(menu)
        self.disagreements.itemClicked.connect(self._go_to)
        self.disagreements.itemActivated.connect(self._go_to)

    def _lay_out(self) -> None:
        grid = QGridLayout()
        grid.setSpacing(3)
        buttons = (
            self.load,
            self.save,
            self.merge,
            self.regions,
            self.classifier,
            self.train,
        )
        for number, button in enumerate(buttons):
            grid.addWidget(button, *divmod(number, 2))
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        column.addLayout(grid)
        column.addWidget(self.title)
        column.addWidget(self.disagreements)

    def refresh(self) -> None:
        """List the disagreements of the last merge."""
        found = self.files.disagreements
        self.title.setVisible(bool(found))
        self.disagreements.setVisible(bool(found))
        self.title.setText(
            f"{len(found):,} patches are labelled differently. A click goes there, a "
            "digit decides"
        )
        self.disagreements.clear()
        labels = self._context.session.labels.set
        for one in found:
            slide, x, y, *_ = one.place
            opinions = ", ".join(
                f"{label.author or 'unknown'}: {label.label}" for label in one.labels
            )
            item = QListWidgetItem(
                f"{labels.slide_name(slide)} ({x:,}, {y:,}) {opinions}"
            )
            item.setToolTip(f"Decided so far: {one.chosen or 'nothing'}")
            item.setData(_NAMED, one)
            self.disagreements.addItem(item)

    def import_into(self, name: str) -> None:
        """Offer the layers whose regions are to get a class.

        Parameters
        ----------
        name : str
            The class.
        """
        menu = QMenu(self)
        for layer in self.files.layers():
            menu.addAction(layer.name, partial(self.files.import_layer, layer, name))
        if menu.isEmpty():
            self._context.session.report_error(
                "There is no shapes or labels layer: add one with napari's buttons, and "
                "draw around patches"
            )
            return
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.popup(self.cursor().pos())

    def _fill_regions(self) -> None:
        menu = self.regions.menu()
        assert menu is not None
        menu.clear()
        menu.addAction("QuPath (GeoJSON)…", self._import)
        for layer in self.files.layers():
            menu.addAction(
                f"Layer {layer.name}", partial(self.files.import_layer, layer)
            )

    def _show_given(self) -> None:
        given = self._context.classifier.given is not None
        self.train.setEnabled(given)

    def _open_classifier(self) -> None:
        kinds = "Classifiers (*.classifier.safetensors)"
        if path := ask_file(self, "Open a classifier", kinds):
            self.files.open_classifier(Path(path))

    def _train(self) -> None:
        self._context.classifier.use_classifier(None, "")

    def _load(self) -> None:
        if path := ask_file(self, "Load labels", _LABELS):
            self.files.load(Path(path))

    def _save(self) -> None:
        if path := ask_save(self, "Save labels", "labels.labels.json", _LABELS):
            self.files.save(Path(path))

    def _merge(self) -> None:
        if paths := ask_files(self, "Merge labels of other people", _LABELS):
            self.files.merge([Path(path) for path in paths])

    def _import(self) -> None:
        kinds = "Regions (*.geojson *.json)"
        if path := ask_file(self, "Import regions of QuPath", kinds):
            self.files.import_geojson(Path(path))

    def _go_to(self, item: QListWidgetItem) -> None:
        """Move the view to a place, if its slide is open."""
        one: Disagreement = item.data(_NAMED)
        session = self._context.session
        mark, x, y, width, height = one.place
        for layer in session.layers.slides():
            if fingerprint_of(session, layer) == mark:
                session.choose_slide(layer)
                centre = (x + width / 2 - 0.5, y + height / 2 - 0.5)
                session.layers.zoom_to(layer, centre, max(width, height), 96)
                return
        session.report_error("Open the slide of this patch first")

    def _settle(self, item: QListWidgetItem, key: int) -> None:
        if (found := self._context.session.labels.class_of_key(key)) is not None:
            self.files.settle(item.data(_NAMED), found.name)


class DisagreementList(QListWidget):
    """Places that people labelled differently; a digit decides on the current one.

    Parameters
    ----------
    settle : callable
        Called with an item and a digit.
    """

    def __init__(self, settle: Callable[[QListWidgetItem, int], None]) -> None:
        super().__init__()
        self._settle = settle
        self.setProperty("keeps keys", True)
        self.setAccessibleName("Patches that people labelled differently")
        height = self.fontMetrics().height() + 4
        self.setFixedHeight(_ROWS * height + 2 * self.frameWidth())
        self.setMinimumWidth(100)

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        """Decide with a digit; all else is Qt's."""
        digit = digit_of(event) if event is not None else None
        item = self.currentItem()
        if digit and item is not None:
            self._settle(item, digit)
        else:
            super().keyPressEvent(event)
