"""The list of classes: key, colour, name, labels and area of each."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from psygnal import Signal
from qtpy.QtCore import QPoint, QRect, QSize, Qt, QTimer
from qtpy.QtGui import QColor, QFont, QIcon, QKeyEvent, QPainter, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QColorDialog,
    QHBoxLayout,
    QHeaderView,
    QLineEdit,
    QMenu,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_mcm.core.labelling import UNSURE_LABEL
from napari_mcm.viewer.app.labels import LABELS
from napari_mcm.viewer.labelling.class_maps import UNSURE_COLOUR, fingerprint_of
from napari_mcm.viewer.qt.helpers import connect_deferred
from napari_mcm.viewer.qt.primary_button import PrimaryButton

if TYPE_CHECKING:
    from napari_mcm.core.labelling import ClassArea, LabelClass
    from napari_mcm.viewer.labelling.context import LabellingContext

_NAME = Qt.ItemDataRole.UserRole
_CLASS, _LABELS, _AREA, _SHARE = range(4)
_HERE_ALL = "Here / all"
_ICON = QSize(26, 16)
_LEAST_ROWS, _MOST_ROWS = 3, 10
_TIP = (
    "Point at a patch of the slide and press the number of its class (0 takes the label "
    "away).\nDouble-click or F2 renames a class; a right click shows all that can be done"
)


class ClassList(QTreeWidget):
    """A list whose Return key ends with it: the window would give it to the canvas."""

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        """Keep Return, with which names are ended; all else is Qt's."""
        super().keyPressEvent(event)
        if event is not None and event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            event.accept()


