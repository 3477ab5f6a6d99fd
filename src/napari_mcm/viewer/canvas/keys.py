"""All keys and mouse actions on the canvas, in one table.

Bindings, tooltips, the list on the canvas and the documentation are made from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt

if TYPE_CHECKING:
    from qtpy.QtGui import QKeyEvent


@dataclass(frozen=True)
class CanvasKey:
    """A key, or what the mouse does.

    Attributes
    ----------
    action : str
        Identifies what it does; empty for the mouse.
    key : str
        The key as napari writes it, such as ``"Shift-G"``; for the mouse, words.
    does : str
        What it does, for users.
    """

    action: str
    key: str
    does: str

    @property
    def shown(self) -> str:
        """The key as users read it."""
        return self.key.replace("Control", "Ctrl").replace("-", "+")


HOLD = "Q"
"""Key that makes the map follow the cursor while it is held."""

LIST = "?"
"""Key that shows all keys."""

QUERY = (
    CanvasKey("", "Click", "find similar patches"),
    CanvasKey("", "Shift+click", "add a similar example, ■"),
    CanvasKey("", "Ctrl+click", "add a dissimilar example, ✕"),
    CanvasKey("follow", HOLD, "held: the map follows the cursor"),
    CanvasKey("middle", "Enter", "click in the centre of the view"),
    CanvasKey("middle_like", "Shift-Enter", "the same with Shift"),
    CanvasKey("middle_unlike", "Control-Enter", "the same with Ctrl"),
    CanvasKey("region", "R", "draw a region"),
    CanvasKey("clear", "Escape", "remove all examples"),
    CanvasKey("undo", "Control-Z", "undo the last change of examples or labels"),
    CanvasKey("back", "Backspace", "the same"),
    CanvasKey("redo", "Control-Shift-Z", "redo what was undone"),
)
MAPS = (
    CanvasKey("map", "M", "map on or off"),
    CanvasKey("next", "N", "next encoder's map"),
    CanvasKey("difference", "D", "difference of two encoders"),
    CanvasKey("lower", ",", "lower threshold"),
    CanvasKey("higher", ".", "higher threshold"),
    CanvasKey("", "Alt+wheel", "move the threshold"),
    CanvasKey("area", "T", "layer of the area above the threshold"),
    CanvasKey("result", "A", "add the area to the results table"),
)
VIEW = (
    CanvasKey("best", "G", "go to the next most similar patch"),
    CanvasKey("previous", "Shift-G", "go back"),
    CanvasKey("overview", "W", "overview map on or off"),
    CanvasKey("list", LIST, "this list"),
)
LASSO = "L"
"""Key that draws around patches to label."""

LABELS = (
    CanvasKey("", "1 … 9", "label the patch under the pointer, or the lasso's region"),
    CanvasKey("", "Ctrl+1 … 9", "label the area above the threshold"),
    CanvasKey("unlabel", "0", "take the label from it"),
    CanvasKey("lasso", LASSO, "draw a lasso around patches to label"),
    CanvasKey("", "Enter or Space", "while labelling next: agree, or skip; Esc ends"),
)
GROUPS = {"Query": QUERY, "Map": MAPS, "Labels": LABELS, "View": VIEW}
"""Title of a group to its keys."""

KEYS = {
    one.action: one.key
    for group in (QUERY, MAPS, VIEW)
    for one in group
    if one.action and one.action not in ("follow", "list")
}
"""Name of an action to its key on the canvas."""

_ONE_LINE = 'style="white-space: nowrap"'

DIGITS = "0123456789"
"""Keys of classes, and the one that removes a label."""


def with_key(tip: str, *actions: str) -> str:
    """Return a tooltip that names the key of an action, or all of its keys.

    Parameters
    ----------
    tip : str
        The tooltip.
    *actions : str
        Names in :data:`KEYS`.
    """
    shown = " or ".join(CanvasKey("", KEYS[one], "").shown for one in actions)
    return f"{tip} ({'keys' if len(actions) > 1 else 'key'} {shown} on the slide)"


def as_html(groups: Sequence[str] = tuple(GROUPS)) -> str:
    """Return groups of keys as a table for a label.

    Parameters
    ----------
    groups : sequence of str
        Titles in :data:`GROUPS`.
    """
    rows = [
        row
        for title in groups
        for row in (
            f'<tr><td colspan="2"><b>{title}</b></td></tr>',
            *(
                f"<tr><td {_ONE_LINE}>{k.shown}&nbsp;</td><td>{k.does}</td></tr>"
                for k in GROUPS[title]
            ),
        )
    ]
    return f'<table cellspacing="3">{"".join(rows)}</table>'


def as_markdown() -> str:
    """Return all keys as the table in ``docs/viewer.md``."""
    lines = ["| key | does |", "|---|---|"]
    for group in GROUPS.values():
        lines += [f"| {one.shown} | {one.does} |" for one in group]
    return "\n".join(lines)


_SPECIAL = {
    "Enter": (Qt.Key.Key_Return, Qt.Key.Key_Enter),
    "Backspace": (Qt.Key.Key_Backspace,),
    "Escape": (Qt.Key.Key_Escape,),
}
_MODIFIERS = {
    "Shift": Qt.KeyboardModifier.ShiftModifier,
    "Control": Qt.KeyboardModifier.ControlModifier,
}
_ANY = (
    Qt.KeyboardModifier.ShiftModifier
    | Qt.KeyboardModifier.ControlModifier
    | Qt.KeyboardModifier.AltModifier
    | Qt.KeyboardModifier.MetaModifier
)


def is_canvas_key(event: QKeyEvent) -> bool:
    """Return whether a key is one of the table.

    Parameters
    ----------
    event : QKeyEvent
        A press or release of a key.
    """
    of_area = (f"Control-{digit}" for digit in DIGITS[1:])
    others = (HOLD, LIST, LASSO, *DIGITS, *of_area)
    return any(_is(event, key) for key in (*KEYS.values(), *others))


def area_digit_of(event: QKeyEvent) -> int | None:
    """Return the digit, 1 to 9, of a key with Ctrl and nothing else; None for others.

    Parameters
    ----------
    event : QKeyEvent
        A press or release of a key.
    """
    found = (int(digit) for digit in DIGITS[1:] if _is(event, f"Control-{digit}"))
    return next(found, None)


def digit_of(event: QKeyEvent) -> int | None:
    """Return the digit of a key without Shift, Ctrl or Alt; None for other keys.

    Parameters
    ----------
    event : QKeyEvent
        A press or release of a key.
    """
    text = event.text()
    # Of the number pad, too; on some keyboards digits need Shift.
    others = _ANY & ~Qt.KeyboardModifier.ShiftModifier
    if len(text) == 1 and text in DIGITS and not event.modifiers() & others:
        return int(text)
    return None


def _is(event: QKeyEvent, key: str) -> bool:
    *names, last = key.split("-")
    held = event.modifiers() & _ANY
    if not last.isalnum():
        # Which keys give such a sign, and whether with Shift, depends on the keyboard.
        shift = Qt.KeyboardModifier.ShiftModifier
        return event.text() == last and held in (shift, held & ~_ANY)
    wanted = Qt.KeyboardModifier.NoModifier
    for name in names:
        wanted |= _MODIFIERS[name]
    codes = _SPECIAL.get(last) or (Qt.Key(ord(last)),)
    return held == wanted and event.key() in codes
