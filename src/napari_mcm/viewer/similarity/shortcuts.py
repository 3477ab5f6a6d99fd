"""The keyboard on the canvas: what each key does to the query."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_mcm.viewer.layers.mouse import ClickListener
    from napari_mcm.viewer.similarity.controller import SimilarityController

HOLD = "Q"
"""While this key is held, the map follows the cursor."""

KEYS = {
    "back": "Backspace",
    "clear": "Escape",
    "next": "N",
    "difference": "D",
    "region": "R",
    "lower": ",",
    "higher": ".",
    "area": "T",
    "best": "G",
    "previous": "Shift-G",
    "middle": "Enter",
    "middle_like": "Shift-Enter",
    "middle_unlike": "Control-Enter",
}
"""What can be done, and the key on the canvas that does it."""


KEY_HELP = """<table cellspacing="4">
<tr><td>Click</td><td>find similar patches</td></tr>
<tr><td>Shift+click</td><td>add a similar example, ☐</td></tr>
<tr><td>Ctrl+click</td><td>add a dissimilar example, ✕</td></tr>
<tr><td>Q, held</td><td>the map follows the cursor</td></tr>
<tr><td>Enter</td><td>click in the middle of the view; Shift, Ctrl as above</td></tr>
<tr><td>Backspace, Esc</td><td>remove the newest example, all</td></tr>
<tr><td>R</td><td>draw a region</td></tr>
<tr><td>N</td><td>next map</td></tr>
<tr><td>D</td><td>difference of two encoders</td></tr>
<tr><td>, and .</td><td>lower, higher threshold</td></tr>
<tr><td>T</td><td>layer of the area above it</td></tr>
<tr><td>G, Shift+G</td><td>go to the next most similar patch, back</td></tr>
</table>"""


def with_key(tip: str, action: str) -> str:
    """Describe in a tooltip which key does the same."""
    key = KEYS[action].replace("Control", "Ctrl").replace("-", "+")
    return f"{tip} (key {key} on the slide)"


class QueryShortcuts:
    """Listens to the keys of :data:`KEYS`, and to :data:`HOLD`.

    Keys of the layer that is edited, such as a mask, come first.

    Parameters
    ----------
    viewer : ViewerModel
        Whose canvas.
    clicks : ClickListener
        Told whether :data:`HOLD` is down, and of the middle of the view.
    """

    def __init__(self, viewer: ViewerModel, clicks: ClickListener) -> None:
        self._viewer, self._clicks = viewer, clicks
        self._actions: dict[str, Callable[[], None]] = {}
        self._mine: dict[Any, Any] = {}

    def on(self, action: str, call: Callable[[], None]) -> None:
        """Describe what an action does."""
        self._actions[action] = call

    def bind(self, queries: SimilarityController) -> None:
        """Connect what the query itself can do."""
        self.on("back", queries.undo)
        self.on("clear", queries.clear)
        self.on("next", queries.show_next)
        self.on("difference", queries.switch_difference)
        self.on("middle", lambda: self._clicks.middle("new"))
        self.on("middle_like", lambda: self._clicks.middle("like"))
        self.on("middle_unlike", lambda: self._clicks.middle("unlike"))

    def attach(self) -> None:
        """Begin to listen."""
        if self._mine:
            return
        before = dict(self._viewer.keymap)
        self._viewer.bind_key(HOLD, self._hold, overwrite=True)
        for action, key in KEYS.items():
            self._viewer.bind_key(key, self._press(action), overwrite=True)
        now = dict(self._viewer.keymap)
        self._mine = {k: v for k, v in now.items() if before.get(k) is not v}

    def detach(self) -> None:
        """Stop listening."""
        for key, call in self._mine.items():
            if self._viewer.keymap.get(key) is call:
                del self._viewer.keymap[key]
        self._mine = {}

    def _hold(self, viewer: ViewerModel) -> Generator[None, None, None]:
        self._clicks.connect(True)
        yield
        self._clicks.connect(False)

    def _press(self, action: str) -> Callable[[ViewerModel], None]:
        def press(viewer: ViewerModel) -> None:
            if (call := self._actions.get(action)) is not None:
                call()

        return press
