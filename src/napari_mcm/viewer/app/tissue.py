"""The tissue of the open slides: found, drawn on, saved, and taken up again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_mcm.core.tissue import TissueMask, read_mask, write_mask
from napari_mcm.viewer.app.background import Background
from napari_mcm.viewer.app.persistence import drawn_mask_path
from napari_mcm.viewer.layers.metadata import CORNER, place, slide_of
from napari_mcm.viewer.layers.overlays import add_tissue, redraw_tissue, warm_up

if TYPE_CHECKING:
    from napari.layers import Labels, Layer

    from napari_mcm.core.slides import Slide
    from napari_mcm.viewer.layers.stack import LayerStack

LOOK_MS = 100
SAVE_MS = 1500
"""So long after the last stroke a drawn mask is looked at, and saved."""


@dataclass(eq=False)
class Drawing:
    """The tissue mask of one slide.

    Attributes
    ----------
    layer : Labels
        Where it is painted on.
    mask : TissueMask
        What the layer showed when it was last looked at.
    drawn : bool
        Whether a person edited it; False for a mask as it was found.
    note : str
        Where it came from, or is kept, for people.
    """

    layer: Labels
    mask: TissueMask
    drawn: bool
    note: str


class TissueController:
    """Masks of all slides in one viewer.

    A mask that was drawn on is written beside its slide shortly after each stroke, and
    taken up again with the slide.

    Parameters
    ----------
    layers : LayerStack
        Those of the viewer.
    disk : Background
        The thread that reads and writes files.
    report_error : callable
        Told one line when a mask cannot be read or written.

    Attributes
    ----------
    changed : Signal
        A mask, or what is known of it, is another one.
    painting_changed : Signal
        A click may now paint on a mask, or no longer.
    """

    changed = Signal()
    painting_changed = Signal()

    def __init__(
        self, layers: LayerStack, disk: Background, report_error: Callable[[str], None]
    ) -> None:
        self._layers, self._disk, self._show_error = layers, disk, report_error
        self._drawings: WeakKeyDictionary[Layer, Drawing] = WeakKeyDictionary()
        self._unsaved: WeakKeyDictionary[Layer, Drawing] = WeakKeyDictionary()
        self._look_soon = _timer(LOOK_MS, self._look)
        self._save_soon = _timer(SAVE_MS, self.flush)
        layers.viewer.layers.events.removed.connect(self._removed)
        layers.viewer.layers.selection.events.active.connect(self._picked)

    def drawing(self, slide: Layer | None) -> Drawing | None:
        """Return the mask of a slide; None where there is none."""
        return None if slide is None else self._drawings.get(slide)

    def drawn_mask(self, slide: Layer | None) -> TissueMask | None:
        """Return what a person drew on a slide, as it is now; None where nobody did."""
        self._look()
        drawing = self.drawing(slide)
        return drawing.mask if drawing is not None and drawing.drawn else None

    def paints_on(self, slide: Layer | None) -> bool:
        """Return whether a click would paint on a slide's mask."""
        drawing, active = self.drawing(slide), self._layers.active
        if drawing is None or active is not drawing.layer:
            return False
        return str(drawing.layer.mode) != "pan_zoom"

    def show_found(self, layer: Layer, mask: TissueMask) -> None:
        """Show a mask that was searched for; on a slide closed meanwhile, nothing."""
        slide = slide_of(layer)
        if slide is None or layer not in self._layers:
            return
        self.flush()
        self._show(layer, mask, drawn=False, note="as found")
        path = drawn_mask_path(slide)
        self._disk.submit(
            f"read {path}", lambda: _put_aside(path), self._was_aside(layer), _say
        )

    def place(self, slide: Layer) -> None:
        """Put a mask where its slide lies, after the slide's resolution changed."""
        if (drawing := self.drawing(slide)) is not None:
            place(drawing.layer, slide, CORNER, drawing.mask.downsample)

    def load(self, layer: Layer, path: Path) -> None:
        """Read a mask from a file, show it, and keep it as drawn."""
        self._read(layer, path, f"loaded from {path.name}", own=False)

    def take_up(self, layer: Layer) -> None:
        """Show the mask that was drawn on a slide earlier, where there is one."""
        slide = slide_of(layer)
        known = slide is not None and slide.stated_mpp is not None
        if slide is not None and known and layer not in self._drawings:
            path = drawn_mask_path(slide)
            self._read(layer, path, f"drawn mask found: {path}", own=True)

    def save(self, layer: Layer, path: Path) -> None:
        """Write a slide's mask to a file of the user's choice."""
        slide, drawing = slide_of(layer), self.drawing(layer)
        if slide is not None and drawing is not None:
            self._look()
            self._write(f"copy {path}", slide, drawing, path)

    def flush(self) -> None:
        """Hand what was drawn to the disk's thread, without waiting for more."""
        self._look()
        self._save_soon.stop()
        for layer, drawing in list(self._unsaved.items()):
            if (slide := slide_of(layer)) is not None:
                path = drawn_mask_path(slide)
                self._write(f"save {path}", slide, drawing, path)
        self._unsaved.clear()

    def _read(self, layer: Layer, path: Path, note: str, own: bool) -> None:
        slide = slide_of(layer)
        assert slide is not None

        def read() -> TissueMask | None:
            if own and not path.exists():
                return None
            warm_up()
            return read_mask(path, slide)

        def show(mask: TissueMask | None) -> None:
            if mask is not None and layer in self._layers:
                self._show(layer, mask, drawn=True, note=note)
                if not own:
                    self._keep(layer)

        self._disk.submit(
            f"read {drawn_mask_path(slide)}", read, show, self._show_error
        )

    def _write(self, key: str, slide: Slide, drawing: Drawing, path: Path) -> None:
        mask = drawing.mask

        def saved(_: object) -> None:
            drawing.note = f"saved in {path}"
            self.changed.emit()

        self._disk.submit(
            key, lambda: write_mask(path, mask, slide), saved, self._show_error
        )

    def _show(self, slide: Layer, mask: TissueMask, drawn: bool, note: str) -> None:
        drawing = self._drawings.get(slide)
        if drawing is None:
            layer = add_tissue(self._layers, slide, mask)
            # Strokes and fills; whole pictures; undo and redo tell only of a redraw.
            for event in (layer.events.paint, layer.events.data, layer.events.set_data):
                event.connect(self._touched)
            layer.events.mode.connect(self._picked)
            self._drawings[slide] = Drawing(layer, mask, drawn, note)
        else:
            drawing.mask, drawing.drawn, drawing.note = mask, drawn, note
            redraw_tissue(slide, drawing.layer, mask)
        self.changed.emit()

    def _picked(self, _event: Any) -> None:
        self.painting_changed.emit()

    def _touched(self, _event: Any) -> None:
        self._look_soon.start()

    def _look(self) -> None:
        """See whether a mask was drawn on since the last time."""
        self._look_soon.stop()
        for slide, drawing in list(self._drawings.items()):
            now = np.asarray(drawing.layer.data) != 0
            if np.array_equal(now, drawing.mask.mask):
                continue
            drawing.mask = TissueMask(now, drawing.mask.downsample, "drawn")
            drawing.drawn, drawing.note = True, "edited"
            self._keep(slide)
            self.changed.emit()

    def _keep(self, slide: Layer) -> None:
        self._unsaved[slide] = self._drawings[slide]
        self._save_soon.start()

    def _removed(self, event: Any) -> None:
        """Let go of a mask whose layer was deleted; its file stays."""
        gone = event.value
        for slide, drawing in list(self._drawings.items()):
            if gone in (slide, drawing.layer):
                self.flush()
                del self._drawings[slide]
                self.changed.emit()

    def _was_aside(self, layer: Layer) -> Callable[[Path | None], None]:
        def tell(kept: Path | None) -> None:
            drawing = self.drawing(layer)
            if kept is not None and drawing is not None and not drawing.drawn:
                drawing.note = f"as found; the earlier drawing is kept in {kept}"
                self.changed.emit()

        return tell


def _put_aside(path: Path) -> Path | None:
    """Keep an older drawing under another name, out of the way of a new one."""
    kept = path.with_name(f"{path.stem}.before.geojson")
    with suppress(FileNotFoundError):
        return path.replace(kept)
    return None


def _say(_line: str) -> None:
    """Leave out that nothing could be put aside: the next save tells what is wrong."""


def _timer(interval: int, call: Callable[[], None]) -> QTimer:
    timer = QTimer()
    timer.setSingleShot(True)
    timer.setInterval(interval)
    timer.timeout.connect(call)
    return timer
