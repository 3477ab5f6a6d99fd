"""Heavy modules are imported in a thread, with the garbage collector paused."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_mcm.core.runtime.jobs import Progress
from napari_mcm.viewer.app import imports
from napari_mcm.viewer.app.imports import import_in_background, import_modules
from napari_mcm.viewer.app.session import Session

MODULE = """
import gc, threading, time
thread, collecting = threading.get_ident(), gc.isenabled()
kept = [[] for _ in range(5000)]
while {slow} and not gate.is_set():
    time.sleep(0.005)
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of modules that can be imported, and are forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(imports, "_begun", set())
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder: Path, name: str, slow: bool = False) -> None:
    """Write a module that notes who imports it."""
    gate = "from gate_of_imports import gate\n" if slow else ""
    (folder / f"{name}.py").write_text(gate + MODULE.format(slow=slow))


def imported(*names: str) -> None:
    """Wait until modules are imported."""
    until = time.monotonic() + 20
    while not all(map(imports._is_imported, names)):
        assert time.monotonic() < until
        time.sleep(0.005)


def ended() -> None:
    """Wait until no thread imports."""
    for thread in threading.enumerate():
        if thread.name == "napari-mcm: imports":
            thread.join(20)


def test_another_thread_imports_them_without_collecting_garbage(package: Path) -> None:
    write(package, "first_of_imports")
    write(package, "second_of_imports")
    frozen = gc.get_freeze_count()
    import_in_background(("first_of_imports", "second_of_imports"))
    imported("first_of_imports", "second_of_imports")
    ended()
    for name in ("first_of_imports", "second_of_imports"):
        assert sys.modules[name].thread != threading.get_ident()
        assert not sys.modules[name].collecting
    assert gc.isenabled()
    assert gc.get_freeze_count() == frozen


@pytest.fixture
def thawed() -> Iterator[None]:
    """No objects that the tests have frozen."""
    gc.unfreeze()
    yield
    imports._frozen.clear()
    gc.freeze()


@pytest.mark.usefixtures("thawed")
def test_the_collector_is_spared_what_was_imported_until_a_layer_is_removed(
    package: Path,
) -> None:
    viewer_model = ViewerModel()
    layer = viewer_model.add_image(np.zeros((8, 8)))
    Session(viewer_model)
    write(package, "only_of_imports")
    import_in_background(("only_of_imports",))
    imported("only_of_imports")
    ended()
    kept = sys.modules["only_of_imports"].kept
    assert id(kept) not in map(id, gc.get_objects())
    viewer_model.layers.remove(layer)
    assert id(kept) in map(id, gc.get_objects()) and not gc.get_freeze_count()


def test_a_failed_import_leaves_the_collector_on(package: Path) -> None:
    (package / "bad_of_imports.py").write_text("raise ValueError('no')")
    import_in_background(("bad_of_imports",))
    ended()
    assert gc.isenabled()
    with pytest.raises(ValueError, match="no"):
        list(import_modules(("bad_of_imports",)))


def test_quitting_ends_an_import_between_two_modules(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quitting = threading.Event()
    monkeypatch.setattr(imports, "_quitting", quitting)
    (package / "gate_of_imports.py").write_text(
        "import threading\ngate = threading.Event()"
    )
    write(package, "slow_of_imports", slow=True)
    write(package, "late_of_imports")
    import_in_background(("slow_of_imports", "late_of_imports"))
    imported("gate_of_imports")
    imports.stop_importing()
    sys.modules["gate_of_imports"].gate.set()
    ended()
    assert "late_of_imports" not in sys.modules
    assert not any(isinstance(one, imports._Ender) for one in sys.meta_path)
    # Who is not in that thread imports what is wanted.
    assert __import__("late_of_imports").thread == threading.get_ident()


def test_a_job_waits_for_the_modules_and_yields_nothing_where_they_are(
    package: Path,
) -> None:
    write(package, "job_of_imports")
    job = import_modules(("job_of_imports",))
    events = list(job)
    assert all(isinstance(one, Progress) for one in events)
    assert sys.modules["job_of_imports"].thread != threading.get_ident()
    assert not list(import_modules(("job_of_imports",)))
