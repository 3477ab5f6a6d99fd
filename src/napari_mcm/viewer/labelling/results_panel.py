"""Buttons for what is taken home from a map of classes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QApplication,
    QHBoxLayout,
    QMenu,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_mcm.viewer.app.persistence import writable_base
from napari_mcm.viewer.labelling.results import ClassResults
from napari_mcm.viewer.qt.helpers import (
    connect,
    connect_deferred,
    note,
    set_enabled_with_reason,
    while_alive,
)
from napari_mcm.viewer.qt.path_field import ask_folder, ask_save

if TYPE_CHECKING:
    from napari_mcm.core.labelling.applying import ClassifyPatchesResult
    from napari_mcm.viewer.labelling.context import LabellingContext

_FILES = {
    "Regions for QuPath (GeoJSON)…": (".regions.geojson", "GeoJSON (*.geojson)"),
    "Patches for QuPath (GeoJSON)…": (".geojson", "GeoJSON (*.geojson)"),
    "Table of patches (CSV)…": (".csv", "CSV (*.csv)"),
    "Labels (OME-TIFF)…": (".ome.tif", "OME-TIFF (*.ome.tif)"),
}
"""Entries of the menu to the format of the file, and the filter of the dialog."""

_TIPS = {
    "add": "Add the area of each class as a row of the results table, unsure apart",
    "export": "Write the classes of this slide for QuPath, as a table or as labels",
    "apply": "Classify all slides of the project that have features of this encoder, "
    "and write one table of areas",
}


class ResultsPanel(QWidget):
    """Adds areas to the results table, writes files, and applies to all slides.

    Parameters
    ----------
    context : LabellingContext
        Labels, classifier and maps of the viewer.
    """

    def __init__(self, context: LabellingContext) -> None:
        super().__init__()
        self._context, self.results = context, ClassResults(context)
        self.add = QPushButton("Add to ta&ble")
        self.add.clicked.connect(self.results.add_rows)
        self.apply = QPushButton("A&ll slides")
        self.apply.setMenu(self._menu_of_slides())
        self.export = QPushButton("E&xport")
        self.export.setMenu(self._menu_of_files())
        self.total = note()
        self.total.hide()
        row = QHBoxLayout()
        row.setSpacing(3)
        for button in (self.add, self.export, self.apply):
            row.addWidget(button, 1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        column.addLayout(row)
        column.addWidget(self.total)
        connect_deferred(self.refresh, context.classifier.changed)
        connect(context.labels.noted, self._hide_total)
        connect(context.session.order.moved, self._hide_total)
        self.refresh()

    def refresh(self) -> None:
        """Enable the buttons where there is a map."""
        reason = "" if self.results.classes is not None else "there is no map yet"
        for name, button in (
            ("add", self.add),
            ("export", self.export),
            ("apply", self.apply),
        ):
            set_enabled_with_reason(button, _TIPS[name], reason)

    def _menu_of_files(self) -> QMenu:
        menu = QMenu(self)
        menu.addAction("Labels layer", self.results.make_layer)
        menu.addAction("Areas (CSV)…", self._export_areas)
        for text, (form, kind) in _FILES.items():
            menu.addAction(text, partial(self._export, form, kind))
        menu.addSeparator()
        menu.addAction("Classifier…", self._save_classifier)
        return menu

    def _menu_of_slides(self) -> QMenu:
        menu = QMenu(self)
        menu.addAction("Apply to all slides…", self._apply)
        menu.addAction("Copy as command", self._copy)
        return menu

    def _name(self, ending: str) -> str:
        metadata = self._context.session.metadata
        if metadata is None:
            return f"slide{ending}"
        return str(writable_base(Path(metadata.path)) / f"{metadata.name}{ending}")

    def _export(self, form: str, kind: str) -> None:
        # The entry of the menu sets the format, whatever the user calls the file.
        name = self._name(f".classes{form}")
        if path := ask_save(self, "Export", name, kind):
            self.results.export(Path(path), form)

    def _export_areas(self) -> None:
        name = self._name(".areas.csv")
        if path := ask_save(self, "Export", name, "CSV (*.csv)"):
            self.results.export_areas(Path(path))

    def _save_classifier(self) -> None:
        ending = ".classifier.safetensors"
        kind = f"Classifiers (*{ending})"
        if path := ask_save(self, "Save the classifier", f"classes{ending}", kind):
            self.results.save_classifier(Path(path))

    def _folder(self) -> Path:
        metadata = self._context.session.metadata
        base = Path.cwd() if metadata is None else writable_base(Path(metadata.path))
        return base / "classes"

    def _apply(self) -> None:
        folder = ask_folder(self, "Folder of the table of areas", str(self._folder()))
        if folder:
            self.results.apply(Path(folder), while_alive(self._applied))

    def _applied(self, found: ClassifyPatchesResult) -> None:
        parts = [
            f"{one.label} {one.mm2:,.2f} mm² {100 * one.share:.0f} %"
            for one in found.total
        ]
        slides = len(found.slides)
        lines = [f"{slides:,} slide{'' if slides == 1 else 's'}: {' · '.join(parts)}"]
        lines += [f"Table: {found.table}", *found.failed[:3]]
        self._context.labels.say("")
        self.total.setText("\n".join(lines))
        self.total.show()

    def _hide_total(self) -> None:
        self.total.hide()

    def _copy(self) -> None:
        """Save the classifier, and copy the command that takes it to all slides."""
        folder, clipboard = self._folder(), QApplication.clipboard()
        config = self.results.config(folder)
        if clipboard is None or config.classifier is None:
            return
        clipboard.setText(self.results.command(folder))
        copied = f"Copied; paste it into a terminal. The classifier is in {config.classifier}"
        self.results.save_classifier(config.classifier, copied)
