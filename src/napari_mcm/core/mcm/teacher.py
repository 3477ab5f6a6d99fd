"""A memory cache of the teacher's features, for runs that show it the same patches.

Within one run there is nothing to reuse: each placement puts the windows elsewhere. But the
arms of a study see the same windows for the same seed and share a teacher, and aligned
patches may have been encoded by an earlier extraction.
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
from napari_mcm.core.mcm.window_pixels import patch_key
from napari_mcm.core.mcm.windows import Source
from napari_mcm.core.runtime.jobs import Job, Note, Progress

_Key = tuple[str, str, bytes]


class TeacherCache:
    """Least-recently-used cache of features by teacher and patch, bounded in memory.

    Parameters
    ----------
    megabytes : int
        Memory bound of the features encoded here; 0 keeps none.

    Attributes
    ----------
    size, known_bytes : int
        Bytes of the features encoded here, and of those read from files.
    asked, found : int
        Patches requested, and those that the cache held.
    taken : dict of str to int
        Number of patches read, by file, so that the next run of a study does not read it
        again.
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
        """Encode the patches that are not cached, and return the features of all.

        A patch's features are bit-identical either way.

        Parameters
        ----------
        teacher : Encoder
            The teacher, frozen.
        pixels : ndarray of uint8, shape (B, H, W, 3)
            Patches.
        keys : sequence of bytes
            Hash of what each patch shows: slide, place, resolution, orientation. Empty where
            patches are recoloured at random; nothing is cached then.

        Returns
        -------
        ndarray of float32, shape (B, D)
            The teacher's features.
        """
        if not keys or not (self._limit or self._known):
            return teacher.encode(pixels)
        # Features in another precision differ: a run must not depend on what ran before it.
        names = [(teacher.fingerprint, teacher.precision, key) for key in keys]
        known = {name: self._take(name) for name in names}
        missing = [i for i, name in enumerate(names) if known[name] is None]
        self.asked += len(names)
        self.found += len(names) - len(missing)
        if missing:
            made = teacher.encode(pixels[missing])
            for i, features in zip(missing, made, strict=True):
                known[names[i]] = features
                # A row is a view: without the copy it would keep its whole batch in memory.
                self._keep(names[i], features.copy())
        return np.stack([f for name in names if (f := known[name]) is not None])

    def take_in(
        self, teacher: Encoder, keys: Sequence[bytes], features: NDArray[np.float32]
    ) -> None:
        """Add features that were computed elsewhere; they are never dropped.

        Parameters
        ----------
        teacher : Encoder
            The encoder that computed them.
        keys : sequence of bytes
            Hash of what each patch shows.
        features : ndarray of float32, shape (N, D)
            One row per key.
        """
        for key, row in zip(keys, features, strict=True):
            name = (teacher.fingerprint, teacher.precision, key)
            # A patch counts once, however often it is added.
            self.known_bytes += 0 if name in self._known else row.nbytes
            self._known[name] = row

    def describe(self) -> str:
        """Return a one-line summary of how many patches were cached.

        Returns
        -------
        str
            Text for a log.
        """
        return (
            f"teacher features: {self.found:,} of {self.asked:,} were cached "
            f"({self.size / 1e6:.0f} MB)"
        )

    def _take(self, name: _Key) -> NDArray[np.float32] | None:
        # Features from files have a bound of their own, and are never dropped.
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
"""Memory bound of features from files; patches beyond it are encoded again."""


def take_from_files(
    cache: TeacherCache,
    folder: Path,
    teacher: Encoder,
    sources: Sequence[Source],
    grid: GridConfig,
    mpp: float,
) -> Job[None]:
    """Fill a cache from a folder of feature files, as a job.

    Parameters
    ----------
    cache : TeacherCache
        The cache to fill.
    folder : Path
        Output folder of ``napari-mcm extract``.
    teacher : Encoder
        Only features of exactly this encoder are used, in any precision.
    sources : sequence of Source
        Slides of the training set.
    grid : GridConfig
        How patches are placed.
    mpp : float
        Resolution of the patches, in microns per pixel.

    Yields
    ------
    Event
        Progress in slides; a note with the number of patches read.

    Raises
    ------
    ConfigError
        If the folder does not exist.
    FeatureError
        If a matching file is incomplete or damaged.
    """
    if not folder.is_dir():
        raise ConfigError("folder of teacher features does not exist", folder)
    known, left_out = 0, []
    for number, source in enumerate(sources):
        yield Progress("Reading teacher features", number, len(sources), "slides")
        path = _find(folder, teacher, source, grid, mpp)
        if path is None:
            left_out.append(source.slide.name)
            continue
        # Keys hold the precision, so another precision is added under keys of its own.
        origin = f"{path}:{teacher.precision}"
        if origin not in cache.taken:
            # Compared with the bound before the file is read, not after.
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
            f"no matching teacher features for {', '.join(left_out)}: their patches "
            "are encoded during training",
            "warning",
        )


def _find(
    folder: Path, teacher: Encoder, source: Source, grid: GridConfig, mpp: float
) -> Path | None:
    slide = source.slide
    for path in files_of(feature_path(folder, slide)):
        attributes = attributes_of(path)
        identity = _section(attributes, "identity")
        made_on = _section(attributes, "grid")
        matches = (
            identity.get("slide") == slide.fingerprint
            and identity.get("encoder") == teacher.fingerprint
            and (made_on.get("patch_size"), made_on.get("mpp"))
            == (grid.patch_size, mpp)
            # Colour correction changes pixels, and with them the features.
            and bool(_section(made_on, "slide").get("icc"))
            == bool(slide.opened_with.icc)
        )
        if matches:
            return path
    return None


def _section(attributes: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = attributes.get(name)
    return section if isinstance(section, Mapping) else {}


def _take(
    cache: TeacherCache, found: FeatureSet, teacher: Encoder, source: Source
) -> int:
    rows = np.flatnonzero(found.ok)
    keys = [patch_key(source.slide, found.grid, int(row)) for row in rows]
    cache.take_in(teacher, keys, found.features[rows])
    return len(rows)
