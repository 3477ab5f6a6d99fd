"""Measure the dock *Similarity* in a real window, as another scale factor needs.

    QT_SCALE_FACTOR=2 python -m tests.viewer.similarity.dock_geometry FOLDER

prints what is where, as JSON: for each theme and width of the dock, the parts of the dock
and of the gallery that are in sight, and the texts that are cut off.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import napari
from qtpy.QtCore import QPoint, QRect, Qt
from qtpy.QtWidgets import (
    QAbstractButton,
    QApplication,
    QComboBox,
    QDockWidget,
    QLabel,
    QScrollArea,
    QStyle,
    QStyleOptionComboBox,
    QWidget,
)

from napari_mcm.viewer.app import persistence
from napari_mcm.viewer.layers.mouse import ClickMode
from napari_mcm.viewer.qt.dock import ScrollColumn
from napari_mcm.viewer.qt.summary_section import SummaryLine
from napari_mcm.viewer.reader import read_slide
from napari_mcm.viewer.similarity.context import context_of
from napari_mcm.viewer.similarity.widget import SimilarityWidget
from napari_mcm.viewer.slide.widget import SlideWidget
from tests.viewer.conftest import features_of, wait_until, write_slide
from tests.viewer.similarity.test_query import again

WINDOW = 1280, 800
WIDTHS = 320, 400
EXAMPLES: tuple[tuple[int, ClickMode], ...] = ((5, "new"), (9, "like"), (30, "unlike"))


def inside(part: QWidget, rect: QRect, area: QWidget) -> bool:
    """Whether a rectangle of a part lies within an area that may scroll, as a whole."""
    corner = part.mapTo(area, rect.topLeft())
    return bool(area.rect().contains(QRect(corner, rect.size())))


def in_sight(part: QWidget, column: QScrollArea) -> bool:
    """Whether a part is seen as a whole, without scrolling."""
    assert column.verticalScrollBar().value() == 0
    return part.isVisible() and inside(part, part.rect(), column.viewport())


def all_fit(field: QComboBox) -> bool:
    """Whether each entry of a list fits the closed list, beside its icon."""
    option = QStyleOptionComboBox()
    option.initFrom(field)
    control = QStyle.ComplexControl.CC_ComboBox
    edit = QStyle.SubControl.SC_ComboBoxEditField
    room = field.style().subControlRect(control, option, edit, field).width()
    for number in range(field.count()):
        icon = not field.itemIcon(number).isNull()
        # Qt leaves four pixels between them.
        left = room - icon * (field.iconSize().width() + 4)
        if field.fontMetrics().horizontalAdvance(field.itemText(number)) > left:
            return False
    return True


def cut_off(docked: QWidget) -> list[str]:
    """The visible texts that do not fit their widget, or whose widget does not fit."""
    found = []
    kinds = QLabel, QAbstractButton, QComboBox
    for part in (one for kind in kinds for one in docked.findChildren(kind)):
        if not part.isVisible() or isinstance(part, SummaryLine):
            continue
        text = part.currentText() if isinstance(part, QComboBox) else part.text()
        least = part.fontMetrics().horizontalAdvance(text.replace("&", ""))
        wraps = isinstance(part, QLabel) and part.wordWrap()
        if wraps:
            fits = part.height() >= part.heightForWidth(part.width())
        elif isinstance(part, QComboBox):
            # Of others the tooltip has it in full.
            fits = not part.accessibleName().endswith("of the map") or all_fit(part)
        else:
            fits = part.width() >= least
        left = part.mapTo(docked, QPoint(0, 0)).x()
        if not fits or left < 0 or left + part.width() > docked.width():
            found.append(f"{type(part).__name__} {text!r} {part.width()} < {least}")
    return found


def measure(docked: SimilarityWidget) -> dict[str, Any]:
    """What is in sight now."""
    column = docked.findChild(ScrollColumn)
    parts = {
        "slide": docked.sections["slide"].line,
        "encoder": docked.sections["encoder"].line,
        "compare": docked.sections["compare"].line,
        "switch": docked.maps.look.switch,
        "opacity": docked.maps.look.opacity,
        "maps": docked.maps.show_slot["second"],
        "context": docked.query.around,
        "threshold": docked.area.threshold,
        "area": docked.area.area,
        "table": docked.area.add,
        "undo": docked.query.back,
        "gallery": docked.gallery.title,
        "other slides": docked.sections["other slides"].line,
        "more": docked.sections["more"].line,
    }
    strip = docked.gallery.strip
    cells = [strip.cell_of(number) for number in range(strip.count())]
    seen = [
        number
        for number, cell in enumerate(cells)
        if inside(strip.viewport(), cell, strip)
        and inside(strip.viewport(), cell, column.viewport())
    ]
    return {
        "window": [docked.window().width(), docked.window().height()],
        "width": docked.width(),
        "scrolls": column.verticalScrollBar().maximum(),
        "in sight": sorted(n for n, part in parts.items() if in_sight(part, column)),
        "parts": sorted(parts),
        "thumbnails in sight": len(seen),
        "columns": len({cell.left() for cell in cells}),
        "cut off": cut_off(docked),
        "tabs": len(docked.window().tabifiedDockWidgets(docked.parent())),
    }


def prepare(viewer: Any, folder: Path) -> SimilarityWidget:
    """A viewer with two docks, and a query of two encoders in the one that is seen."""
    docked = SimilarityWidget(viewer)
    viewer.window.add_dock_widget(SlideWidget(viewer), name="Slide", area="right")
    viewer.window.add_dock_widget(docked, name="Similarity", area="right")
    path = write_slide(folder / "slide.tif")
    session = docked.session
    session.layers.add_slide(read_slide(str(path)))
    first = features_of(path)
    session.set_features(session.slide, "first", first)
    session.set_features(session.slide, "second", again(first, 1))
    context, centres = context_of(session), first.index.features.grid.centres
    for count, (patch, mode) in enumerate(EXAMPLES, 1):
        context.queries.point(*centres[patch], mode)
        wait_until(lambda n=count: context.query and len(context.queries.examples) == n)
    wait_until(lambda: context.gallery.complete, 60)
    wait_until(lambda: docked.gallery.strip.count() == 24, 60)
    return docked


def main(folder: Path) -> None:
    """Print what is where."""
    persistence._file = lambda: folder / "settings.json"  # type: ignore[assignment]
    viewer = napari.Viewer()
    window = viewer.window._qt_window
    window.resize(*WINDOW)
    docked = prepare(viewer, folder)
    dock = docked.parent()
    assert isinstance(dock, QDockWidget)
    wait_until(lambda: window.tabifiedDockWidgets(dock))
    dock.raise_()
    found = {}
    for theme in ("dark", "light"):
        viewer.theme = theme
        for width in WIDTHS:
            window.resizeDocks([dock], [width], Qt.Orientation.Horizontal)
            wait_until(lambda width=width: abs(docked.width() - width) <= 2, 60)
            for _ in range(20):
                QApplication.processEvents()
            found[f"{theme} {width}"] = measure(docked)
            window.grab().save(str(folder / f"{theme}-{width}.png"))
    found["ratio"] = window.devicePixelRatioF()
    print(json.dumps(found), flush=True)
    viewer.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
