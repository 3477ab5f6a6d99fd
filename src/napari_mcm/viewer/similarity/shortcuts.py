"""Keyboard shortcuts on the canvas for queries and maps.

The keys are in :mod:`napari_mcm.viewer.canvas.keys`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from napari_mcm.viewer.canvas.keys import HOLD, KEYS, as_html, with_key
from napari_mcm.viewer.layers.pointer import is_on_canvas

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_mcm.viewer.layers.mouse import ClickListener
    from napari_mcm.viewer.similarity.controller import SimilarityController

__all__ = ["HOLD", "KEYS", "KEY_HELP", "QueryShortcuts", "with_key"]

KEY_HELP = as_html()
"""All keys, as a table for a label."""


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
        self.on("undo", queries.undo)
        self.on("redo", queries.redo)
        self.on("clear", queries.clear)
        self.on("next", queries.show_next)
        self.on("difference", queries.switch_difference)
        self.on("middle", lambda: self._clicks.click_center("new"))
        self.on("middle_like", lambda: self._clicks.click_center("like"))
        self.on("middle_unlike", lambda: self._clicks.click_center("unlike"))

    def step_threshold(self, steps: int) -> None:
        """Move the threshold, as the keys do.

        Parameters
        ----------
        steps : int
            Number of steps, upwards positive.
        """
        for _ in range(abs(steps)):
            self.perform("higher" if steps > 0 else "lower")

    def perform(self, action: str) -> None:
        """Do what the key of an action does.

        Parameters
        ----------
        action : str
            A name in :data:`KEYS`.
        """
        if (call := self._actions.get(action)) is not None:
            call()

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
            # Escape in a dock only closes a list there.
            if action != "clear" or is_on_canvas(self._viewer):
                self.perform(action)

        return press
