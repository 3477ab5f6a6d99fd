"""The teacher's features kept in memory, for runs that show it the same patches.

Within one run there is nothing to gain: each placement of the windows lies elsewhere. But
the arms of a study see the same windows for the same seed, and their teacher is the same;
and patches that lie as in an extraction may have been encoded by it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.encoders import Encoder
from napari_mcm.core.errors import ConfigError
from napari_mcm.core.features import FeatureSet, read_features
from napari_mcm.core.features.format import (
    attributes_of,
    bytes_in_memory,
    feature_path,
    files_of,
)
from napari_mcm.core.grid import GridConfig
from napari_mcm.core.mcm.windows import Source, patch_key
from napari_mcm.core.runtime.jobs import Job, Note, Progress

_Key = tuple[str, str, bytes]


class TeacherCache:
    """Features by teacher and patch, up to some memory; what was used last stays.

    Parameters
    ----------
    megabytes : int
        Bound of its memory for what is encoded here; 0 keeps nothing.

    Attributes
    ----------
    size, known_bytes : int
        Memory taken by what was encoded here, and by what was taken in.
    asked, found : int
        Patches asked for, and those whose features were there.
    taken : dict of str to int
        Patches taken in by where from, so that the next run of a study does not again.
    """

    def __init__(self, megabytes: int) -> None:
        self._limit = megabytes * 10**6
        self._features: OrderedDict[_Key, NDArray[np.float32]] = OrderedDict()
        self._known: dict[_Key, NDArray[np.float32]] = {}
        self.size = self.known_bytes = 0
        self.asked = self.found = 0
        self.taken: dict[str, int] = {}

    def encode(
        self, teacher: Encoder, pixels: NDArray[np.uint8], keys: Sequence[bytes]
    ) -> NDArray[np.float32]:
        """Encode patches that are not there; a patch's bits are the same either way.

        Parameters
        ----------
        teacher : Encoder
            Frozen.
        pixels : ndarray of uint8, shape (B, H, W, 3)
            Patches.
        keys : sequence of bytes
            What each patch shows: slide, place, resolution, turn. None at all where
            patches are recoloured at random: nothing is kept then.
        """
        if not keys or not (self._limit or self._known):
            return teacher.encode(pixels)
        names = [(teacher.fingerprint, teacher.precision, key) for key in keys]
        known = {name: self._take(name) for name in names}
        missing = [i for i, name in enumerate(names) if known[name] is None]
        self.asked += len(names)
        self.found += len(names) - len(missing)
        if missing:
            made = teacher.encode(pixels[missing])
            for i, features in zip(missing, made, strict=True):
                known[names[i]] = features
                self._keep(names[i], features.copy())
        return np.stack([f for name in names if (f := known[name]) is not None])

    def take_in(
        self, teacher: Encoder, keys: Sequence[bytes], features: NDArray[np.float32]
    ) -> None:
        """Keep features that are known from elsewhere; these are never dropped.

        Parameters
        ----------
        teacher : Encoder
            Whose they are.
        keys : sequence of bytes
            What each patch shows.
        features : ndarray of float32, shape (N, D)
            One row a key.
        """
        for key, row in zip(keys, features, strict=True):
            name = (teacher.fingerprint, teacher.precision, key)
            # A patch counts once, however often it is brought.
            self.known_bytes += 0 if name in self._known else row.nbytes
            self._known[name] = row

    def describe(self) -> str:
        """Say what it was good for, in one line."""
        return (
            f"teacher features: {self.found:,} of {self.asked:,} were there already "
            f"({self.size / 1e6:.0f} MB)"
        )

    def _take(self, name: _Key) -> NDArray[np.float32] | None:
        if name in self._known:
            return self._known[name]
        if name in self._features:
            self._features.move_to_end(name)
        return self._features.get(name)

    def _keep(self, name: _Key, features: NDArray[np.float32]) -> None:
        self._features[name] = features
        self.size += features.nbytes
        while self.size > self._limit:
            _, dropped = self._features.popitem(last=False)
            self.size -= dropped.nbytes


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
