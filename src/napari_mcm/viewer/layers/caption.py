"""The line on the canvas that says what is seen: slide, encoder, context and query."""

from __future__ import annotations

from functools import partial
from textwrap import wrap
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from napari_mcm.viewer.layers.glyphs import prepare_glyphs
from napari_mcm.viewer.layers.metadata import owner_of

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.viewer.layers.stack import LayerStack

SEPARATOR, BESIDE = " · ", " | "
FONT_SIZE = 9.0
LETTER_PX, BAR_PX, LEAST_LETTERS = 8.0, 110.0, 20
"""Mean width of a letter, the width that belongs to the colour bar beside the caption,
and the fewest letters of a line."""


class Caption:
    """Writes what is seen in the upper left corner of the canvas.

    It is made from the layers that are visible, never from what was asked for.

    Parameters
    ----------
    stack : LayerStack
        Layers of the viewer.
    """

    def __init__(self, stack: LayerStack) -> None:
        self._stack = stack
        self._contents: WeakKeyDictionary[Layer, str] = WeakKeyDictionary()
        self._written = self._shown = ""
        self._on = True
        stack.view.changed.connect(self.refresh)
        stack.viewer.canvas.events.size.connect(self.refresh)

    @property
    def text(self) -> str:
        """What is seen now; empty without a slide. Of linked sections, both are named."""
        view = self._stack.view
        slide = view.current
        if slide is None or not view.is_shown(slide):
            return ""
        maps = [
            self._contents[layer]
            for layer in reversed(self._stack.viewer.layers)
            if layer.visible and layer in self._contents and owner_of(layer) is slide
        ]
        link = view.link
        halves = [one.name for one in link.pair] if link and link.is_on else []
        name = BESIDE.join(halves) or slide.name
        # Of maps that lie over each other, all are named: their colours mix.
        return SEPARATOR.join([name, *([" over ".join(maps)] if maps else [])])

    def _wrapped(self) -> str:
        """Return the text in lines that end before the colour bar."""
        link = self._stack.view.link
        halves = 2 if link is not None and link.is_on else 1
        width = self._stack.viewer.canvas.size[1] / halves - BAR_PX
        letters = max(int(width / LETTER_PX), LEAST_LETTERS)
        # Lines end between parts, unless one is longer than a line.
        parts = (
            part if len(part) > letters else part.replace(" ", "\N{NO-BREAK SPACE}")
            for part in self.text.split(SEPARATOR)
        )
        text = "\n".join(wrap(SEPARATOR.join(parts), letters, break_on_hyphens=False))
        return text.replace("\N{NO-BREAK SPACE}", " ")

    def describe(self, layer: Layer, content: str) -> None:
        """Set what a map shows.

        Parameters
        ----------
        layer : Layer
            Layer of the map.
        content : str
            Encoder, context and query; empty for a map without values.
        """
        if self._contents.get(layer, "") == content:
            return
        if content:
            self._contents[layer] = content
        else:
            self._contents.pop(layer, None)
        self.refresh()

    def content_of(self, layer: Layer) -> str:
        """Return what a map shows; empty for a map without values."""
        return self._contents.get(layer, "")

    def switch(self, on: bool) -> None:
        """Show or hide the caption."""
        self._on = on
        self.refresh()

    def refresh(self) -> None:
        """Write what is seen now, unless someone else uses napari's text."""
        overlay = self._stack.viewer.canvas.overlays.text
        if overlay.text not in ("", self._shown):
            return
        text = self._wrapped() if self._on else ""
        if text == self._written:
            return
        self._written = text
        letters = text.replace("\n", "")
        # Never the last slide's caption, while the letters of this one are prepared.
        overlay.visible = False
        prepare_glyphs(self._stack.viewer, letters, partial(self._write, text))

    def _write(self, text: str) -> None:
        overlay = self._stack.viewer.canvas.overlays.text
        if text != self._written or overlay.text not in ("", self._shown):
            return
        self._shown = overlay.text = text
        if text:
            overlay.position, overlay.font_size = "top_left", FONT_SIZE
            overlay.box = True
        overlay.visible = bool(text)
