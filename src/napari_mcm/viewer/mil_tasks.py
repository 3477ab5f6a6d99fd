"""The trainings that the *MIL* widget starts, and how it finds slides."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mcm.core.background import apart
from napari_mcm.core.errors import ConfigError
from napari_mcm.core.jobs import Job
from napari_mcm.core.mil.cohort import slide_key
from napari_mcm.viewer.memory import BAGS, answered
from napari_mcm.viewer.run_folders import read_config

if TYPE_CHECKING:
    from napari_mcm.core.mil.config import MilConfig

# Seconds to import: apart, so that a cancel acts at once.
LEARNING = ("torch", "torch._dynamo")
"""What every training imports; the second with the first optimiser."""
_TRAINING = (
    *LEARNING,
    "sklearn.model_selection",
    "sklearn.metrics",
    "sklearn.calibration",
    "napari_mcm.core.mil.train",
)


def train_run(config: MilConfig) -> Job[Path]:
    """Train a new run; returns its folder."""
    train = yield from start(_TRAINING)
    with answered(BAGS, config, config.out):
        result = yield from train.train(config)
    return Path(result.run_dir)


def continue_run(folder: Path) -> Job[Path]:
    """Go on with a run; returns its folder."""
    train = yield from start(_TRAINING)
    with answered(BAGS, read_config(folder), folder):
        result = yield from train.resume_train(folder)
    return Path(result.run_dir)


def find_slide(name: str, known: Path | None, folder: Path | None) -> Path:
    """Find a slide's pixels: as the cohort's table has it, or by name in a folder.

    Raises
    ------
    ConfigError
        If there is none.
    """
    if known is not None and known.exists():
        return known
    if folder is None:
        raise ConfigError(f"where is slide {name}? Choose the folder of slides below")
    outer = _listed(folder)
    inner = [file for place in outer if place.is_dir() for file in _listed(place)]
    found = [file for file in (*outer, *inner) if slide_key(file.name) == name]
    if not found:
        hint = "Choose another folder"
        raise ConfigError(f"holds no slide called {name}", folder, hint)
    # A folder of that name may be a slide (DICOM), or hold the file that is.
    return min(found, key=Path.is_dir)


def _listed(folder: Path) -> Sequence[Path]:
    try:
        return sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    except OSError:
        return []


def start(modules: Sequence[str]) -> Job[Any]:
    """Import what a job needs; gives the last of the modules."""
    module = None
    for name in modules:
        module = yield from apart("Starting PyTorch", importlib.import_module, name)
    return module
