"""Prepares the letters that the canvas shows, one after another.

napari draws each letter at 256 points when it is first shown, which takes 15 ms. A caption
of fifty letters would hold the window up for most of a second at the first click.
"""

from __future__ import annotations

import string
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from qtpy.QtCore import QTimer

LETTERS = string.digits + string.ascii_lowercase + " .,·×_-%:()/µ²+" + "ABCDEHSMNTLRPX"
"""Letters of captions and scales, those of every caption first."""

_PAUSE_MS = 15
"""Time between two letters, which belongs to the window."""

_running: set[GlyphPreparation] = set()


class GlyphPreparation:
    """Prepares letters while the window has nothing else to do, then ends.

    Parameters
    ----------
    fonts : object
        napari's description of the canvas's font.
    letters : str
        The letters.
    done : callable, optional
        Called once they are prepared.
    """

    def __init__(
        self,
        fonts: Any,
        letters: str = LETTERS,
        done: Callable[[], None] | None = None,
    ) -> None:
        self._font = fonts.font_manager.get_font(fonts.face)
        self._left, self._done = deque(dict.fromkeys(letters)), done
        self._timer = QTimer()
        self._timer.timeout.connect(self._next)
        self._timer.start(_PAUSE_MS)
        _running.add(self)

    def _next(self) -> None:
        if not self._left:
            self._timer.stop()
            _running.discard(self)
            if self._done is not None:
                self._done()
            return
        # A letter that the font lacks is left to napari.
        with suppress(Exception):
            self._font[self._left.popleft()]


def prepare_glyphs(
    viewer: Any, letters: str = LETTERS, done: Callable[[], None] | None = None
) -> None:
    """Begin to prepare letters of a viewer's canvas.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer.
    letters : str
        The letters.
    done : callable, optional
        Called once the canvas can show them without a pause: at once where they have
        been prepared, or where no window is seen.
    """
    window: Any = getattr(viewer, "window", None)
    canvas = getattr(getattr(window, "_qt_viewer", None), "canvas", None)
    fonts: Any = getattr(canvas, "_font_info", None)
    # napari does not promise these names. A window that is hidden is drawn by a script.
    if hasattr(fonts, "font_manager") and window._qt_window.isVisible():
        known = getattr(fonts.font_manager.get_font(fonts.face), "_glyphs", {})
        if new := "".join(letter for letter in letters if letter not in known):
            GlyphPreparation(fonts, new, done)
            return
    if done is not None:
        done()
