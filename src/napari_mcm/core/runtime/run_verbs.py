"""The verb that a run directory belongs to, told from its files.

A run's ``config.json`` holds all options of its verb, and no two verbs have the same.
Runs of earlier versions are known by the same fields. Nothing here imports PyTorch.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path

from napari_mcm.core.errors import RunError

RUN_FIELDS: dict[str, frozenset[str]] = {
    "finetune": frozenset({"student", "teacher", "context"}),
    "mae pretrain": frozenset({"pictures", "masking", "recipe"}),
    "classify train": frozenset({"init", "fit", "labels"}),
    "ablate": frozenset({"arms", "percent", "fit"}),
    "mil train": frozenset({"aggregator", "split"}),
    "classify patches": frozenset({"classifier", "features", "unsure_below"}),
}
"""Fields of ``config.json`` that only the runs of a verb have together."""

ENCODER_VERBS = ("finetune", "mae pretrain", "classify train")
"""Verbs whose finished runs hold an encoder."""

# Verbs that write no config.json; the same command resumes them.
_FILES = {"study.json": "study", "compare.json": "mil compare"}
# A trial of an ablation lies in cells/ARM/FRACTION/SEED.
_TRIAL_DEPTH = 4


def verb_of_run(folder: Path) -> str:
    """Return the verb that made a run directory.

    Parameters
    ----------
    folder : Path
        The directory; it need not exist.

    Returns
    -------
    str
        Such as ``"mil train"``; empty where it holds no run, or one of an unknown verb.
    """
    folder = Path(folder)
    for file, verb in _FILES.items():
        if (folder / file).is_file():
            return verb
    found = _verb_of_config(folder)
    # A trial alone would be trained on all images instead of its fraction of them.
    if found == "classify train" and _ablation_of(folder) is not None:
        return "ablate"
    return found


def resume_command(folder: Path) -> str:
    """Return the command that resumes a run.

    Parameters
    ----------
    folder : Path
        The directory of the run.

    Returns
    -------
    str
        One line for the shell; empty for a run of an unknown verb.
    """
    verb = verb_of_run(folder)
    if verb == "ablate":
        root = _ablation_of(folder) or folder
        options = ["--config", str(root / "config.json"), "--out", str(root)]
    elif verb == "classify patches":
        options = ["--config", str(folder / "config.json"), "--out", str(folder)]
    elif verb == "study":
        options = [str(folder / "study.json"), "--out", str(folder)]
    elif verb in RUN_FIELDS:
        options = ["--resume", str(folder)]
    else:
        return ""
    words = ["napari-mcm", *verb.split(), *options]
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def check_run_verb(folder: Path, verb: str) -> None:
    """Check that a run directory is not of another verb.

    Parameters
    ----------
    folder : Path
        The directory.
    verb : str
        The verb whose run is wanted.

    Raises
    ------
    RunError
        If it is the run of another verb; the hint is the command that resumes it, or
        names the verb whose run is wanted.
    """
    found = verb_of_run(folder)
    if found in ("", verb):
        return
    finished = (Path(folder) / "summary.json").is_file()
    command = "" if finished else resume_command(folder)
    raise RunError(
        f"is a run of {found}, not of {verb}",
        folder,
        f"To resume it: {command}" if command else f"Name a run of {verb}",
    )


def _verb_of_config(folder: Path) -> str:
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    fields = set(content) if isinstance(content, dict) else set()
    return next((v for v, known in RUN_FIELDS.items() if known <= fields), "")


def _ablation_of(folder: Path) -> Path | None:
    """Return the ablation that a run is a trial of."""
    parents = list(Path(folder).resolve().parents)
    if len(parents) < _TRIAL_DEPTH or parents[_TRIAL_DEPTH - 2].name != "cells":
        return None
    root = parents[_TRIAL_DEPTH - 1]
    return root if _verb_of_config(root) == "ablate" else None
