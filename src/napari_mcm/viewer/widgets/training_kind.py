"""What tells one kind of training from another where it is started."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from napari_mcm.core.command import Command
from napari_mcm.viewer.run_folders import RunState


class TaskForm(Protocol):
    """What a form of a training offers."""

    changed: Any

    def config(self, out: Path | None = None) -> Any:
        """Give what the form says, with the run's folder."""

    def beside(self) -> Path | None:
        """Give a path beside which runs go."""

    def missing(self) -> str:
        """Say what is still to be chosen; empty where nothing is."""


@dataclass(frozen=True)
class Kind:
    """What is trained.

    Attributes
    ----------
    verb : str
        Of the command line.
    button, tip : str
        What starts it, and what that does.
    folder, holds : str
        What a run's folder is called, and what goes into it.
    recent : str
        Under which its runs are remembered.
    state_of : callable
        Tells what a folder is.
    command : callable
        Gives a configuration as a command.
    resume : callable or None
        Gives the command that goes on with a run; None for the verb's ``--resume``.
    """

    verb: str
    button: str
    tip: str
    folder: str
    holds: str
    recent: str
    state_of: Callable[[Path], RunState]
    command: Callable[[Any], Command]
    resume: Callable[[Path], Command] | None = None
