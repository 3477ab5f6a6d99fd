"""Keyboard shortcuts on the canvas for queries and maps."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_mcm.viewer.layers.mouse import ClickListener
    from napari_mcm.viewer.similarity.controller import SimilarityController

HOLD = "Q"
"""Key that makes the map follow the cursor while it is held."""

KEYS = {
    "back": "Backspace",
    "clear": "Escape",
    "next": "N",
    "difference": "D",
    "region": "R",
    "lower": ",",
    "higher": ".",
    "area": "T",
    "result": "A",
    "best": "G",
    "previous": "Shift-G",
    "middle": "Enter",
    "middle_like": "Shift-Enter",
    "middle_unlike": "Control-Enter",
}
"""Name of an action to its key on the canvas."""


KEY_HELP = """<table cellspacing="4">
<tr><td>Click</td><td>find similar patches</td></tr>
<tr><td>Shift+click</td><td>add a similar example, ■</td></tr>
<tr><td>Ctrl+click</td><td>add a dissimilar example, ✕</td></tr>
<tr><td>Q, held</td><td>the map follows the cursor</td></tr>
<tr><td>Enter</td><td>click in the centre of the view; Shift, Ctrl as above</td></tr>
<tr><td>Backspace, Esc</td><td>remove the newest example, all</td></tr>
<tr><td>R</td><td>draw a region</td></tr>
<tr><td>N</td><td>next map</td></tr>
<tr><td>D</td><td>difference of two encoders</td></tr>
<tr><td>, and .</td><td>lower, higher threshold</td></tr>
<tr><td>T</td><td>layer of the area above it</td></tr>
<tr><td>A</td><td>add the area to the results table</td></tr>
<tr><td>G, Shift+G</td><td>go to the next most similar patch, back</td></tr>
</table>"""


def with_key(tip: str, action: str) -> str:
    """Return a tooltip that names the key of an action.

    Parameters
    ----------
    tip : str
        The tooltip.
    action : str
        A name in :data:`KEYS`.
    """
    key = KEYS[action].replace("Control", "Ctrl").replace("-", "+")
    return f"{tip} (key {key} on the slide)"


class QueryShortcuts:
    """Binds the keys in :data:`KEYS` and :data:`HOLD` to actions.

    Keys of the active layer, such as a mask that is edited, have priority.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer.
    clicks : ClickListener
        Follows the cursor while :data:`HOLD` is down, and clicks in the centre.
    """

    def __init__(self, viewer: ViewerModel, clicks: ClickListener) -> None:
        self._viewer, self._clicks = viewer, clicks
        self._actions: dict[str, Callable[[], None]] = {}
        self._bound: dict[Any, Any] = {}

    def on(self, action: str, call: Callable[[], None]) -> None:
        """Set the function of an action.

        Parameters
        ----------
        action : str
            A name in :data:`KEYS`.
        call : callable
            Called without arguments when the key is pressed.
        """
        self._actions[action] = call

    def bind(self, queries: SimilarityController) -> None:
        """Set the functions of the actions that change the query."""
        self.on("back", queries.undo)
        self.on("clear", queries.clear)
        self.on("next", queries.show_next)
        self.on("difference", queries.switch_difference)
        self.on("middle", lambda: self._clicks.click_center("new"))
        self.on("middle_like", lambda: self._clicks.click_center("like"))
        self.on("middle_unlike", lambda: self._clicks.click_center("unlike"))

    def attach(self) -> None:
        """Bind the keys in the viewer."""
        if self._bound:
            return
        before = dict(self._viewer.keymap)
        self._viewer.bind_key(HOLD, self._hold, overwrite=True)
        for action, key in KEYS.items():
            self._viewer.bind_key(key, self._press(action), overwrite=True)
        now = dict(self._viewer.keymap)
        self._bound = {k: v for k, v in now.items() if before.get(k) is not v}

    def detach(self) -> None:
        """Remove the keys from the viewer, unless they are bound to something else now."""
        for key, call in self._bound.items():
            if self._viewer.keymap.get(key) is call:
                del self._viewer.keymap[key]
        self._bound = {}

    def _hold(self, viewer: ViewerModel) -> Generator[None, None, None]:
        self._clicks.follow_cursor(True)
        yield
        self._clicks.follow_cursor(False)

    def _press(self, action: str) -> Callable[[ViewerModel], None]:
        def press(viewer: ViewerModel) -> None:
            if (call := self._actions.get(action)) is not None:
                call()

        return press
