"""The class under the cursor and its probability, in napari's status bar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

from napari_mcm.core.labelling import UNSURE
from napari_mcm.viewer.canvas.cursor_text import CursorText

if TYPE_CHECKING:
    from napari_mcm.viewer.labelling.context import LabellingContext


class CursorClass(CursorText):
    """Names the class of the patch under the cursor while the map of classes is seen.

    Parameters
    ----------
    context : LabellingContext
        Labels, classifier and maps of the viewer.
    """

    def __init__(self, context: LabellingContext) -> None:
        super().__init__(context.session.viewer, "Class under the cursor")
        self._context = ref(context)

    def _describe(self, world: Any) -> str:
        context = self._context()
        slide = None if context is None else context.session.slide
        if context is None or slide is None or world is None:
            return ""
        if not context.maps.visible:
            return ""
        found = context.classifier.classes
        # Side by side, the cursor may be over another slide.
        seen = context.session.slide_at(world)
        if found is None or seen is None or seen is not slide:
            return ""
        y, x = slide.world_to_data(tuple(world))[-2:]
        classes = found.classes
        patch = self._patch_at(classes.grid, float(x) + 0.5, float(y) + 0.5)
        if patch is None or classes.decided[patch] < UNSURE:
            return ""
        likely = classes.probabilities[patch]
        name = classes.names[int(likely.argmax())]
        unsure = "unsure, " if classes.decided[patch] == UNSURE else ""
        return f"{unsure}{name} {float(likely.max()):.2f} · {found.loaded.label}"
