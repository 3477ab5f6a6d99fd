"""The teacher's features from an extraction, taken for those that a fine-tuning needs.

A teacher may be far larger than its student, and its features of these slides may be there
already, from another machine even. Where patches lie as in the extraction and are shown as
they are, they are the same patches: the teacher need not see them again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_mcm.core.encoders import Encoder
from napari_mcm.core.errors import ConfigError
from napari_mcm.core.features import FeatureSet, read_features
from napari_mcm.core.features.layout import (
    attributes_of,
    bytes_in_memory,
    feature_path,
    files_of,
)
from napari_mcm.core.grid import GridConfig
from napari_mcm.core.jobs import Job, Note, Progress
from napari_mcm.core.mcm.source import Source
from napari_mcm.core.mcm.teacher_cache import TeacherCache
from napari_mcm.core.mcm.windows import patch_key

MOST_MB = 4000
"""Memory for features from files; what is beyond is encoded anew."""


def take_from_files(
    cache: TeacherCache,
    folder: Path,
    teacher: Encoder,
    sources: Sequence[Source],
    grid: GridConfig,
    mpp: float,
) -> Job[None]:
    """Fill a cache from a folder of feature files.

    Parameters
    ----------
    cache : TeacherCache
        To fill.
    folder : Path
        What ``napari-mcm extract`` wrote.
    teacher : Encoder
        Only features of this very encoder are taken, in whatever precision.
    sources : sequence of Source
        Slides that are learned from.
    grid : GridConfig
        How patches are laid.
    mpp : float
        Their resolution, in microns per pixel.

    Yields
    ------
    Event
        Progress in slides; a note that says how many patches are known.

    Raises
    ------
    ConfigError
        If there is no such folder.
    FeatureError
        If a file that fits is incomplete or damaged.
    """
    if not folder.is_dir():
        raise ConfigError("no such folder of teacher features", folder)
    known, left_out = 0, []
    for number, source in enumerate(sources):
        yield Progress("Reading teacher features", number, len(sources), "slides")
        path = _find(folder, teacher, source, grid, mpp)
        if path is None:
            left_out.append(source.slide.name)
            continue
        origin = f"{path}:{teacher.precision}"
        if origin not in cache.taken:
            # Held against the bound before it is read, not after.
            if cache.known_bytes + bytes_in_memory(path) > MOST_MB * 10**6:
                left_out.append(source.slide.name)
                continue
            cache.taken[origin] = _take(cache, read_features(path), teacher, source)
        known += cache.taken[origin]
        yield Progress("Reading teacher features", number + 1, len(sources), "slides")
    yield Note(
        f"teacher features of {known:,} patches read from {folder} "
        f"({cache.known_bytes / 1e6:.0f} MB)"
    )
    if left_out:
        yield Note(
            f"none that fit for {', '.join(left_out)}: the teacher sees their patches",
            "warning",
        )


def _find(
    folder: Path, teacher: Encoder, source: Source, grid: GridConfig, mpp: float
) -> Path | None:
    slide = source.slide
    for path in files_of(feature_path(folder, slide)):
        about = attributes_of(path)
        laid = _part(about, "grid")
        fits = (
            _part(about, "identity").get("slide") == slide.fingerprint
            and _part(about, "identity").get("encoder") == teacher.fingerprint
            and (laid.get("patch_size"), laid.get("mpp")) == (grid.patch_size, mpp)
            and bool(_part(laid, "slide").get("icc")) == bool(slide.asked.icc)
        )
        if fits:
            return path
    return None


def _part(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = of.get(name)
    return found if isinstance(found, Mapping) else {}


def _take(
    cache: TeacherCache, found: FeatureSet, teacher: Encoder, source: Source
) -> int:
    rows = np.flatnonzero(found.ok)
    keys = [patch_key(source.slide, found.grid, int(row)) for row in rows]
    cache.take_in(teacher, keys, found.features[rows])
    return len(rows)
