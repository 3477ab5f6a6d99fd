"""Maps that took long to compute, kept in a folder beside the features."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.features.format import attributes_of
from napari_mcm.core.runtime.files import atomic_path

FOLDER = "atlas"
"""Name of the folder, in that of the first feature file."""


def place_of_map(files: Sequence[Path], options: dict[str, Any]) -> Path | None:
    """Return the file that a map is kept in.

    Parameters
    ----------
    files : sequence of Path
        Feature files that the map is of.
    options : dict
        Everything else that the map depends on, ready for JSON.

    Returns
    -------
    Path or None
        Its name changes with the slides, patches and encoder of the files, and with the
        options. None for files of other tools, which do not say what they hold.
    """
    identities = [
        [attributes_of(file).get("identity"), _created(file)] for file in files
    ]
    if any(identity is None for identity, _ in identities):
        return None
    told = json.dumps([identities, options], sort_keys=True, default=str)
    name = hashlib.blake2b(told.encode(), digest_size=10).hexdigest()
    return files[0].parent / FOLDER / f"{name}.map.safetensors"


def read_map(file: Path, count: int) -> NDArray[np.float32] | None:
    """Read a map.

    Parameters
    ----------
    file : Path
        From :func:`place_of_map`.
    count : int
        Number of patches.

    Returns
    -------
    ndarray of float32, shape (count, 2), or None
        None where there is no such file, or it is damaged.
    """
    from safetensors.numpy import load_file

    if not file.exists():
        return None
    try:
        found = load_file(file)["map"]
    # Its reader raises an error of its own for a damaged file.
    except Exception:  # noqa: BLE001 - it is computed again
        return None
    fits = found.shape == (count, 2) and found.dtype == np.float32
    return found if fits and np.isfinite(found).all() else None


def write_map(file: Path, placed: NDArray[np.float32]) -> None:
    """Write a map atomically.

    Parameters
    ----------
    file : Path
        From :func:`place_of_map`.
    placed : ndarray of float32, shape (N, 2)
        The map.

    Raises
    ------
    McmError
        If it cannot be written.
    """
    from safetensors.numpy import save_file

    with atomic_path(file) as part:
        save_file({"map": np.ascontiguousarray(placed)}, part)


def _created(file: Path) -> Any:
    """Return when features were made: they may be replaced by others of one identity."""
    provenance = attributes_of(file).get("provenance")
    return provenance.get("created") if isinstance(provenance, dict) else None
