"""What all tests share: a quiet, small machine, and real slides where there are any."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

# Before torch, Qt and napari are imported: they read these once, at import.
_PARALLEL = "PYTEST_XDIST_WORKER" in os.environ
_scratch = Path(tempfile.mkdtemp(prefix="napari-mcm-tests-"))
atexit.register(shutil.rmtree, _scratch, ignore_errors=True)
os.environ["NAPARI_CONFIG"] = str(_scratch / "settings.yaml")
os.environ["NAPARI_MCM_CACHE"] = str(_scratch / "cache")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "agg")
# The same precision on every machine; tests of `auto` itself set it as they need it.
os.environ.setdefault("NAPARI_MCM_AUTO_PRECISION", "float32")
# Beside others, a process of the tests has a core to itself.
os.environ["OMP_NUM_THREADS"] = "1" if _PARALLEL else "2"


def _start_display() -> None:
    """Give this process a display of its own: windows of others take the focus."""
    reader, writer = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1920x1080x24"],
        pass_fds=(writer,),
        stderr=subprocess.DEVNULL,
    )
    atexit.register(server.terminate)
    os.close(writer)
    with os.fdopen(reader) as answer:
        os.environ["DISPLAY"] = f":{answer.readline().strip()}"
    os.environ.pop("XAUTHORITY", None)


if _PARALLEL and shutil.which("Xvfb"):
    _start_display()


def pytest_collection_finish() -> None:
    """Spare the garbage collector what was imported: a million objects, each time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)


def pytest_sessionfinish() -> None:
    """Let what was imported be collected as the process ends."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _same_threads() -> Iterator[None]:
    """Let no test change with how many threads those after it compute."""
    before = sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None
    yield
    if before is not None:
        sys.modules["torch"].set_num_threads(before)


@pytest.fixture
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare at float32's tolerance: `auto` is float32, however the tests are run."""
    monkeypatch.setenv("NAPARI_MCM_AUTO_PRECISION", "float32")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; its slides lie in `slides`, a folder a source."""
    given = os.environ.get("NAPARI_MCM_DATA")
    folder = Path(given) if given else REPOSITORY.parent / "shared" / "data"
    if not (folder / "slides").is_dir():
        pytest.skip(
            f"no real slides: {folder / 'slides'} is missing; name the folder that "
            "holds `slides` in the environment variable NAPARI_MCM_DATA"
        )
    return folder
