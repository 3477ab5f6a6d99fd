"""Preview the context windows of a training, and one of them with its mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from psygnal import Signal

from napari_mcm.viewer.app.background import BackgroundWorker
from napari_mcm.viewer.app.session import Session
from napari_mcm.viewer.layers.manager import Overlay
from napari_mcm.viewer.layers.metadata import slide_of
from napari_mcm.viewer.layers.timers import single_shot

if TYPE_CHECKING:
    from napari.layers import Layer
    from numpy.typing import NDArray

    from napari_mcm.core.mcm.config import FinetuneConfig
    from napari_mcm.core.mcm.windows import WindowRef
    from napari_mcm.core.slides import Slide
    from napari_mcm.core.tissue import TissueConfig, TissueMask


WINDOWS, MASKED = "context windows", "masked window"

_WAIT_MS = 300

# Pale and dark: one of them is visible on any tissue.
_CHEQUERS = ((1.0, 0.85, 0.4, 0.35), (0.0, 0.0, 0.2, 0.5))

_HATCH = ((1.0, 1.0, 1.0, 0.9), (0.0, 0.0, 0.0, 0.9))

_CELL = 24
"""Side of a patch in the picture of masked patches, in pixels."""

_THUMB = 64

_LEAST_PX = 300.0


@dataclass(frozen=True, eq=False)
class Plan:
    """Hold the windows of one epoch on one slide.

    Attributes
    ----------
    config : FinetuneConfig
        Options that the windows follow from.
    refs : list of WindowRef
        Training windows in their order.
    held_out : int
        Number of held-out windows.
    overlay : Overlay or None
        Windows of the first placement, as a checkerboard.
    """

    config: FinetuneConfig
    refs: list[WindowRef]
    held_out: int
    overlay: Overlay | None

    def describe(self) -> str:
        """Return a summary in one line."""
        if not self.refs:
            return "No window has enough tissue: use a smaller one."
        side, grid = self.config.context.s, self.refs[0].grid
        text = (
            f"{len(self.refs):,} windows of {side}×{side} patches, "
            f"{side * grid.patch_um:,.4g}\u00a0µm wide, per epoch of this slide"
        )
        return text + (f"; {self.held_out:,} are held out." if self.held_out else ".")


@dataclass(frozen=True, eq=False)
class Shown:
    """Hold one window, as the student sees it.

    Attributes
    ----------
    overlay : Overlay
        Layer of the window; masked patches are hatched.
    picture : ndarray of uint8, shape (h, w, 3)
        Its patches with their augmentation, masked ones hatched.
    centre, side
        Center (x, y) and side, in level-0 pixels.
    text : str
        Summary for people.
    """

    overlay: Overlay
    picture: NDArray[np.uint8]
    centre: tuple[float, float]
    side: float
    text: str


class WindowPreview:
    """Place windows on the open slide in the background, and show them.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    make : callable
        Returns the current options; raises ValueError with one line.

    Attributes
    ----------
    changed : Signal
        Plan, window or problem has changed.
    """

    changed = Signal()

    def __init__(self, session: Session, make: Callable[[], FinetuneConfig]) -> None:
        self._session, self._make = session, make
        self._work = BackgroundWorker("context windows")
        self._masks: WeakKeyDictionary[Layer, tuple[TissueConfig, TissueMask]]
        self._masks = WeakKeyDictionary()
        self._soon = single_shot(_WAIT_MS, self._lay)
        self.on, self.busy = False, False
        self.plan: Plan | None = None
        self.shown: Shown | None = None
        self.problem = ""
        self._next = 0

    def show(self, on: bool) -> None:
        """Show windows and keep them up to date, or hide them."""
        self.on = on
        if on:
            self._lay()
            return
        self._soon.stop()
        self._work.drop("plan")
        self._work.drop("window")
        self._clear("")

    def update(self) -> None:
        """Place windows again, soon: several changes at a time count as one."""
        if self.on:
            self._soon.start()

    def another(self) -> None:
        """Show the next training window, and center the view on it."""
        layer, plan = self._session.slide, self.plan
        if layer is None or plan is None or not plan.refs:
            return
        ref = plan.refs[self._next % len(plan.refs)]
        self._next += 1
        self._work.submit(
            "window",
            lambda: masked_window(ref, plan.config),
            lambda shown: self._show_window(layer, shown),
            self._clear,
        )

    def wait(self) -> None:
        """Wait until the pending work is done."""
        self._work.wait()

    def _lay(self) -> None:
        layer = self._session.slide
        slide, known = slide_of(layer), self._known(layer)
        if layer is None or slide is None:
            self._clear("No slide is open.")
            return
        try:
            config = self._make()
        except ValueError as error:
            self._clear(str(error))
            return
        self.busy = True
        self.changed.emit()
        self._work.submit(
            "plan",
            lambda: _planned(slide, known, config),
            lambda found: self._show(layer, *found),
            self._clear,
        )

    def _known(self, layer: Layer | None) -> Any:
        """Return the drawn or found mask, with the options it was found with."""
        drawing = self._session.tissue.mask_of(layer)
        if drawing is not None:
            return None, drawing.mask
        return None if layer is None else self._masks.get(layer)

    def _show(
        self, layer: Layer, plan: Plan, found: tuple[TissueConfig, TissueMask]
    ) -> None:
        if not self.on or layer not in self._session.layers:
            return
        self._masks[layer] = found
        self.plan, self.problem, self.busy, self._next = plan, "", False, 0
        if plan.overlay is None:
            self._session.layers.hide(WINDOWS)
        else:
            self._session.layers.draw(layer, WINDOWS, plan.overlay)
        self.changed.emit()

    def _show_window(self, layer: Layer, shown: Shown | None) -> None:
        if shown is None or not self.on or layer not in self._session.layers:
            return
        self.shown = shown
        self._session.layers.draw(layer, MASKED, shown.overlay)
        self._session.layers.zoom_to(layer, shown.centre, shown.side, _LEAST_PX)
        self.changed.emit()

    def _clear(self, problem: str) -> None:
        for key in (WINDOWS, MASKED):
            self._session.layers.hide(key)
        self.plan, self.shown, self.problem, self.busy = None, None, problem, False
        self.changed.emit()


def _planned(
    slide: Slide, known: Any, config: FinetuneConfig
) -> tuple[Plan, tuple[TissueConfig, TissueMask]]:
    from napari_mcm.core.tissue import find_tissue

    mask = None
    if known is not None and known[0] in (None, config.tissue):
        mask = known[1]
    if mask is None:
        mask = find_tissue(slide, config.tissue)
    return plan_windows(slide, mask, config), (config.tissue, mask)


def plan_windows(slide: Slide, mask: TissueMask, config: FinetuneConfig) -> Plan:
    """Place the first epoch's windows on a slide, as the training does.

    Raises
    ------
    McmError
        If there is no patch, or all would be held out.
    """
    from napari_mcm.core.grid import common_mpp
    from napari_mcm.core.mcm.windows import Source, hold_out_blocks, plan_epoch

    sources = [Source(slide, mask)]
    mpp = common_mpp([slide], config.grid)
    held_out = hold_out_blocks(sources, config, mpp)
    refs = plan_epoch(sources, config, mpp, 0, held_out)
    return Plan(config, refs, len(held_out.refs), _chequered(refs, config.context.s))


def _chequered(refs: list[WindowRef], s: int) -> Overlay | None:
    first = [ref for ref in refs if ref.key[3] == 0]
    if not first:
        return None
    grid = first[0].grid
    values = np.full(len(grid), np.nan, np.float32)
    for ref in first:
        row, column = _corner(ref) // s
        values[ref.index[ref.index >= 0]] = (row + column) % 2
    return Overlay(
        WINDOWS, grid.raster(values), grid.origin, grid.patch_size_level0, _CHEQUERS
    )


def _corner(ref: WindowRef) -> NDArray[np.int64]:
    """Return the row and column of a window's upper left patch on the lattice."""
    places = np.argwhere(ref.index >= 0)
    patch = ref.index[tuple(places[0])]
    return np.asarray(ref.grid.lattice[patch], np.int64) - places[0]


