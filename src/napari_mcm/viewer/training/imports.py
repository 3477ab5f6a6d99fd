"""The jobs that the *MAE & cells* widget starts."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from napari_mcm.core.runtime.jobs import Job
from napari_mcm.core.runtime.threads import run_in_thread

if TYPE_CHECKING:
    pass


# Seconds to import: apart, so that a cancel acts at once.
LEARNING = ("torch", "torch._dynamo")
"""What every training imports; the second with the first optimiser."""


def import_modules(modules: Sequence[str]) -> Job[Any]:
    """Import what a job needs; gives the last of the modules."""
    module = None
    for name in modules:
        module = yield from run_in_thread(
            "Starting PyTorch", importlib.import_module, name
        )
    return module


# Seconds to import: apart, so that a cancel acts at once.
LEARNING_TIMM = (*LEARNING, "timm")
