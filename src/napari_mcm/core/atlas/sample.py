"""The patches of an atlas, read from the feature files of slides."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.feature_set import (
    PATCH_ALONE,
    FeatureSet,
    NeighbourhoodConfig,
)
from napari_mcm.core.features.format import SUFFIX, attributes_of
from napari_mcm.core.features.neighbourhood import average_neighbourhood
from napari_mcm.core.features.reading import read_features
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.runtime.jobs import Job, Progress
from napari_mcm.core.runtime.threads import run_in_thread

_READING = "Reading features"


@dataclass(frozen=True, eq=False)
class AtlasSlide:
    """One slide of an atlas.

    Attributes
    ----------
    name, fingerprint : str
        The slide.
    features : Path
        Its feature file.
    grid : PatchGrid
        All patches of the file.
    """

    name: str
    fingerprint: str
    features: Path
    grid: PatchGrid


@dataclass(frozen=True, eq=False)
class Sample:
    """Patches of slides, with their features.

    Attributes
    ----------
    slides : tuple of AtlasSlide
        The slides.
    slide : ndarray of int32, shape (N,)
        Position of each patch's slide in `slides`.
    row : ndarray of int32, shape (N,)
        Row of each patch in the grid of its slide.
    vectors : ndarray of float32, shape (N, D)
        Features of unit length.
    available : int
        Number of patches with features, of which N were taken.
    """

    slides: tuple[AtlasSlide, ...]
    slide: NDArray[np.int32]
    row: NDArray[np.int32]
    vectors: NDArray[np.float32]
    available: int


def find_files(paths: Sequence[Path], known: Collection[Path] = ()) -> tuple[Path, ...]:
    """Return the feature files that paths name, each once.

    Parameters
    ----------
    paths : sequence of Path
        Feature files, or folders of them.
    known : collection of Path, optional
        Absolute paths that are not looked at: they are files of features in memory.

    Returns
    -------
    tuple of Path
        In the order of the paths; those of a folder by name.

    Raises
    ------
    FeatureError
        If a path does not exist, or a folder has no feature files.
    """
    files: list[Path] = []
    for path in paths:
        is_file = path.name.endswith(SUFFIX) or path.absolute() in known
        if is_file or attributes_of(path):
            files.append(path)
            continue
        if not path.is_dir():
            raise FeatureError("no such feature file or folder", path)
        inside = sorted(path.glob(f"*{SUFFIX}"))
        if not inside:
            raise FeatureError(
                "holds no feature files", path, "Run napari-mcm extract first"
            )
        files += inside
    return tuple(dict.fromkeys(file.absolute() for file in files))


def read_sample(
    files: Sequence[Path],
    neighbourhood: NeighbourhoodConfig,
    most: int,
    seed: int,
    loaded: Mapping[Path, FeatureSet] | None = None,
) -> Job[Sample]:
    """Read the patches of slides, or a random part of them.

    Parameters
    ----------
    files : sequence of Path
        Feature files by one encoder.
    neighbourhood : NeighbourhoodConfig
        Which patches each is averaged with. Features that are averages already stay so.
    most : int
        Number of patches to take at most.
    seed : int
        Seed of the draw.
    loaded : mapping of Path to FeatureSet, optional
        Features of some files that are in memory already.

    Yields
    ------
    Progress
        In slides.

    Returns
    -------
    Sample
        The patches, slide by slide, by their rows.

    Raises
    ------
    FeatureError
        If a file cannot be read, files are of different encoders, or none has features.
    """
    shares: list[tuple[AtlasSlide, NDArray[np.int32], NDArray[np.float32]]] = []
    available, encoders = 0, dict[str, Path]()
    # A first look at the sizes says which part of each slide is taken.
    loaded = loaded or {}
    counts = [len(loaded[file]) if file in loaded else _rows_of(file) for file in files]
    share = min(most / max(sum(counts), 1), 1.0)
    for number, file in enumerate(files):
        yield Progress(_READING, number, len(files), "slides")
        generator = np.random.default_rng([seed, number])
        slide, rows, vectors, usable, encoder = yield from run_in_thread(
            Progress(_READING, number, len(files), "slides"),
            _read_share,
            file,
            loaded.get(file),
            neighbourhood,
            share,
            generator,
        )
        encoders.setdefault(encoder, file)
        if len(encoders) > 1:
            first, other = encoders.values()
            raise FeatureError(
                f"is of another encoder, or other patches, than {first.name}",
                other,
                "An atlas compares features of one encoder: leave the file out",
            )
        available += usable
        if len(rows):
            shares.append((slide, rows, vectors))
    if not shares:
        raise FeatureError("has no patches with features", files[0])
    return _joined(shares, available)


def align_slides(sample: Sample) -> None:
    """Subtract the mean features of each slide, in place.

    Parameters
    ----------
    sample : Sample
        Its `vectors` are changed.
    """
    for number in range(len(sample.slides)):
        own = sample.slide == number
        mean = sample.vectors[own].mean(axis=0, dtype=np.float64)
        sample.vectors[own] -= mean.astype(np.float32)


def _joined(
    shares: list[tuple[AtlasSlide, NDArray[np.int32], NDArray[np.float32]]],
    available: int,
) -> Sample:
    lengths = [len(rows) for _, rows, _ in shares]
    slides = np.repeat(np.arange(len(shares), dtype=np.int32), lengths)
    parts = [vectors for _, _, vectors in shares]
    vectors = parts[0] if len(parts) == 1 else np.concatenate(parts)
    rows = np.concatenate([rows for _, rows, _ in shares])
    return Sample(tuple(one for one, _, _ in shares), slides, rows, vectors, available)


def _rows_of(file: Path) -> int:
    import json

    try:
        text = (file / "coords" / "zarr.json").read_text(encoding="utf-8")
        return int(json.loads(text)["shape"][0])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        # What is wrong with the file, reading it says.
        return 0


def _read_share(
    file: Path,
    loaded: FeatureSet | None,
    neighbourhood: NeighbourhoodConfig,
    share: float,
    generator: np.random.Generator,
) -> tuple[AtlasSlide, NDArray[np.int32], NDArray[np.float32], int, str]:
    features = read_features(file) if loaded is None else loaded
    around = PATCH_ALONE if features.neighbourhood.radius else neighbourhood
    averaged = average_neighbourhood(features, around)
    lengths = np.linalg.norm(averaged.features, axis=1)  # (N,)
    valid = np.flatnonzero(features.ok & np.isfinite(lengths) & (lengths > 0))
    taken = valid
    if share < 1 and len(valid):
        size = max(round(share * len(valid)), 1)
        taken = np.sort(generator.choice(valid, size, replace=False))
    vectors = averaged.features[taken] / lengths[taken, None]
    grid = features.grid
    slide = AtlasSlide(
        str(grid.slide.get("name") or file.name.removesuffix(SUFFIX)),
        str(grid.slide.get("fingerprint") or ""),
        file,
        grid,
    )
    return slide, taken.astype(np.int32), vectors, len(valid), _encoder_of(features)


def _encoder_of(features: FeatureSet) -> str:
    """Return what must be the same in all files: encoder, context, length."""
    encoder = features.encoder.get("fingerprint") or features.encoder.get("spec")
    context = features.neighbourhood.describe()
    return f"{encoder} {context} {features.dim}"