class ClassPanel(QWidget):
    """The classes, each with its key, its labels and its area on the slide.

    Parameters
    ----------
    context : LabellingContext
        Labels, classifier and maps of the viewer.

    Attributes
    ----------
    regions_wanted : Signal
        Emitted with the name of a class that regions of a layer are to get.
    """

    regions_wanted = Signal(str)

    def __init__(self, context: LabellingContext) -> None:
        super().__init__()
        self._context, self._labels = context, context.session.labels
        self.list = ClassList()
        self.add = PrimaryButton("+ &Class")
        self.lasso = QPushButton("&Lasso")
        self.undo, self.redo = QPushButton("&Undo"), QPushButton("Re&do")
        self.more = QPushButton("⋮")
        self._set_up()
        self._lay_out()
        connect_deferred(
            self.refresh, self._labels.changed, context.session.slide_changed
        )
        connect_deferred(self._show_areas, context.classifier.changed)
        self.refresh()

    @property
    def current(self) -> str:
        """Name of the current class; empty without one."""
        item = self.list.currentItem()
        return "" if item is None else str(item.data(_CLASS, _NAME) or "")

    def _set_up(self) -> None:
        tree = self.list
        tree.setAccessibleName("Classes, with their keys, labels and areas")
        tree.setToolTip(_TIP)
        tree.setColumnCount(4)
        tree.setRootIsDecorated(False)
        tree.setUniformRowHeights(True)
        tree.setIconSize(_ICON)
        tree.setIndentation(0)
        tree.setMinimumWidth(180)
        tree.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        tree.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        if (header := tree.header()) is not None:
            header.setStretchLastSection(False)
            header.setMinimumSectionSize(24)
            mode = QHeaderView.ResizeMode
            header.setSectionResizeMode(mode.ResizeToContents)
            header.setSectionResizeMode(_CLASS, mode.Stretch)
        tree.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        tree.customContextMenuRequested.connect(self._menu_at)
        tree.itemChanged.connect(self._edited)
        tree.currentItemChanged.connect(self._chosen)
        if (delegate := tree.itemDelegate()) is not None:
            delegate.closeEditor.connect(lambda: QTimer.singleShot(0, self.refresh))
        self.add.setToolTip("Add a class, with the next free number and colour")
        self.add.clicked.connect(self._add)
        self.lasso.setToolTip(
            "Draw around patches, then press the number of their class (key L on the "
            "slide)"
        )
        self.lasso.clicked.connect(self._context.labels.lasso.begin)
        order = self._context.session.order
        self.undo.setToolTip("Undo the last change of labels (Ctrl+Z on the slide)")
        self.undo.clicked.connect(lambda: order.undo(LABELS))
        self.redo.setToolTip("Redo what was undone (Ctrl+Shift+Z on the slide)")
        self.redo.clicked.connect(lambda: order.redo(LABELS))
        self.more.setToolTip("All that can be done with the current class")
        self.more.setAccessibleName("More of the current class")
        self.more.setFixedWidth(28)
        self.more.clicked.connect(self._menu_of_button)

    def _lay_out(self) -> None:
        row = QHBoxLayout()
        row.setSpacing(3)
        for button in (self.add, self.lasso, self.undo, self.redo):
            row.addWidget(button, 1)
        row.addWidget(self.more)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        column.addWidget(self.list)
        column.addLayout(row)

    def refresh(self) -> None:
        """Show the classes and the numbers of their labels."""
        if self._is_edited():
            # The list is made anew, which would close the editor of a name.
            return
        labels, tree, chosen = self._labels.set, self.list, self.current
        counts, here = labels.counts(), self._counts_here()
        tree.setHeaderLabels(
            ["Class", "Labels" if counts == here else _HERE_ALL, "mm²", "%"]
        )
        if (header := tree.headerItem()) is not None:
            header.setToolTip(_LABELS, "Labels on this slide / on all slides")
        tree.blockSignals(True)
        tree.clear()
        for one in labels.classes:
            count = f"{counts[one.name]:,}"
            shown = count if counts == here else f"{here[one.name]:,} / {count}"
            item = QTreeWidgetItem([one.name, shown, "", ""])
            item.setData(_CLASS, _NAME, one.name)
            item.setIcon(_CLASS, _swatch(one.color, one.key))
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsEditable)
            key = f"key {one.key}" if one.key else "no key"
            item.setToolTip(_CLASS, f"{one.name}: {key}, {count} labels on all slides")
            _align(item)
            tree.addTopLevelItem(item)
            if one.name == chosen:
                tree.setCurrentItem(item)
        if tree.currentItem() is None and tree.topLevelItemCount():
            tree.setCurrentItem(tree.topLevelItem(0))
        tree.blockSignals(False)
        self.undo.setEnabled(self._labels.can_undo)
        self.redo.setEnabled(self._labels.can_redo)
        self.add.set_primary(len(labels.classes) < 2)
        self.more.setEnabled(bool(labels.classes))
        self.lasso.setEnabled(bool(labels.classes))
        self._show_areas()

    def _counts_here(self) -> dict[str, int]:
        """Return the number of labels of each class on the current slide."""
        session = self._context.session
        mark = "" if session.slide is None else fingerprint_of(session, session.slide)
        return self._labels.set.of_slide(mark).counts()

    def _is_edited(self) -> bool:
        """Return whether the user is typing a name."""
        editors = self.list.findChildren(QLineEdit)
        return any(one.isVisibleTo(self.list) for one in editors)

    def _show_areas(self) -> None:
        """Show the areas of the map that is there; they follow the labels a moment later."""
        classes, tree = self._context.classifier.classes, self.list
        areas = {} if classes is None else {one.label: one for one in classes.areas}
        tree.blockSignals(True)
        for number in range(tree.topLevelItemCount()):
            item = tree.topLevelItem(number)
            assert item is not None
            _put(item, areas.get(item.data(_CLASS, _NAME)))
        last = tree.topLevelItem(tree.topLevelItemCount() - 1)
        has_unsure = last is not None and not last.data(_CLASS, _NAME)
        if areas and not has_unsure:
            item = QTreeWidgetItem([UNSURE_LABEL, "", "", ""])
            item.setIcon(_CLASS, _swatch(UNSURE_COLOUR, None))
            item.setFlags(Qt.ItemFlag.ItemIsEnabled)
            font = QFont(self.font())
            font.setItalic(True)
            item.setFont(_CLASS, font)
            limit = self._context.classifier.config.unsure_below
            item.setToolTip(
                _CLASS,
                f"Patches whose likeliest class is less probable than {limit:.2f}",
            )
            _align(item)
            tree.addTopLevelItem(item)
            last, has_unsure = item, True
        elif has_unsure and not areas:
            tree.takeTopLevelItem(tree.topLevelItemCount() - 1)
            has_unsure = False
        if has_unsure and last is not None:
            _put(last, areas.get(UNSURE_LABEL))
        tree.blockSignals(False)
        self._fit()

    def _fit(self) -> None:
        tree, header = self.list, self.list.header()
        rows = min(max(tree.topLevelItemCount(), _LEAST_ROWS), _MOST_ROWS)
        height = tree.sizeHintForRow(0) if tree.topLevelItemCount() else 20
        above = header.sizeHint().height() if header is not None else 0
        tree.setFixedHeight(above + rows * max(height, 18) + 2 * tree.frameWidth() + 2)

    def _add(self) -> None:
        made = self._labels.new_class()
        self.refresh()
        for number in range(self.list.topLevelItemCount()):
            item = self.list.topLevelItem(number)
            if item is not None and item.data(_CLASS, _NAME) == made.name:
                self.list.setCurrentItem(item)
                if self.list.isVisibleTo(self.window()):
                    self.list.setFocus()
                    self.list.editItem(item, _CLASS)

    def _edited(self, item: QTreeWidgetItem, column: int) -> None:
        old, new = str(item.data(_CLASS, _NAME) or ""), item.text(_CLASS).strip()
        if column != _CLASS or not old:
            return
        if not new or new == old:
            item.setText(_CLASS, old)
            return
        # After the editor has closed: the list is made anew.
        QTimer.singleShot(0, partial(self._rename, old, new))

    def _rename(self, old: str, new: str) -> None:
        if old in self._labels.set.names:
            self._labels.use(self._labels.set.rename_class(old, new))

    def _chosen(self, *_: Any) -> None:
        self._context.maps.use_class(self.current)

    def _menu_at(self, at: QPoint) -> None:
        item = self.list.itemAt(at)
        if item is not None and item.data(_CLASS, _NAME):
            self.list.setCurrentItem(item)
            if (viewport := self.list.viewport()) is not None:
                self._popup(viewport.mapToGlobal(at))

    def _menu_of_button(self) -> None:
        self._popup(self.more.mapToGlobal(QPoint(0, self.more.height())))

    def _popup(self, at: QPoint) -> None:
        one = self._labels.class_named(self.current)
        if one is not None:
            menu = self.menu_of(one)
            menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
            menu.popup(at)

    def menu_of(self, one: LabelClass) -> QMenu:
        """Return the menu of all that can be done with a class.

        Parameters
        ----------
        one : LabelClass
            The class.
        """
        menu, labels = QMenu(self), self._context.labels
        menu.addAction(
            "Label the area above the threshold (Ctrl and its number)",
            partial(labels.label_above, one.name),
        )
        menu.addAction(
            "Label the similar examples", partial(labels.label_examples, one.name, True)
        )
        menu.addAction(
            "Label the dissimilar examples",
            partial(labels.label_examples, one.name, False),
        )
        menu.addAction(
            "Label regions of a layer…", partial(self.regions_wanted.emit, one.name)
        )
        menu.addSeparator()
        menu.addAction("Rename", self._rename_current)
        menu.addAction("Colour…", partial(self._ask_colour, one))
        keys = menu.addMenu("Key")
        merge = menu.addMenu("Merge into")
        assert keys is not None and merge is not None
        for key in (*range(1, 10), None):
            action = keys.addAction(
                "none" if key is None else str(key), partial(self._use_key, one, key)
            )
            assert action is not None
            action.setCheckable(True)
            action.setChecked(key == one.key)
        for other in self._labels.classes:
            if other.name != one.name:
                merge.addAction(other.name, partial(self._rename, one.name, other.name))
        merge.setEnabled(len(self._labels.classes) > 1)
        menu.addSeparator()
        menu.addAction("Delete class and its labels", partial(self._delete, one.name))
        return menu

    def _rename_current(self) -> None:
        if (item := self.list.currentItem()) is not None:
            self.list.editItem(item, _CLASS)

    def _ask_colour(self, one: LabelClass) -> None:
        colour = QColorDialog.getColor(QColor(one.color), self, f"Colour of {one.name}")
        if colour.isValid():
            self.use_colour(one.name, colour.name())

    def use_colour(self, name: str, colour: str) -> None:
        """Give a class another colour, as ``#rrggbb``."""
        one = self._labels.class_named(name)
        if one is not None:
            self._labels.use(self._labels.set.with_class(replace(one, color=colour)))

    def _use_key(self, one: LabelClass, key: int | None) -> None:
        self._labels.use(self._labels.set.with_class(replace(one, key=key)))

    def _delete(self, name: str) -> None:
        self._labels.use(self._labels.set.without_class(name))
        self._context.labels.say(f"{name} deleted: Undo brings it back")


