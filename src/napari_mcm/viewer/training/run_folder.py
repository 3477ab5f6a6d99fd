"""What the folder of a run is, looked at without PyTorch, which is slow to start."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class RunState:
    """What a folder is, before anything is done with it.

    Attributes
    ----------
    kind : {"free", "unfinished", "finished", "other"}
        Nothing in the way; a training to go on with; one that has ended; no place for one.
    text : str
        The same for people, in a line.
    """

    kind: Literal["free", "unfinished", "finished", "other"]
    text: str = ""


def run_state(folder: Path, keys: set[str], done: Callable[[Path], str]) -> RunState:
    """Tell whether a folder is free for a run, or what it holds.

    Parameters
    ----------
    folder : Path
        Which may not be there yet.
    keys : set of str
        What a configuration of this kind of run has.
    done : callable
        Says how far an unfinished run is; empty where nobody knows.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return RunState("free")
    if not folder.is_dir():
        return RunState("other", "Is a file: choose a folder.")
    if not (folder / "config.json").is_file():
        return RunState("free", "Holds other files; the run is put beside them.")
    if not keys <= set(read_config(folder)):
        return RunState("other", "Holds a run of another kind: choose another folder.")
    if (folder / "summary.json").is_file():
        return RunState("finished", "Holds a finished run: choose another, or show it.")
    how_far = done(folder)
    text = f"Holds an unfinished run, {how_far}." if how_far else ""
    return RunState("unfinished", text or "Holds an unfinished run.")


def read_config(folder: Path) -> dict[str, Any]:
    """Read the options of a run; empty where they cannot be read."""
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


PRETRAININGS, CLASSIFIERS, ABLATIONS = "mae runs", "classifiers", "ablations"
"""Kinds of runs as they are remembered."""
