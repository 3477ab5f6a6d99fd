"""The grid of patches as it would be laid now, over the mask as it is now."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from psygnal import Signal
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QGroupBox, QPushButton, QVBoxLayout

from napari_mcm.core.errors import GridError
from napari_mcm.core.grid import GridConfig, PatchGrid, common_mpp, make_grid
from napari_mcm.viewer.app.background import Background
from napari_mcm.viewer.app.session import Session
from napari_mcm.viewer.layers.metadata import slide_of
from napari_mcm.viewer.layers.overlays import add_grid, chequered, redraw_grid
from napari_mcm.viewer.qt.helpers import connect, note, set_enabled_with_reason
from napari_mcm.viewer.qt.patch_fields import PatchFields

if TYPE_CHECKING:
    from napari.layers import Image, Layer
    from numpy.typing import NDArray

    from napari_mcm.core.slides import Slide
    from napari_mcm.core.tissue import TissueMask


WAIT_MS = 50

MOST_PLACES = 4_000_000
"""More squares than this on a slide are not drawn: they would be dust on the screen."""


class GridPreview:
    """Lays the grid of the present slide anew, whenever what it depends on changes.

    Parameters
    ----------
    session : Session
        Of the viewer: its slide, mask and options of patches.

    Attributes
    ----------
    grid : PatchGrid or None
        The grid that is shown.
    problem : str
        Why none can be laid.
    changed : Signal
        One of both is another.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        self._session = session
        self._layers: WeakKeyDictionary[Layer, Image] = WeakKeyDictionary()
        self._work = Background()
        self._soon = QTimer()
        self._soon.setSingleShot(True)
        self._soon.setInterval(WAIT_MS)
        self._soon.timeout.connect(self._lay)
        self.grid: PatchGrid | None = None
        self.problem = ""
        self.on = False

    def show(self, on: bool) -> None:
        """Show the grid and keep it up to date, or take it away."""
        self.on = on
        if on:
            self._lay()
        else:
            self._work.drop("grid")
            self._hide()
            self._tell(None)

    def update(self) -> None:
        """Lay the grid anew, soon: several changes at a time are one."""
        if self.on:
            self._soon.start()

    def layer_of(self, slide: Layer) -> Image | None:
        """Give the layer of a slide's grid; None where there is none, or no longer."""
        return self._session.layers.alive(self._layers.get(slide))

    def _lay(self) -> None:
        layer, config = self._session.slide, self._session.patches
        slide, drawing = slide_of(layer), self._session.tissue.drawing(layer)
        if not self.on or layer is None or slide is None or drawing is None:
            self._work.drop("grid")
            self._hide()
            self._tell(None)
            return
        mask = drawing.mask
        self._work.submit(
            "grid",
            lambda: lay(slide, mask, config),
            lambda laid: self._show(layer, *laid),
            lambda problem: self._tell(None, problem),
        )

    def _show(self, slide: Layer, grid: PatchGrid, raster: NDArray[np.float32]) -> None:
        layers = self._session.layers
        if slide not in layers:
            return
        if (layer := self.layer_of(slide)) is None:
            self._layers[slide] = add_grid(layers, slide, grid, raster)
        else:
            redraw_grid(slide, layer, grid, raster)
            layer.visible = True
        self._tell(grid)

    def _hide(self) -> None:
        for slide in list(self._layers):
            if (layer := self.layer_of(slide)) is not None:
                layer.visible = False

    def _tell(self, grid: PatchGrid | None, problem: str = "") -> None:
        self.grid, self.problem = grid, problem
        self.changed.emit()


def lay(
    slide: Slide, mask: TissueMask, config: GridConfig
) -> tuple[PatchGrid, NDArray[np.float32]]:
    """Lay a grid, and make the picture of it.

    Raises
    ------
    GridError
        If the slide is too coarse, or holds too many patches, or none.
    """
    step = config.patch_size * common_mpp([slide], config)
    columns, rows = (
        int(n * m / step) for n, m in zip(slide.size, slide.mpp, strict=True)
    )
    if not columns or not rows:
        raise GridError(f"A patch of {step:,.4g} µm is larger than the slide")
    if columns * rows > MOST_PLACES:
        raise GridError(
            f"{columns:,} × {rows:,} patches are too many to show: use larger ones"
        )
    grid = make_grid(slide, mask, config)
    return grid, chequered(grid)


def describe(grid: PatchGrid) -> str:
    """Say how many patches a grid has and how large they are, in two lines."""
    area = len(grid) * (grid.patch_um / 1000) ** 2
    side = math.hypot(*grid.patch_size_level0) / math.sqrt(2)
    um = f"{grid.patch_um:,.4g}"
    return (
        f"{len(grid):,} patches of {um} × {um} µm, {area:,.3g} mm²\n"
        f"{grid.patch_size} px at {grid.mpp:.4g} µm/px, {side:,.4g} px of level 0"
    )


_SHOW = "Show the patch grid; it follows the mask and the fields above"


class GridPanel(QGroupBox):
    """Options of patches, and a preview that follows them.

    Parameters
    ----------
    session : Session
        Of the viewer.
    """

    def __init__(self, session: Session) -> None:
        super().__init__("Patches")
        self._session = session
        self.fields = PatchFields(session)
        self.preview = GridPreview(session)
        self.show_grid = QPushButton("Preview &grid")
        self.show_grid.setCheckable(True)
        self.show_grid.toggled.connect(self.preview.show)
        self.count = note()
        column = QVBoxLayout(self)
        column.addWidget(self.fields)
        column.addWidget(self.show_grid)
        column.addWidget(self.count)
        for signal in (session.slide_changed, session.patches_changed):
            connect(signal, self._relay)
        connect(session.tissue.changed, self._relay)
        connect(self.preview.changed, self.refresh)
        self.refresh()

    def _relay(self) -> None:
        self.preview.update()
        self.refresh()

    def refresh(self) -> None:
        """Show what the preview found."""
        session, grid = self._session, self.preview.grid
        reason = "" if session.tissue.drawing(session.slide) else "find tissue first"
        # Pressed, it stays so for the next slide: only then can it be released.
        set_enabled_with_reason(
            self.show_grid, _SHOW, "" if self.show_grid.isChecked() else reason
        )
        text = self.preview.problem or (describe(grid) if grid is not None else "")
        if grid is not None and not len(grid):
            text = (
                "No patches: none has enough tissue. Use smaller patches, or a lower "
                "minimum tissue fraction."
            )
        self.count.setText(text)
        self.count.setVisible(bool(text))
