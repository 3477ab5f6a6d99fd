"""The keyboard on the canvas: what each key does to the query."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari.components import ViewerModel

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


def with_key(tip: str, action: str) -> str:
    """Say in a tooltip which key does the same."""
    key = KEYS[action].replace("Control", "Ctrl").replace("-", "+")
    return f"{tip} (key {key} on the slide)"


class QueryKeys:
    """Listens to the keys of :data:`KEYS`, and to :data:`HOLD`.

    Keys of the layer that is edited, such as a mask, come first.

    Parameters
    ----------
    viewer : ViewerModel
        Whose canvas.
    held : callable
        Told whether :data:`HOLD` is down.
    """

    def __init__(self, viewer: ViewerModel, held: Callable[[bool], None]) -> None:
        self._viewer, self._held = viewer, held
        self._actions: dict[str, Callable[[], None]] = {}
        self._mine: dict[Any, Any] = {}

    def on(self, action: str, call: Callable[[], None]) -> None:
        """Say what an action does."""
        self._actions[action] = call

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
        self._held(True)
        yield
        self._held(False)

    def _press(self, action: str) -> Callable[[ViewerModel], None]:
        def press(viewer: ViewerModel) -> None:
            if (call := self._actions.get(action)) is not None:
                call()

        return press
