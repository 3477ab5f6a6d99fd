"""The map of an atlas with its colours, and the patch under the pointer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakMethod

import numpy as np
from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QPalette, QPixmap, QShowEvent
from qtpy.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QLabel,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_mcm.viewer.atlas.colouring import CHOICES, dimmed
from napari_mcm.viewer.atlas.legend import LegendPanel
from napari_mcm.viewer.atlas.scatter import ScatterView
from napari_mcm.viewer.layers.thumbnails import THUMBNAIL_PX
from napari_mcm.viewer.qt.helpers import connect, narrow, note, while_alive
from napari_mcm.viewer.qt.thumbnail_strip import image_of

if TYPE_CHECKING:
    from napari_mcm.viewer.atlas.controller import AtlasController
    from napari_mcm.viewer.atlas.point_colours import PointColours

_EMPTY = "The patches appear here: similar ones next to each other"
_HINT = (
    "Point to see a patch, click to go there. Shift and drag draw a lasso, with Ctrl it "
    "adds. Drag moves the map, the wheel zooms. 1 to 9 label by the keys of classes"
)


class MapPanel(QWidget):
    """The map, its tools and its legend.

    Parameters
    ----------
    controller : AtlasController
        The atlas.
    colours : PointColours
        Colours of its points.

    Attributes
    ----------
    scatter : ScatterView
        The map.
    by : QComboBox
        What colours say.
    lasso, whole : QToolButton
        The tools.
    legend : LegendPanel
        What colours mean.
    place : QLabel
        What is under the pointer.
    """

    def __init__(self, controller: AtlasController, colours: PointColours) -> None:
        super().__init__()
        self._controller, self._colours = controller, colours
        self.scatter, self.legend = ScatterView(), LegendPanel()
        self.scatter.setToolTip(_HINT)
        self.by = narrow(QComboBox())
        self.by.setMinimumContentsLength(2)
        for choice in CHOICES:
            self.by.addItem(choice)
        self.by.setAccessibleName("What the colours of points say")
        self.by.setToolTip("What the colours of points say")
        self.lasso = _tool("Lasso", "Draw around points to select them (key L)")
        self.lasso.setCheckable(True)
        self.whole = _tool("Whole", "See the whole map (Home)")
        self.picture, self.place = QLabel(), note()
        self._show_nothing()
        self._lay_out()
        self._connect()
        self._show_atlas(True)

    def _lay_out(self) -> None:
        # In the corner of the map: a narrow dock has no room beside the fields.
        corner = QHBoxLayout(self.scatter)
        corner.setContentsMargins(0, 0, 0, 0)
        corner.setSpacing(3)
        corner.addStretch(1)
        for tool in (self.lasso, self.whole):
            corner.addWidget(tool, 0, Qt.AlignmentFlag.AlignTop)
        self.picture.setFixedSize(THUMBNAIL_PX, THUMBNAIL_PX)
        self._under = QWidget()
        self._under.setMinimumHeight(THUMBNAIL_PX)
        below = QHBoxLayout(self._under)
        below.setContentsMargins(0, 0, 0, 0)
        below.addWidget(self.picture)
        below.addWidget(self.place, 1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        column.addWidget(self.scatter, 1)
        column.addWidget(self.legend)
        column.addWidget(self._under)
        policy = QSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        policy.setVerticalStretch(100)
        self.setSizePolicy(policy)

    def _connect(self) -> None:
        controller, scatter = self._controller, self.scatter
        connect(controller.selection_changed, self._show_selection)
        connect(controller.pointed_changed, self._show_pointed)
        connect(self._colours.changed, self._show_colouring)
        self._colours.is_behind = _weak(self._is_behind)
        scatter.pointed.connect(controller.point)
        scatter.chosen.connect(controller.go_to)
        scatter.lassoed.connect(controller.lasso)
        scatter.cleared.connect(self._clear)
        scatter.digit_pressed.connect(controller.label_by_key)
        scatter.lasso_wanted.connect(self._use_lasso)
        self.lasso.toggled.connect(scatter.use_lasso)
        self.whole.clicked.connect(scatter.show_all)
        self.by.activated.connect(self._use_colours)
        self.legend.kinds.kind_chosen.connect(self.select_kind)

    def changeEvent(self, event: QEvent | None) -> None:
        """Mix the colours of what is not selected with another theme's background."""
        super().changeEvent(event)
        kinds = QEvent.Type.PaletteChange, QEvent.Type.StyleChange
        if event is not None and event.type() in kinds and hasattr(self, "scatter"):
            self._show_colours()

    def showEvent(self, event: QShowEvent | None) -> None:
        """Show what has changed meanwhile."""
        super().showEvent(event)
        self._colours.refresh_if_stale()
        self._show_pointed()

    def show_atlas(self, is_other_map: bool) -> None:
        """Show the atlas.

        Parameters
        ----------
        is_other_map : bool
            Whether points have moved.
        """
        self._show_atlas(is_other_map)

    def select_kind(self, kind: int) -> None:
        """Select the points of a kind of the legend."""
        colouring = self._colours.colouring
        if colouring is not None and colouring.kinds is not None:
            self._controller.select(np.flatnonzero(colouring.kinds == kind))

    def _show_atlas(self, is_other_map: bool) -> None:
        atlas = self._controller.atlas
        for tool in (self.lasso, self.whole):
            tool.setVisible(atlas is not None)
        self._under.setVisible(atlas is not None)
        self.scatter.show_message("" if atlas is not None else _EMPTY)
        if atlas is not None and is_other_map:
            self.scatter.show_points(atlas.map, self._controller.tree)
        self._show_colouring()

    def _show_colouring(self) -> None:
        colouring = self._colours.colouring
        self.legend.show_colouring(colouring, self._colours.bar)
        self._show_colours()
        self._show_pointed()

    def _show_selection(self) -> None:
        """Show what is selected, also in the legend if it is one kind."""
        kinds, colouring = self.legend.kinds, self._colours.colouring
        row, selected = kinds.currentRow(), self._controller.selected
        if row >= 0 and colouring is not None and colouring.kinds is not None:
            members = np.flatnonzero(colouring.kinds == row)
            if not np.array_equal(members, selected):
                kinds.setCurrentRow(-1)
        self._show_colours()

    def _show_colours(self) -> None:
        colouring, atlas = self._colours.colouring, self._controller.atlas
        if colouring is None or atlas is None or len(colouring.colours) != len(atlas):
            return
        base = self.palette().color(QPalette.ColorRole.Base)
        background = base.red(), base.green(), base.blue()
        selected = self._controller.selected
        self.scatter.show_colours(
            dimmed(colouring.colours, selected, background), selected
        )

    def _use_colours(self, number: int) -> None:
        self._colours.use(CHOICES[number])

    def _use_lasso(self, on: bool) -> None:
        self.lasso.setChecked(on)

    def _clear(self) -> None:
        if len(self._controller.selected):
            self._controller.select(np.empty(0, np.intp))

    def _show_pointed(self) -> None:
        """Show what is under the pointer, on the map or on a slide."""
        if self._is_behind():
            return
        controller, point = self._controller, self._controller.pointed
        self.scatter.mark(point)
        if controller.atlas is None or point < 0:
            self._show_nothing()
            return
        self.place.setText(self._describe(point))
        self.picture.show()
        slide, row = controller.place_of(point)
        known, _ = controller.pictures.known(slide, row)
        if not known:
            self.picture.setPixmap(QPixmap())
        shown = while_alive(self._show_picture)
        controller.pictures.read(
            "pointed", [(slide, row)], lambda: shown(point), while_alive(self._failed)
        )

    def _is_behind(self) -> bool:
        """Return whether another dock covers this one: no picture is read for it."""
        window = self.window()
        return window is not None and window.isVisible() and not self.isVisible()

    def _show_nothing(self) -> None:
        self.picture.hide()
        self.picture.setPixmap(QPixmap())
        self.place.setText("" if self._controller.atlas is None else _HINT)

    def _show_picture(self, point: int) -> None:
        controller = self._controller
        if controller.atlas is None or point != controller.pointed:
            return
        _, pixels = controller.pictures.known(*controller.place_of(point))
        if pixels is None:
            self.picture.setText("not\nreadable")
            return
        side = round(THUMBNAIL_PX * self.devicePixelRatioF())
        picture = QPixmap.fromImage(image_of(pixels)).scaled(
            side,
            side,
            Qt.AspectRatioMode.KeepAspectRatio,
            Qt.TransformationMode.SmoothTransformation,
        )
        picture.setDevicePixelRatio(self.devicePixelRatioF())
        self.picture.setPixmap(picture)

    def _failed(self, problem: str) -> None:
        if self._controller.pointed >= 0:
            self.picture.setPixmap(QPixmap())
            self.place.setText(f"{self.place.text()}\nNo picture: {problem}")

    def _describe(self, point: int) -> str:
        """Return slide, place, cluster and colour of a point."""
        atlas, colours = self._controller.atlas, self._colours
        assert atlas is not None
        slide, row = self._controller.place_of(point)
        x, y = slide.grid.centres[row]
        width, height = slide.grid.slide["mpp"]
        lines = [
            slide.name,
            f"x {x * width / 1000:.2f}, y {y * height / 1000:.2f} mm",
            f"cluster {atlas.clusters[point] + 1}",
        ]
        colouring = colours.colouring
        if colouring is not None and colours.by in ("class", "label"):
            kind = -1 if colouring.kinds is None else int(colouring.kinds[point])
            lines.append(
                colouring.categories[kind].name if kind >= 0 else f"no {colours.by}"
            )
        values = colours.values
        if values is not None and np.isfinite(values[point]):
            lines.append(f"{colours.by} {values[point]:.3f}")
        return "\n".join(lines)


def _weak(method: Callable[[], bool]) -> Callable[[], bool]:
    """Return a function that does not keep the method's widget; False without it."""
    reference = WeakMethod(method)

    def call() -> bool:
        live = reference()
        try:
            return live is not None and live()
        except RuntimeError:
            # Qt has deleted the widget.
            return False

    return call


def _tool(text: str, tip: str) -> QToolButton:
    button = QToolButton()
    button.setText(text)
    button.setToolTip(tip)
    button.setAccessibleDescription(tip)
    return button