def _put(item: QTreeWidgetItem, area: ClassArea | None) -> None:
    if area is None:
        texts = "", "", ""
    else:
        sure = "" if area.probability != area.probability else f"{area.probability:.2f}"
        texts = (
            f"{area.mm2:,.{2 if area.mm2 >= 0.1 or not area.mm2 else 4}f}",
            f"{100 * area.share:.0f}"
            if area.share >= 0.1
            else f"{100 * area.share:.1f}",
            f"{area.patches:,} patches, mean probability {sure}" if sure else "",
        )
    item.setText(_AREA, texts[0])
    item.setText(_SHARE, texts[1])
    item.setToolTip(_AREA, texts[2])
    item.setToolTip(_SHARE, f"Share of the tissue. {texts[2]}".strip())


def _align(item: QTreeWidgetItem) -> None:
    right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
    for column in (_LABELS, _AREA, _SHARE):
        item.setTextAlignment(column, right)


def _swatch(colour: str, key: int | None) -> QIcon:
    """Return the colour of a class with its key in it."""
    picture = QPixmap(_ICON)
    shown = QColor(colour)
    picture.fill(shown)
    if key is not None:
        painter = QPainter(picture)
        light = shown.lightnessF() > 0.5
        painter.setPen(Qt.GlobalColor.black if light else Qt.GlobalColor.white)
        font = painter.font()
        font.setBold(True)
        font.setPixelSize(13)
        painter.setFont(font)
        whole = QRect(0, 0, _ICON.width(), _ICON.height())
        painter.drawText(whole, Qt.AlignmentFlag.AlignCenter, str(key))
        painter.end()
    icon = QIcon(picture)
    # In a row that is selected, Qt would tint it.
    icon.addPixmap(picture, QIcon.Mode.Selected)
    return icon
