"""UMAP and Leiden as jobs: a process of its own computes them, and a cancel ends it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

import napari_mcm
from napari_mcm.core.atlas.neighbour_process import REDUCED, REQUEST, RESULT
from napari_mcm.core.errors import ConfigError, McmError
from napari_mcm.core.runtime.jobs import Job, Progress

_POLL_S = 0.1

_MODULES = {"umap": "umap", "leiden": "graspologic_native"}

_TITLES = {"umap": "Placing patches by UMAP", "leiden": "Finding clusters by Leiden"}


def is_installed(method: str) -> bool:
    """Return whether a method can be used here.

    Parameters
    ----------
    method : str
        Name of a map's or of clusters' method.

    Returns
    -------
    bool
        False for UMAP or Leiden without the extra ``atlas``.
    """
    module = _MODULES.get(method)
    return module is None or importlib.util.find_spec(module) is not None


def compute_apart(
    method: str, reduced: NDArray[np.float32], options: dict[str, Any]
) -> Job[NDArray[Any]]:
    """Compute UMAP or Leiden in a process of its own.

    Parameters
    ----------
    method : {"umap", "leiden"}
        What to compute.
    reduced : ndarray of float32, shape (N, K)
        Principal components of the patches.
    options : dict
        Options of the method; see :mod:`.neighbour_process`.

    Yields
    ------
    Progress
        Ten times per second. Closing the job ends the process at once.

    Returns
    -------
    ndarray, shape (N, 2) or (N,)
        Places on the map (float32), or a cluster per patch (int32).

    Raises
    ------
    ConfigError
        If the extra ``atlas`` is not installed.
    McmError
        If the process fails.
    """
    if not is_installed(method):
        raise ConfigError(
            f"{_TITLES[method].rsplit(' ', 1)[-1]} is not installed",
            hint='Run: pip install "napari-mcm[atlas]"',
        )
    with tempfile.TemporaryDirectory(prefix="napari-mcm-atlas-") as name:
        folder = Path(name)
        np.save(folder / REDUCED, reduced, allow_pickle=False)
        request = json.dumps({"method": method, **options})
        (folder / REQUEST).write_text(request, encoding="utf-8")
        yield from _run(folder, _TITLES[method])
        return np.asarray(np.load(folder / RESULT, allow_pickle=False))


def _run(folder: Path, title: str) -> Job[None]:
    module = "napari_mcm.core.atlas.neighbour_process"
    problems = (folder / "problems.txt").open("w+", encoding="utf-8", errors="replace")
    with problems:
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(folder)],
            stdout=subprocess.PIPE,
            stderr=problems,
            text=True,
            env=_environment(),
        )
        assert process.stdout is not None
        latest = [0, 0]
        reader = threading.Thread(
            target=_follow, args=(process.stdout, latest), daemon=True
        )
        reader.start()
        try:
            while True:
                try:
                    process.wait(_POLL_S)
                    break
                except subprocess.TimeoutExpired:
                    done, total = latest
                    yield Progress(title, done, total or None, "epochs")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            reader.join()
            process.stdout.close()
        if process.returncode:
            problems.seek(0)
            lines = problems.read().strip().splitlines()
            raise McmError(
                f"{title} failed: {lines[-1] if lines else 'no reason given'}",
                hint="Use fewer patches, or PCA and k-means",
            )


def _follow(lines: IO[str], latest: list[int]) -> None:
    """Note the last ``done/total`` that the process has printed."""
    for line in lines:
        done, _, total = line.strip().partition("/")
        if done.isdecimal() and total.isdecimal():
            latest[:] = int(done), int(total)


def _environment() -> dict[str, str]:
    """Return the variables of the process, which must find this package."""
    root = str(Path(napari_mcm.__file__).parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
