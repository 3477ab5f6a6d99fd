"""Tissue masks of the open slides: show, edit, save and reload them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from psygnal import Signal

from napari_mcm.core.tissue import TissueMask, read_mask, write_mask
from napari_mcm.viewer.app.background import BackgroundWorker
from napari_mcm.viewer.app.persistence import drawn_mask_path
from napari_mcm.viewer.layers.metadata import CORNER, place, slide_of
from napari_mcm.viewer.layers.overlays import add_tissue, prepare_labels, redraw_tissue
from napari_mcm.viewer.layers.timers import single_shot

if TYPE_CHECKING:
    from napari.layers import Labels, Layer

    from napari_mcm.core.slides import Slide
    from napari_mcm.viewer.layers.stack import LayerStack

CHECK_MS = 100
"""Delay after the last brush stroke until edits are read, in milliseconds."""
SAVE_MS = 1500
"""Delay after the last edit until the mask is saved, in milliseconds."""


@dataclass(eq=False)
class EditableMask:
    """The tissue mask of one slide, as a layer that the user can paint on.

    Attributes
    ----------
    layer : Labels
        Layer of the mask.
    mask : TissueMask
        Content of the layer when it was last read.
    drawn : bool
        Whether the user drew or edited it; False if it was found automatically.
    note : str
        Where it comes from or is saved, as text for the user.
    """

    layer: Labels
    mask: TissueMask
    drawn: bool
    note: str


class TissueController:
    """The tissue masks of all slides in one viewer.

    A mask that the user edits is saved beside its slide shortly after each stroke, and
    shown again when the slide is opened again.

    Parameters
    ----------
    layers : LayerStack
        Layers of the viewer.
    disk : BackgroundWorker
        Thread that reads and writes files.
    report_error : callable
        Called with a one-line message if a mask cannot be read or written.

    Attributes
    ----------
    changed : Signal
        Emitted when a mask or its note changed.
    painting_changed : Signal
        Emitted when a click may start or stop painting on a mask.
    """

    changed = Signal()
    painting_changed = Signal()

    def __init__(
        self,
        layers: LayerStack,
        disk: BackgroundWorker,
        report_error: Callable[[str], None],
    ) -> None:
        self._layers, self._disk, self._show_error = layers, disk, report_error
        self._masks: WeakKeyDictionary[Layer, EditableMask] = WeakKeyDictionary()
        self._unsaved: WeakKeyDictionary[Layer, EditableMask] = WeakKeyDictionary()
        self._check_timer = single_shot(CHECK_MS, self._read_edits)
        self._save_timer = single_shot(SAVE_MS, self.flush)
        layers.viewer.layers.events.removed.connect(self._removed)
        layers.viewer.layers.selection.events.active.connect(self._mode_changed)

    def mask_of(self, slide: Layer | None) -> EditableMask | None:
        """Return the mask of a slide; None if it has none."""
        return None if slide is None else self._masks.get(slide)

    def drawn_mask(self, slide: Layer | None) -> TissueMask | None:
        """Return the mask that the user drew on a slide; None if it is not drawn."""
        self._read_edits()
        editable = self.mask_of(slide)
        return editable.mask if editable is not None and editable.drawn else None

    def paints_on(self, slide: Layer | None) -> bool:
        """Return whether a click on the canvas paints on the mask of a slide."""
        editable, active = self.mask_of(slide), self._layers.active
        if editable is None or active is not editable.layer:
            return False
        return str(editable.layer.mode) != "pan_zoom"

    def show_found(self, layer: Layer, mask: TissueMask) -> None:
        """Show a mask that was found automatically.

        A drawing of the user that was saved earlier is renamed, not overwritten.

        Parameters
        ----------
        layer : Layer
            Layer of the slide; nothing happens if it was closed meanwhile.
        mask : TissueMask
            The mask.
        """
        slide = slide_of(layer)
        if slide is None or layer not in self._layers:
            return
        self.flush()
        self._show(layer, mask, drawn=False, note="as found")
        path = drawn_mask_path(slide)
        self._disk.submit(
            f"read {path}", lambda: _set_aside(path), self._note_earlier(layer), _ignore
        )

    def take_over(self, layer: Layer, mask: TissueMask, note: str) -> None:
        """Show a mask that was drawn on another slide, and save it like a drawing.

        A drawing of the user that was saved earlier is renamed, not overwritten.

        Parameters
        ----------
        layer : Layer
            Layer of the slide; nothing happens if it was closed meanwhile.
        mask : TissueMask
            The mask, as it lies on this slide.
        note : str
            Where it comes from, as text for the user.
        """
        slide = slide_of(layer)
        if slide is None or layer not in self._layers:
            return
        self.flush()
        path = drawn_mask_path(slide)

        def show(earlier: Path | None) -> None:
            if layer in self._layers:
                kept = f"; the earlier drawing is kept in {earlier}" if earlier else ""
                self._show(layer, mask, drawn=True, note=f"{note}{kept}")
                self._save_later(layer)

        self._disk.submit(
            f"read {path}", lambda: _set_aside(path), show, self._show_error
        )

    def place(self, slide: Layer) -> None:
        """Align the mask with its slide after the slide's resolution changed."""
        if (editable := self.mask_of(slide)) is not None:
            place(editable.layer, slide, CORNER, editable.mask.downsample)

    def load(self, layer: Layer, path: Path) -> None:
        """Load a mask from a file, and treat it like one that the user drew.

        Parameters
        ----------
        layer : Layer
            Layer of the slide.
        path : Path
            GeoJSON, or an image of the whole slide.
        """
        self._read(layer, path, f"loaded from {path.name}", own=False)

    def load_saved(self, layer: Layer) -> None:
        """Show the mask that the user drew on a slide earlier, if there is one."""
        slide = slide_of(layer)
        known = slide is not None and slide.stated_mpp is not None
        if slide is not None and known and layer not in self._masks:
            path = drawn_mask_path(slide)
            self._read(layer, path, f"drawn mask found: {path}", own=True)

    def save(self, layer: Layer, path: Path) -> None:
        """Write the mask of a slide to a file.

        Parameters
        ----------
        layer : Layer
            Layer of the slide.
        path : Path
            ``.geojson`` or ``.png``.
        """
        slide, editable = slide_of(layer), self.mask_of(layer)
        if slide is not None and editable is not None:
            self._read_edits()
            self._write(f"copy {path}", slide, editable, path)

    def flush(self) -> None:
        """Save unsaved edits now instead of after the delay; writing is in a thread."""
        self._read_edits()
        self._save_timer.stop()
        for layer, editable in list(self._unsaved.items()):
            if (slide := slide_of(layer)) is not None:
                path = drawn_mask_path(slide)
                self._write(f"save {path}", slide, editable, path)
        self._unsaved.clear()

    def _read(self, layer: Layer, path: Path, note: str, own: bool) -> None:
        slide = slide_of(layer)
        assert slide is not None

        def read() -> TissueMask | None:
            if own and not path.exists():
                return None
            prepare_labels()
            return read_mask(path, slide)

        def show(mask: TissueMask | None) -> None:
            if mask is not None and layer in self._layers:
                self._show(layer, mask, drawn=True, note=note)
                if not own:
                    self._save_later(layer)

        self._disk.submit(
            f"read {drawn_mask_path(slide)}", read, show, self._show_error
        )

    def _write(
        self, key: str, slide: Slide, editable: EditableMask, path: Path
    ) -> None:
        mask = editable.mask

        def saved(_: object) -> None:
            editable.note = f"saved in {path}"
            self.changed.emit()

        self._disk.submit(
            key, lambda: write_mask(path, mask, slide), saved, self._show_error
        )

    def _show(self, slide: Layer, mask: TissueMask, drawn: bool, note: str) -> None:
        editable = self._masks.get(slide)
        if editable is None:
            layer = add_tissue(self._layers, slide, mask)
            # Three events, because each covers other edits: strokes and fills, new data,
            # and undo or redo, which only redraw.
            for event in (layer.events.paint, layer.events.data, layer.events.set_data):
                event.connect(self._painted)
            layer.events.mode.connect(self._mode_changed)
            self._masks[slide] = EditableMask(layer, mask, drawn, note)
        else:
            editable.mask, editable.drawn, editable.note = mask, drawn, note
            redraw_tissue(slide, editable.layer, mask)
        self.changed.emit()

    def _mode_changed(self, _event: Any) -> None:
        self.painting_changed.emit()

    def _painted(self, _event: Any) -> None:
        self._check_timer.start()

    def _read_edits(self) -> None:
        """Read the layers, and mark masks that changed as drawn and unsaved."""
        self._check_timer.stop()
        for slide, editable in list(self._masks.items()):
            now = np.asarray(editable.layer.data) != 0
            if np.array_equal(now, editable.mask.mask):
                continue
            editable.mask = TissueMask(now, editable.mask.downsample, "drawn")
            editable.drawn, editable.note = True, "edited"
            self._save_later(slide)
            self.changed.emit()

    def _save_later(self, slide: Layer) -> None:
        self._unsaved[slide] = self._masks[slide]
        self._save_timer.start()

    def _removed(self, event: Any) -> None:
        """Forget a mask whose layer or slide was deleted; its file stays."""
        removed = event.value
        for slide, editable in list(self._masks.items()):
            if removed in (slide, editable.layer):
                self.flush()
                del self._masks[slide]
                self.changed.emit()

    def _note_earlier(self, layer: Layer) -> Callable[[Path | None], None]:
        """Return a callback that mentions the renamed earlier drawing in the note."""

        def mention(earlier: Path | None) -> None:
            editable = self.mask_of(layer)
            if earlier is not None and editable is not None and not editable.drawn:
                editable.note = f"as found; the earlier drawing is kept in {earlier}"
                self.changed.emit()

        return mention


def _set_aside(path: Path) -> Path | None:
    """Rename the file of an earlier drawing; return its new path, None without one."""
    earlier = path.with_name(f"{path.stem}.before.geojson")
    with suppress(FileNotFoundError):
        return path.replace(earlier)
    return None


def _ignore(_problem: str) -> None:
    """Ignore that a file could not be renamed: the next save reports the cause."""
