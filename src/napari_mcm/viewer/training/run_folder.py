"""Read the state of a run folder, without PyTorch, which is slow to import."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from napari_mcm.core.runtime.run_verbs import verb_of_run


@dataclass(frozen=True)
class RunState:
    """Describe whether a folder can take a run.

    Attributes
    ----------
    kind : {"free", "unfinished", "finished", "other"}
        Free for a new run; a run to resume; a finished run; not usable for a run.
    text : str
        The same for people, in one line.
    """

    kind: Literal["free", "unfinished", "finished", "other"]
    text: str = ""


def run_state(folder: Path, verb: str, done: Callable[[Path], str]) -> RunState:
    """Tell whether a folder is free for a run, or what it holds.

    Parameters
    ----------
    folder : Path
        May be missing.
    verb : str
        Verb whose runs are wanted, such as ``"mil train"``.
    done : callable
        Returns how far an unfinished run has come; empty where that is unknown.

    Returns
    -------
    RunState
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return RunState("free")
    if not folder.is_dir():
        return RunState("other", "Is a file: choose a folder.")
    if not (folder / "config.json").is_file():
        return RunState("free", "Holds other files; the run is written beside them.")
    found = verb_of_run(folder)
    if found != verb:
        kind = f"of {found}" if found else "of another kind"
        return RunState("other", f"Holds a run {kind}: choose another folder.")
    if (folder / "summary.json").is_file():
        return RunState("finished", "Holds a finished run: choose another, or show it.")
    how_far = done(folder)
    text = f"Holds an unfinished run, {how_far}." if how_far else ""
    return RunState("unfinished", text or "Holds an unfinished run.")


def read_config(folder: Path) -> dict[str, Any]:
    """Read the options of a run; empty where they are unreadable."""
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


PRETRAININGS, CLASSIFIERS, ABLATIONS = "mae runs", "classifiers", "ablations"
MIL_RUNS = "mil runs"
"""Keys under which run folders are remembered."""
