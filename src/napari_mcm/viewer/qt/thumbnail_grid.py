"""A grid of patch thumbnails with their values, which judge patches and show places."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from psygnal import Signal
from qtpy.QtCore import QEvent, QModelIndex, QPoint, QRect, QSize, Qt
from qtpy.QtGui import (
    QColor,
    QContextMenuEvent,
    QHelpEvent,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPalette,
    QPen,
    QPixmap,
    QResizeEvent,
)
from qtpy.QtWidgets import (
    QListView,
    QListWidget,
    QListWidgetItem,
    QMenu,
    QSizePolicy,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QToolTip,
)

from napari_mcm.viewer.canvas.keys import digit_of
from napari_mcm.viewer.layers.thumbnails import TopPatch
from napari_mcm.viewer.qt.thumbnail_strip import image_of

COLUMNS = 3
"""Number of thumbnails in a row; wider docks have more."""
_MOST_PX = 82
"""Largest side of a thumbnail in pixels: two rows fit a dock 700 px high."""
_COLUMN_PX = 93
"""Width in pixels that is enough for one more column."""
_ROWS = 2
"""Number of rows that are always in sight."""
_GAP = 3
_MARK_PX = 20
"""Side of the marks ✓ and ✗ on a thumbnail."""
_PIXELS, _SLIDE = Qt.ItemDataRole.UserRole, Qt.ItemDataRole.UserRole + 1
_MARKS = ((True, "✓"), (False, "✗"))


class ThumbnailGrid(QListWidget):
    """A grid of patch thumbnails with their values, for mouse and keyboard.

    Two marks appear on the thumbnail under the mouse and on the current one: ✓ makes the
    patch a similar example, ✗ a dissimilar one. The keys + and − do the same.

    Parameters
    ----------
    name : str
        Accessible name for screen readers.
    of_slides : bool
        Whether patches are of several slides: then the slide's name is under the value,
        and there are no marks, as examples belong to one slide.

    Attributes
    ----------
    chosen : Signal
        Emitted with a :class:`TopPatch` that was clicked, or on which Enter was pressed.
    judged : Signal
        Emitted with a patch, and whether it is a similar example or a dissimilar one.
    labelled : Signal
        Emitted with the selected patches and the digit that was pressed.
    pointed : Signal
        Emitted with the patch under the mouse; with None when the mouse leaves.
    """

    chosen = Signal(object)
    judged = Signal(object, bool)
    labelled = Signal(object, int)
    pointed = Signal(object)

    def __init__(self, name: str, of_slides: bool = False) -> None:
        super().__init__()
        self.of_slides = of_slides
        self._patches: Sequence[TopPatch] = ()
        self._pressed: tuple[int, bool] | None = None
        self.hovered = -1
        self.setAccessibleName(name)
        self.setItemDelegate(_CellDelegate(self))
        self.setViewMode(QListView.ViewMode.IconMode)
        self.setFlow(QListView.Flow.LeftToRight)
        self.setMovement(QListView.Movement.Static)
        self.setResizeMode(QListView.ResizeMode.Adjust)
        self.setWrapping(True)
        self.setUniformItemSizes(True)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollMode(QListWidget.ScrollMode.ScrollPerPixel)
        self.setMouseTracking(True)
        self.setSelectionMode(QListWidget.SelectionMode.ExtendedSelection)
        policy = QSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        # More than the empty space below it: what a high dock has left is the grid's.
        policy.setVerticalStretch(100)
        self.setSizePolicy(policy)
        self.setMinimumWidth(COLUMNS * 60)
        # Click and Enter. On platforms where one click activates, both are emitted, which
        # is harmless.
        self.itemClicked.connect(self._choose)
        self.itemActivated.connect(self._choose)
        self._fit()

    def show_patches(self, patches: Sequence[TopPatch]) -> None:
        """Replace the thumbnails.

        Parameters
        ----------
        patches : sequence of TopPatch
            Best first. Where they are the same patches as before, only pixels change.
        """
        if patches is self._patches:
            return
        same = [p.row for p in patches] == [p.row for p in self._patches]
        same = same and [p.value for p in patches] == [p.value for p in self._patches]
        self._patches = patches
        if not same:
            self.clear()
            self._point_at(-1)
            decimals = _decimals([patch.value for patch in patches])
            for rank, patch in enumerate(patches, 1):
                self.addItem(_item(rank, patch, decimals))
        for number, patch in enumerate(patches):
            if (item := self.item(number)) is not None and patch.pixels is not None:
                item.setData(_PIXELS, QPixmap.fromImage(image_of(patch.pixels)))
        self._fit()

    def cell_of(self, number: int) -> QRect:
        """Return where a thumbnail and its value are painted, in the viewport."""
        return QRect(self.visualItemRect(self.item(number)))

    def mark_of(self, number: int, like: bool) -> QRect:
        """Return where the mark ✓ or ✗ of a thumbnail is painted, in the viewport."""
        return _mark_rect(self.cell_of(number), like)

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Fit the cells to the new width."""
        super().resizeEvent(event)
        self._fit()

    def mouseMoveEvent(self, event: QMouseEvent | None) -> None:
        """Tell which thumbnail is under the mouse."""
        super().mouseMoveEvent(event)
        if event is not None:
            self._point_at(self._number_at(event.pos()))

    def leaveEvent(self, event: QEvent | None) -> None:
        """Tell that no thumbnail is under the mouse."""
        super().leaveEvent(event)
        self._point_at(-1)

    def viewportEvent(self, event: QEvent | None) -> bool:
        """Show no tooltip on a thumbnail, which it would cover; only on its value."""
        if isinstance(event, QHelpEvent) and event.type() == QEvent.Type.ToolTip:
            number = self._number_at(event.pos())
            if number >= 0 and _picture_rect(self.cell_of(number)).contains(
                event.pos()
            ):
                QToolTip.hideText()
                event.accept()
                return True
        return bool(super().viewportEvent(event))

    def mousePressEvent(self, event: QMouseEvent | None) -> None:
        """Take a press on a mark; all else is Qt's."""
        self._pressed = self._mark_at(event)
        if self._pressed is None:
            super().mousePressEvent(event)

    def mouseReleaseEvent(self, event: QMouseEvent | None) -> None:
        """Judge the patch whose mark was pressed and released."""
        pressed, self._pressed = self._pressed, None
        if pressed is None:
            super().mouseReleaseEvent(event)
        elif self._mark_at(event) == pressed:
            self.judged.emit(self._patches[pressed[0]], pressed[1])

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        """Judge the current patch with + and −; all else is Qt's."""
        at = self.currentRow()
        likes: dict[int, bool] = (
            {}
            if self.of_slides
            else {
                Qt.Key.Key_Plus: True,
                Qt.Key.Key_Equal: True,
                Qt.Key.Key_Minus: False,
            }
        )
        like = likes.get(event.key()) if event is not None else None
        digit = digit_of(event) if event is not None else None
        if digit is not None and (chosen := self.selected()):
            self.labelled.emit(chosen, digit)
        elif like is None or not 0 <= at < len(self._patches):
            super().keyPressEvent(event)
        else:
            self.judged.emit(self._patches[at], like)

    def selected(self) -> list[TopPatch]:
        """Return the selected patches, best first; without any, the current one."""
        rows = sorted(index.row() for index in self.selectedIndexes())
        rows = rows or [self.currentRow()]
        return [self._patches[row] for row in rows if 0 <= row < len(self._patches)]

    def contextMenuEvent(self, event: QContextMenuEvent | None) -> None:
        """Offer all that can be done with a patch."""
        at = self._number_at(event.pos()) if event is not None else -1
        if event is None or not 0 <= at < len(self._patches):
            return
        patch, menu = self._patches[at], QMenu(self)
        menu.addAction("Go there", partial(self.chosen.emit, patch))
        if not self.of_slides:
            menu.addAction("Similar example", partial(self.judged.emit, patch, True))
            menu.addAction(
                "Dissimilar example", partial(self.judged.emit, patch, False)
            )
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.popup(event.globalPos())

    def _fit(self) -> None:
        bar = self.verticalScrollBar()
        beside = bar.sizeHint().width() if bar is not None else 0
        # Room for the scroll bar, seen or not: else it would come and go.
        space = self.width() - beside - 2 * self.frameWidth() - 2
        columns = max(COLUMNS, space // _COLUMN_PX)
        lines = 2 if self.of_slides else 1
        width, below = (
            max(space // columns, 40),
            self.fontMetrics().height() * lines + 1,
        )
        height = min(width, _MOST_PX + _GAP) + below
        if self.gridSize() != QSize(width, height):
            self.setGridSize(QSize(width, height))
        rows = max(-(-len(self._patches) // columns), 1)
        frame = 2 * self.frameWidth() + 2
        # For cells of full size: if a narrower grid could be lower, the scroll bar of
        # the column around it would come and go without end.
        least = min(rows, _ROWS) * (_MOST_PX + _GAP + below) + frame
        self.setMinimumHeight(least)
        self.setMaximumHeight(max(rows * height + frame, least))

    def _number_at(self, at: QPoint) -> int:
        return int(self.indexAt(at).row())

    def _mark_at(self, event: QMouseEvent | None) -> tuple[int, bool] | None:
        if event is None or event.button() != Qt.MouseButton.LeftButton:
            return None
        if self.of_slides:
            return None
        number = self._number_at(event.pos())
        for like, _ in _MARKS:
            if number >= 0 and self.mark_of(number, like).contains(event.pos()):
                return number, like
        return None

    def _point_at(self, number: int) -> None:
        if number != self.hovered:
            self.hovered = number
            known = 0 <= number < len(self._patches)
            self.pointed.emit(self._patches[number] if known else None)
            if (viewport := self.viewport()) is not None:
                viewport.update()

    def _choose(self, item: QListWidgetItem) -> None:
        self.chosen.emit(self._patches[self.row(item)])


class _CellDelegate(QStyledItemDelegate):
    """Paints a thumbnail, its value under it, and its marks."""

    def __init__(self, grid: ThumbnailGrid) -> None:
        super().__init__(grid)

    def sizeHint(self, option: QStyleOptionViewItem, index: QModelIndex) -> QSize:
        """Return the size of a cell."""
        grid = self.parent()
        return grid.gridSize() if isinstance(grid, ThumbnailGrid) else QSize(60, 74)

    def paint(
        self,
        painter: QPainter | None,
        option: QStyleOptionViewItem,
        index: QModelIndex,
    ) -> None:
        """Paint a cell."""
        grid = self.parent()
        if painter is None or not isinstance(grid, ThumbnailGrid):
            return
        cell: Any = option.rect
        painter.save()
        picture, text = _picture_rect(cell), index.data(Qt.ItemDataRole.DisplayRole)
        pixmap = index.data(_PIXELS)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        if option.state & QStyle.StateFlag.State_Selected and grid.hasFocus():
            painter.fillRect(cell, grid.palette().color(QPalette.ColorRole.Highlight))
        if pixmap is None:
            painter.fillRect(picture, Qt.GlobalColor.gray)
        else:
            painter.drawPixmap(picture, pixmap)
        colour = grid.palette().color(QPalette.ColorRole.WindowText)
        focused = bool(option.state & QStyle.StateFlag.State_HasFocus)
        marked = index.row() == grid.hovered or focused
        if marked:
            painter.setPen(QPen(colour, 2))
            painter.drawRect(picture.adjusted(1, 1, -1, -1))
            for like, mark in () if grid.of_slides else _MARKS:
                _paint_mark(painter, _mark_rect(cell, like), mark)
        painter.setPen(colour)
        below = QRect(cell.left(), picture.bottom() + 1, cell.width(), cell.height())
        below.setBottom(cell.bottom())
        if slide := index.data(_SLIDE):
            # The end of a slide's name often tells it from the others.
            name = painter.fontMetrics().elidedText(
                str(slide), Qt.TextElideMode.ElideMiddle, below.width() - 2
            )
            text = f"{text}\n{name}"
        painter.drawText(below, Qt.AlignmentFlag.AlignCenter, str(text))
        painter.restore()


def _paint_mark(painter: QPainter, place: QRect, mark: str) -> None:
    painter.setPen(Qt.PenStyle.NoPen)
    # Dark on any tissue, in both themes.
    painter.setBrush(QColor(0, 0, 0, 190))
    painter.drawRoundedRect(place, 3, 3)
    painter.setPen(Qt.GlobalColor.white)
    painter.drawText(place, Qt.AlignmentFlag.AlignCenter, mark)


def _picture_rect(cell: QRect) -> QRect:
    side = min(cell.width() - _GAP, _MOST_PX)
    left = cell.left() + (cell.width() - side) // 2
    return QRect(left, cell.top() + _GAP // 2, side, side)


def _mark_rect(cell: QRect, like: bool) -> QRect:
    picture = _picture_rect(cell)
    left = picture.left() + 3 if like else picture.right() - 2 - _MARK_PX
    return QRect(left, picture.bottom() - 2 - _MARK_PX, _MARK_PX, _MARK_PX)


def _decimals(values: Sequence[float]) -> int:
    """Return as many decimals as tell neighbouring values apart: two or three."""
    pairs = zip(values, values[1:], strict=False)
    return 3 if any(a != b and f"{a:.2f}" == f"{b:.2f}" for a, b in pairs) else 2


def _item(rank: int, patch: TopPatch, decimals: int) -> QListWidgetItem:
    item = QListWidgetItem(f"{patch.value:.{decimals}f}")
    readable = patch.pixels is not None or patch.pending
    place = f"on slide {patch.slide}" if patch.slide else f"patch {patch.row:,}"
    name = f"{rank}: {place}, cosine {patch.value:.3f}"
    name += "" if readable else ", not readable"
    item.setData(Qt.ItemDataRole.AccessibleTextRole, name)
    item.setData(_SLIDE, patch.slide)
    item.setToolTip(
        f"{name}\nClick or Enter opens the slide there"
        if patch.slide
        else f"{name}\nClick or Enter goes there (key G on the slide, the next).\n"
        "✓ or + makes it a similar example, ✗ or − a dissimilar one"
    )
    return item
