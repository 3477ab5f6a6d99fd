"""Import the modules of a job in a thread, so that a cancel acts at once."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from napari_mcm.core.runtime.jobs import Job
from napari_mcm.core.runtime.threads import run_in_thread

LEARNING = ("torch", "torch._dynamo")
"""Modules of every training, which take seconds to import."""

LEARNING_TIMM = (*LEARNING, "timm")


def import_modules(modules: Sequence[str]) -> Job[Any]:
    """Import the modules that a job needs, and return the last one."""
    module = None
    for name in modules:
        module = yield from run_in_thread(
            "Starting PyTorch", importlib.import_module, name
        )
    return module
