"""What all tests share: a quiet, small machine, and real slides where there are any."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

# Before torch and napari are imported: they read these once, at import.
# Beside others, a process of the tests has a core to itself.
_threads = "1" if "PYTEST_XDIST_WORKER" in os.environ else "2"
os.environ.setdefault("OMP_NUM_THREADS", _threads)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "agg")
# The same precision on every machine; tests of `auto` itself set it as they need it.
os.environ.setdefault("NAPARI_MCM_AUTO_PRECISION", "float32")
if "NAPARI_CONFIG" not in os.environ:
    _settings = tempfile.mkdtemp(prefix="napari-mcm-tests-")
    atexit.register(shutil.rmtree, _settings, ignore_errors=True)
    os.environ["NAPARI_CONFIG"] = str(Path(_settings) / "settings.yaml")


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
