"""A preview of the patch grid, which follows the tissue mask and the options."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from psygnal import Signal
from qtpy.QtWidgets import QGroupBox, QPushButton, QVBoxLayout

from napari_mcm.core.errors import GridError
from napari_mcm.core.grid import GridConfig, PatchGrid, common_mpp, make_grid
from napari_mcm.viewer.app.background import BackgroundWorker
from napari_mcm.viewer.app.session import Session
from napari_mcm.viewer.layers.metadata import slide_of
from napari_mcm.viewer.layers.overlays import add_grid, chequered, redraw_grid
from napari_mcm.viewer.layers.timers import single_shot
from napari_mcm.viewer.qt.helpers import connect, note, set_enabled_with_reason
from napari_mcm.viewer.qt.patch_fields import PatchFields

if TYPE_CHECKING:
    from napari.layers import Image, Layer
    from numpy.typing import NDArray

    from napari_mcm.core.slides import Slide
    from napari_mcm.core.tissue import TissueMask


WAIT_MS = 50
"""Delay from a change to the new grid, in milliseconds."""

MOST_PLACES = 4_000_000
"""Most squares of a grid to draw; more would be too small to see."""


class GridPreview:
    """Shows the patch grid of the active slide, and updates it when it changes.

    Parameters
    ----------
    session : Session
        Session of the viewer.

    Attributes
    ----------
    grid : PatchGrid or None
        The grid that is shown.
    problem : str
        Reason why no grid can be laid; empty otherwise.
    on : bool
        Whether the preview is switched on.
    changed : Signal
        Emitted when `grid` or `problem` changed.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        self._session = session
        self._layers: WeakKeyDictionary[Layer, Image] = WeakKeyDictionary()
        self._work = BackgroundWorker()
        self._timer = single_shot(WAIT_MS, self._lay)
        self.grid: PatchGrid | None = None
        self.problem = ""
        self.on = False

    def show(self, on: bool) -> None:
        """Switch the preview on or off."""
        self.on = on
        if on:
            self._lay()
        else:
            self._work.drop("grid")
            self._hide()
            self._set(None)

    def update(self) -> None:
        """Lay the grid again after a short delay, once for several changes."""
        if self.on:
            self._timer.start()

    def layer_of(self, slide: Layer) -> Image | None:
        """Return the layer of a slide's grid; None if it does not exist."""
        return self._session.layers.alive(self._layers.get(slide))

    def _lay(self) -> None:
        layer, config = self._session.slide, self._session.patches
        slide, editable = slide_of(layer), self._session.tissue.mask_of(layer)
        if not self.on or layer is None or slide is None or editable is None:
            self._work.drop("grid")
            self._hide()
            self._set(None)
            return
        mask = editable.mask
        self._work.submit(
            "grid",
            lambda: lay(slide, mask, config),
            lambda laid: self._show(layer, *laid),
            lambda problem: self._set(None, problem),
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
        self._set(grid)

    def _hide(self) -> None:
        for slide in list(self._layers):
            if (layer := self.layer_of(slide)) is not None:
                layer.visible = False

    def _set(self, grid: PatchGrid | None, problem: str = "") -> None:
        self.grid, self.problem = grid, problem
        self.changed.emit()


def lay(
    slide: Slide, mask: TissueMask, config: GridConfig
) -> tuple[PatchGrid, NDArray[np.float32]]:
    """Lay a patch grid, and draw its image.

    Parameters
    ----------
    slide : Slide
        An open slide with a known resolution.
    mask : TissueMask
        Tissue of the slide.
    config : GridConfig
        Resolution, size and minimum tissue fraction of patches.

    Returns
    -------
    grid : PatchGrid
        The grid.
    raster : ndarray of float32, shape (rows, columns)
        Its image, from :func:`~napari_mcm.viewer.layers.overlays.chequered`.

    Raises
    ------
    GridError
        If the slide is too coarse, too small for one patch, or has too many patches.
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
    """Return the number, area and size of the patches of a grid, as two lines."""
    area = len(grid) * (grid.patch_um / 1000) ** 2
    side = math.hypot(*grid.patch_size_level0) / math.sqrt(2)
    um = f"{grid.patch_um:,.4g}"
    return (
        f"{len(grid):,} patches of {um} × {um} µm, {area:,.3g} mm²\n"
        f"{grid.patch_size} px at {grid.mpp:.4g} µm/px, {side:,.4g} px of level 0"
    )


_SHOW = "Show the patch grid; it follows the mask and the fields above"


class GridPanel(QGroupBox):
    """The box with the options of patches and the preview of their grid.

    Parameters
    ----------
    session : Session
        Session of the viewer.
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
            connect(signal, self._update)
        connect(session.tissue.changed, self._update)
        connect(self.preview.changed, self.refresh)
        self.refresh()

    def _update(self) -> None:
        self.preview.update()
        self.refresh()

    def refresh(self) -> None:
        """Show the numbers of the grid, or the reason why there is none."""
        session, grid = self._session, self.preview.grid
        reason = "" if session.tissue.mask_of(session.slide) else "find tissue first"
        # A pressed button stays enabled for the next slide, so that it can be released.
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
