"""Import heavy modules in a thread, without holding up the window.

PyTorch takes seconds to import. Three things make it slower beside a window than in a
fresh interpreter, or make the window stand still meanwhile:

- Python's garbage collector. Imports make half a million objects that all stay, and each
  collection looks at every one of them, with the interpreter's lock: a third of the time.
  It is paused here.
- Loading PyTorch's libraries, half a second with the interpreter's lock.
  :func:`_load_libraries` loads them without it.
- An animated progress bar: each frame redraws the whole window, with the canvas. The
  docks' bar stands still while nothing can be counted.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import importlib.util
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QApplication

from napari_mcm.core.runtime.jobs import Job
from napari_mcm.core.runtime.threads import run_in_thread
from napari_mcm.viewer.app.jobs import MAPPED, block_triton

DISPLAY = ("pandas",)
"""Modules that napari imports with the first layer of points, in the window's thread."""

EXTRACTING = ("torch", "timm", "napari_mcm.core.features.batch_extraction")
"""Modules that compute features."""

LEARNING = ("torch", "torch._dynamo")
"""Modules of every training."""

LEARNING_TIMM = (*LEARNING, "timm")

_DRIVERS = ("libgallium", "_dri.so", "libLLVM", "libGLX_nvidia", "libnvidia-glcore")
_LONGEST_WAIT_S = 5.0
"""Longest time in seconds that PyTorch waits for the window to be drawn."""

_log = logging.getLogger(__name__)
_importing = threading.RLock()
_begun: set[str] = set()
_quitting = threading.Event()
_frozen = threading.Event()


class _Abandoned(BaseException):
    """Ends an import between two modules, as the program quits."""


def import_modules(modules: Sequence[str], stage: str = "Starting PyTorch") -> Job[Any]:
    """Import the modules that a job needs, and return the last one.

    Parameters
    ----------
    modules : sequence of str
        Full names.
    stage : str
        What to report meanwhile.

    Yields
    ------
    Progress
        While modules are imported; nothing where all of them are.
    """
    if not all(map(_is_imported, modules)):
        yield from run_in_thread(stage, import_now, modules)
    return importlib.import_module(modules[-1])


def import_in_background(modules: Sequence[str]) -> None:
    """Begin to import modules in a thread of their own; return at once.

    Each module is begun once. What fails here fails again, with its message, where the
    module is used.

    Parameters
    ----------
    modules : sequence of str
        Full names, in their order.
    """
    left = [one for one in modules if not _is_imported(one) and one not in _begun]
    if not left:
        return
    _begun.update(left)
    if (application := QApplication.instance()) is not None:
        application.aboutToQuit.connect(stop_importing)

    def body() -> None:
        with suppress(_Abandoned):
            try:
                import_now(left)
            except Exception:  # noqa: BLE001 - reported by whoever uses the module
                _log.debug("Cannot import %s yet", ", ".join(left), exc_info=True)

    threading.Thread(target=body, name="napari-mcm: imports").start()


def stop_importing() -> None:
    """End imports in the background between two modules, as the program quits."""
    _quitting.set()


def _is_imported(name: str) -> bool:
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    return module is not None and not getattr(spec, "_initializing", False)


def import_now(modules: Sequence[str]) -> None:
    """Import modules in the calling thread, which is not the window's.

    One thread at a time imports; others wait.

    Parameters
    ----------
    modules : sequence of str
        Full names, in their order.
    """
    with _importing, _ending_early(), _collecting_later():
        for name in modules:
            if not _is_imported(name):
                if name.partition(".")[0] == "torch":
                    _prepare_pytorch()
                importlib.import_module(name)


@contextmanager
def _collecting_later() -> Iterator[None]:
    """Pause the garbage collector, and spare it what was made meanwhile."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        # The next collection would look at all of it, for half a second of a click.
        if _frozen.is_set() or not gc.get_freeze_count():
            gc.freeze()
            _frozen.set()
        gc.enable()


def collect_all_again() -> None:
    """Let the garbage collector see what imports have spared it.

    Layers that are removed are garbage that the collector must find; napari asks it to.
    """
    # Where others have frozen objects, these must stay frozen.
    if _frozen.is_set():
        _frozen.clear()
        gc.unfreeze()


class _Ender:
    """Raises :class:`_Abandoned` in one thread at its next import, once it must end."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def find_spec(self, *_: Any) -> None:
        """Find no module; see the class."""
        if _quitting.is_set() and threading.get_ident() == self._thread:
            raise _Abandoned


@contextmanager
def _ending_early() -> Iterator[None]:
    ender: Any = _Ender()
    sys.meta_path.insert(0, ender)
    try:
        yield
    finally:
        sys.meta_path.remove(ender)


def _prepare_pytorch() -> None:
    """Wait until the window is drawn, block Triton, and load PyTorch's libraries."""
    until = time.monotonic() + _LONGEST_WAIT_S
    # Whether Triton may be imported depends on the driver, see block_triton.
    while not _has_driver() and time.monotonic() < until and not _quitting.is_set():
        time.sleep(0.05)
    block_triton()
    with suppress(OSError, AttributeError, ValueError):
        _load_libraries()


def _has_driver() -> bool:
    if not MAPPED.exists():
        return True
    mapped = MAPPED.read_text(errors="replace")
    return any(name in mapped for name in _DRIVERS)


def _load_libraries() -> None:
    """Load PyTorch's libraries; a call through ctypes leaves the interpreter to others.

    An import would hold the interpreter's lock meanwhile. Order and flags are PyTorch's.
    """
    spec = None if sys.platform != "linux" else importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return
    load = ctypes.CDLL(None).dlopen
    load.restype, load.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_int)
    folder = Path(spec.origin).parent / "lib"
    for name, flags in (
        ("libtorch_global_deps.so", os.RTLD_GLOBAL | os.RTLD_LAZY),
        ("libtorch.so", os.RTLD_LOCAL | os.RTLD_NOW),
    ):
        if (file := folder / name).exists():
            load(os.fsencode(file), flags)
