"""The strip of patches to label next."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, get_args

from qtpy.QtCore import QPoint, QSize, Qt
from qtpy.QtGui import QIcon, QKeyEvent, QPixmap
from qtpy.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QListView,
    QListWidget,
    QListWidgetItem,
    QMenu,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_mcm.viewer.labelling.keyboard import answer
from napari_mcm.viewer.labelling.suggestions import Scope
from napari_mcm.viewer.qt.helpers import (
    connect_deferred,
    narrow,
    set_enabled_with_reason,
)
from napari_mcm.viewer.qt.primary_button import PrimaryButton
from napari_mcm.viewer.qt.thumbnail_strip import image_of

if TYPE_CHECKING:
    from napari_mcm.viewer.labelling.context import LabellingContext
    from napari_mcm.viewer.labelling.pool import Suggestion
    from napari_mcm.viewer.labelling.suggestions import SuggestionController

_SIDE_PX = 64
_FRAME = """
QListWidget::item { border: 2px solid transparent; }
QListWidget::item:selected { background: transparent; border: 2px solid #f5b800; }
"""
"""A frame around the patch to judge: a background tints how it is seen."""
_NAMES: dict[Scope, str] = {"slide": "This slide", "project": "All slides"}
_START = (
    "Go through the patches whose labels teach most: Enter agrees, digits correct, Space "
    "skips, Esc ends"
)


class SuggestionStrip(QListWidget):
    """Thumbnails of the patches to label next; the first one waits for an answer.

    Parameters
    ----------
    suggestions : SuggestionController
        The patches.
    """

    def __init__(self, suggestions: SuggestionController) -> None:
        super().__init__()
        self._suggestions = suggestions
        # Digits, Enter and Space are answers, wherever the pointer is.
        self.setProperty("keeps keys", True)
        self.setAccessibleName("Patches to label next, the current one first")
        self.setToolTip(_START)
        self.setViewMode(QListView.ViewMode.IconMode)
        self.setFlow(QListView.Flow.LeftToRight)
        self.setMovement(QListView.Movement.Static)
        self.setWrapping(False)
        self.setSpacing(2)
        self.setIconSize(QSize(_SIDE_PX, _SIDE_PX))
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setFixedHeight(_SIDE_PX + 44)
        self.setMinimumWidth(100)
        self.setStyleSheet(_FRAME)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.itemClicked.connect(self._clicked)

    def show_items(self, colours: dict[str, str]) -> None:
        """Show the suggestions.

        Parameters
        ----------
        colours : dict
            Colour of each class by its name.
        """
        items = self._suggestions.items
        self.clear()
        for number, one in enumerate(items):
            item = QListWidgetItem(self._icon(one), _text(one))
            current = self._suggestions.active and number == 0
            what = (
                f"{one.label}, probability {one.probability:.2f}" if one.label else ""
            )
            slide = one.grid.slide.get("name", "")
            item.setToolTip(f"{slide}\n{what or 'no class yet'}\nClick to go there")
            if current:
                font = item.font()
                font.setBold(True)
                item.setFont(font)
            self.addItem(item)
            if current:
                self.setCurrentItem(item)

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        """Answer the current suggestion; all else is Qt's."""
        suggestions = self._suggestions
        if event is None or not (suggestions.active and answer(suggestions, event)):
            super().keyPressEvent(event)

    def item_at(self, at: QPoint) -> Suggestion | None:
        """Return the suggestion at a place of the strip."""
        row = int(self.indexAt(at).row())
        items = self._suggestions.items
        return items[row] if 0 <= row < len(items) else None

    def _icon(self, one: Suggestion) -> QIcon:
        pixels = self._suggestions.pixels_of(one)
        if pixels is None:
            empty = QPixmap(_SIDE_PX, _SIDE_PX)
            empty.fill(Qt.GlobalColor.gray)
            return QIcon(empty)
        picture = QPixmap.fromImage(image_of(pixels))
        icon = QIcon(picture)
        # Where it is selected, Qt would tint it.
        icon.addPixmap(picture, QIcon.Mode.Selected)
        return icon

    def _clicked(self, item: QListWidgetItem) -> None:
        items, row = self._suggestions.items, self.row(item)
        if 0 <= row < len(items):
            self._suggestions.go_to(items[row])


class SuggestionPanel(QWidget):
    """*Label next*: the strip, the slides that it is of, and buttons for its keys.

    Parameters
    ----------
    context : LabellingContext
        Labels, classifier and maps of the viewer.
    """

    def __init__(self, context: LabellingContext) -> None:
        super().__init__()
        self._context, self._suggestions = context, context.suggestions
        self.start = PrimaryButton("Label &next")
        self.start.clicked.connect(self._start)
        self.scope = narrow(QComboBox())
        self.scope.setAccessibleName("Slides to suggest patches of")
        self.scope.setToolTip(
            "Suggest patches of the open slide, or of all slides of the project that "
            "have features of the same encoder"
        )
        for scope in get_args(Scope):
            self.scope.addItem(_NAMES[scope], scope)
        self.scope.activated.connect(self._scope_chosen)
        self.strip = SuggestionStrip(self._suggestions)
        self.strip.customContextMenuRequested.connect(self._menu)
        self.agree = QPushButton("A&gree (Enter)")
        self.skip = QPushButton("&Skip (Space)")
        self.stop = QPushButton("&End (Esc)")
        for button, call, tip in (
            (self.agree, self._suggestions.agree, "Label the patch as suggested"),
            (self.skip, self._suggestions.skip, "Suggest this patch no more"),
            (self.stop, self._suggestions.stop, "Stop going from patch to patch"),
        ):
            button.setToolTip(tip)
            button.clicked.connect(call)
        self._lay_out()
        self._suggestions.want()
        connect_deferred(
            self.refresh, self._suggestions.changed, context.session.labels.changed
        )
        self.refresh()

    def _lay_out(self) -> None:
        row = QHBoxLayout()
        row.addWidget(self.start, 1)
        row.addWidget(self.scope, 1)
        self._answers = QWidget()
        answers = QHBoxLayout(self._answers)
        answers.setContentsMargins(0, 0, 0, 0)
        answers.setSpacing(3)
        for button in (self.agree, self.skip, self.stop):
            answers.addWidget(button, 1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        column.addLayout(row)
        column.addWidget(self.strip)
        column.addWidget(self._answers)

    def refresh(self) -> None:
        """Show the suggestions, and which buttons can be used."""
        suggestions, labels = self._suggestions, self._context.session.labels
        active, any_items = suggestions.active, bool(suggestions.items)
        colours = {one.name: one.color for one in labels.classes}
        self.strip.show_items(colours)
        self.strip.setVisible(any_items or active)
        self._answers.setVisible(active)
        self.start.setVisible(not active)
        reason = ""
        if not labels.classes:
            reason = "add classes first"
        elif not any_items:
            reason = "choosing patches…" if suggestions.reading else "no patch is left"
        set_enabled_with_reason(self.start, _START, reason)
        self.start.set_primary(len(labels.classes) > 1)
        one = suggestions.current
        self.agree.setEnabled(one is not None and bool(one.label))
        self.skip.setEnabled(one is not None)
        at = self.scope.findData(suggestions.scope)
        self.scope.setCurrentIndex(at)

    def _start(self) -> None:
        self._suggestions.start()
        self.strip.setFocus(Qt.FocusReason.OtherFocusReason)

    def _scope_chosen(self, number: int) -> None:
        self._suggestions.use_scope(self.scope.itemData(number))

    def _menu(self, at: QPoint) -> None:
        """Offer the classes for one suggestion."""
        one = self.strip.item_at(at)
        if one is None:
            return
        menu = QMenu(self)
        menu.addAction("Go there", partial(self._suggestions.go_to, one))
        for known in self._context.session.labels.classes:
            menu.addAction(
                f"Label {known.name}",
                partial(self._suggestions.correct_to, one, known.name),
            )
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.popup(self.strip.mapToGlobal(at))


def _text(one: Suggestion) -> str:
    return f"{one.label}? {one.probability:.2f}" if one.label else "?"