def masked_window(ref: WindowRef, config: FinetuneConfig) -> Shown | None:
    """Read a window as the training does, and draw its masked patches."""
    from napari_mcm.core.mcm.window_pixels import read_window

    window = read_window(ref, config)
    if window is None:
        return None
    s, grid, corner = config.context.s, ref.grid, _corner(ref)
    cells = np.full((s, s, _CELL, _CELL), np.nan, np.float32)
    for row, column in grid.lattice[window.patches[window.masked]] - corner:
        cells[row, column] = _hatched(_CELL)
    raster = cells.swapaxes(1, 2).reshape(s * _CELL, s * _CELL)
    for edge in (raster[0], raster[-1], raster[:, 0], raster[:, -1]):
        edge[:] = 1
    step = np.asarray(grid.patch_size_level0)
    x, y = np.asarray(grid.origin) + corner[::-1] * step
    width, height = (float(side) for side in step)
    overlay = Overlay(
        MASKED, raster, (float(x), float(y)), (width / _CELL, height / _CELL), _HATCH
    )
    side = s * max(width, height)
    hidden, seen = int(window.masked.sum()), int(window.visible.sum())
    text = (
        f"{hidden} of {hidden + seen} patches are masked. Hatched: masked or no tissue."
        if hidden
        else "No patch is masked. Hatched: no tissue."
    )
    if config.context.context_mode == "foreign":
        text += " The student sees another window's patches."
    centre = float(x + s * width / 2), float(y + s * height / 2)
    return Shown(overlay, _mosaic(window, s), centre, side, text)


def _mosaic(window: Any, s: int) -> NDArray[np.uint8]:
    side = window.visible_pixels.shape[1]
    chosen = np.linspace(0, side - 1, _THUMB).astype(int)
    empty = np.where(np.isnan(_hatched(_THUMB)), 200, 110).astype(np.uint8)
    cells = np.repeat(empty[None, ..., None], 3, axis=3).repeat(s * s, axis=0)
    seen = np.flatnonzero(window.visible)
    cells[seen] = window.visible_pixels[:, chosen][:, :, chosen]
    tiled = cells.reshape(s, s, _THUMB, _THUMB, 3).swapaxes(1, 2)
    picture: NDArray[np.uint8] = tiled.reshape(s * _THUMB, s * _THUMB, 3).copy()
    return picture


def _hatched(side: int) -> NDArray[np.float32]:
    """Draw a square with diagonal lines, dark beside pale, transparent between."""
    across = np.add.outer(np.arange(side), np.arange(side)) % (side // 4)
    cell = np.full((side, side), np.nan, np.float32)
    cell[across == 0], cell[across == 1] = 1, 0
    return cell
