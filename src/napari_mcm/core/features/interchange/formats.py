"""Reading, writing and detecting the formats of patch features."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.feature_set import FeatureSet, NeighbourhoodConfig
from napari_mcm.core.features.format import SCHEMA
from napari_mcm.core.features.interchange import (
    anndata,
    atlaspatch,
    clam,
    geojson,
    raw2features,
    stamp,
    trident,
)
from napari_mcm.core.features.interchange.assemble import assemble
from napari_mcm.core.features.interchange.containers import open_h5, read_tensor
from napari_mcm.core.features.interchange.record import (
    ForeignFeatures,
    Rows,
    Written,
    rows_of,
)
from napari_mcm.core.features.neighbourhood import average_neighbourhood
from napari_mcm.core.features.patches import MEASURES
from napari_mcm.core.features.reading import read_features
from napari_mcm.core.features.store import FeatureStore
from napari_mcm.core.slides import Slide

Reader = Callable[[Path, str | None, Path | None], ForeignFeatures]

Writer = Callable[[Rows, Path], list[Path]]


@dataclass(frozen=True, eq=False)
class Vectors:
    """The feature vectors of a slide, without the positions of their patches.

    Attributes
    ----------
    features : ndarray of float32, shape (N, D)
        One row per patch that has features.
    encoder : dict
        ``spec`` and ``fingerprint`` of the encoder, as far as the file states them.
    neighbourhood : NeighbourhoodConfig
        What each row covers.
    """

    features: NDArray[np.float32]
    encoder: dict[str, Any]
    neighbourhood: NeighbourhoodConfig


_READERS: dict[str, Reader] = {
    "trident": trident.read,
    "clam": clam.read,
    "stamp": stamp.read,
    "atlaspatch": atlaspatch.read,
    "anndata": anndata.read,
    "raw2features": raw2features.read,
}

_WRITERS: dict[str, Writer] = {
    "trident": trident.write,
    "clam": clam.write,
    "stamp": stamp.write,
    "anndata": anndata.write,
    "geojson": geojson.write,
}

READABLE, WRITABLE = tuple(_READERS), tuple(_WRITERS)


def write_foreign(features: FeatureSet, path: str | Path, kind: str) -> Written:
    """Write patch features in the format of another tool.

    Parameters
    ----------
    features : FeatureSet
        Of one slide. Only patches whose status is ``OK`` are written.
    path : str or Path
        The file. For ``trident`` and ``clam`` also a folder: a path without ``.h5``
        gets that tool's own tree of folders.
    kind : str
        One of :data:`WRITABLE`.

    Returns
    -------
    Written
        The files, the number of patches in them, and the number left out.

    Raises
    ------
    FeatureError
        If the format cannot hold these features, or cannot be written.
    McmError
        If a file cannot be written.
    """
    path = Path(path)
    if kind not in _WRITERS:
        raise FeatureError(
            f"{kind} is not a format that can be written",
            hint=f"Use one of {', '.join(WRITABLE)}",
        )
    rows = rows_of(features)
    files = _WRITERS[kind](rows, path)
    return Written(tuple(files), len(rows.xy), len(features) - len(rows.xy))


def read_foreign(
    path: str | Path,
    kind: str = "auto",
    slide: Slide | None = None,
    patch_size_level0: float | None = None,
    mpp: float | None = None,
    encoder: str | None = None,
    coords: str | Path | None = None,
) -> FeatureSet:
    """Read patch features that another tool has computed.

    Parameters
    ----------
    path : str or Path
        The file.
    kind : str, optional
        One of :data:`READABLE`, or ``"auto"`` to detect it.
    slide : Slide, optional
        The slide of the patches. It gives the features a fingerprint, a size and a
        resolution, and coordinates are checked against it. Without it the fingerprint
        is empty and the rest comes from the file.
    patch_size_level0 : float, optional
        Side of a patch in level-0 pixels, for files that do not state it correctly.
    mpp : float, optional
        Microns per level-0 pixel, for files and slides that do not state it.
    encoder : str, optional
        The encoder to read, where a file holds several; otherwise the name that the
        encoder gets.
    coords : str or Path, optional
        The file of patches, where it is separate from the features.

    Returns
    -------
    FeatureSet
        Its provenance has ``"notes"`` for the user.

    Raises
    ------
    FeatureError
        If the file is damaged, of unknown format, does not fit the slide, or lacks
        something; the message then names the option that supplies it.
    """
    path = Path(path)
    if kind == "auto":
        kind = detect(path)
    if kind == OWN_FORMAT:
        return read_features(path)
    if kind not in _READERS:
        raise FeatureError(
            f"{kind} is not a format that can be read",
            path,
            f"Use one of {', '.join(READABLE)}",
        )
    foreign = _READERS[kind](path, encoder, None if coords is None else Path(coords))
    return assemble(foreign, path, slide, patch_size_level0, mpp)


def detect(path: str | Path) -> str:
    """Detect by its content which tool has written a file.

    Parameters
    ----------
    path : str or Path
        A file or folder.

    Returns
    -------
    str
        One of :data:`READABLE`, or ``"napari-mcm"`` for our own format.

    Raises
    ------
    FeatureError
        If it is damaged, or of unknown format.
    """
    path = Path(path)
    if is_own_file(path):
        return OWN_FORMAT
    if path.is_dir():
        if raw2features.is_one(path):
            return "raw2features"
        unknown = _unknown(path)
        raise unknown
    if path.suffix.lower() in (".pt", ".pth"):
        return "clam"
    with open_h5(path) as file:
        # TRIDENT before CLAM: they differ only in the coordinates' attributes.
        for module in (anndata, stamp, atlaspatch, trident, clam):
            if module.is_one(file):
                return module.__name__.rpartition(".")[2]
    unknown = _unknown(path)
    raise unknown


def _unknown(path: Path) -> FeatureError:
    return FeatureError(
        "holds no patch features in a known format",
        path,
        f"Known formats: {', '.join(READABLE)}",
    )


OWN_FORMAT = "napari-mcm"
SINGLE_PATCHES = NeighbourhoodConfig()

_BLOCK = 4096


def is_own_file(path: Path) -> bool:
    """Return whether a folder is a feature file of this package, complete or not.

    Parameters
    ----------
    path : Path
        The folder; it need not exist.

    Returns
    -------
    bool
        By the schema in its attributes.
    """
    try:
        content = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
        return bool(content["attributes"]["schema"] == SCHEMA)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def save_features(
    features: FeatureSet, path: str | Path, overwrite: bool = False
) -> Path:
    """Write features as ``<slide>.features.zarr``.

    Nothing is written where the file holds the same features already.

    Parameters
    ----------
    features : FeatureSet
        Of one slide.
    path : str or Path
        The feature file.
    overwrite : bool, optional
        Whether to replace a file of other features.

    Returns
    -------
    Path
        The feature file.

    Raises
    ------
    FeatureError
        If the features are averages over neighbourhoods, or the file holds other
        features or cannot be written.
    """
    path = Path(path)
    if features.neighbourhood.radius:
        raise FeatureError(
            f"features are averages over {features.neighbourhood.describe()} patches, and "
            "feature files hold those of single patches",
            path,
            "Save the features of single patches; --context averages them when needed",
        )
    store = FeatureStore.open(path, features.grid, features.encoder, _BLOCK, overwrite)
    if store.complete:
        return path
    unknown = np.full(len(features), np.nan, np.float32)
    measured = {name: features.quality.get(name, unknown) for name in MEASURES}
    for start in range(store.done, len(features), store.block):
        rows = slice(start, start + store.block)
        quality = {name: values[rows] for name, values in measured.items()}
        store.write(start, features.features[rows], features.status[rows], (), quality)
    store.finish(features.provenance)
    return path


def read_vectors(
    path: str | Path, neighbourhood: NeighbourhoodConfig = SINGLE_PATCHES
) -> Vectors:
    """Read the feature vectors of a file in any supported format, without positions.

    Parameters
    ----------
    path : str or Path
        The file. It need not state the size or the positions of patches, unless features
        are to be averaged.
    neighbourhood : NeighbourhoodConfig, optional
        What each vector is to cover; by default what it covers in the file.

    Returns
    -------
    Vectors
        Only rows that are finite.

    Raises
    ------
    FeatureError
        If the file is damaged, incomplete or of unknown format; if it holds averages
        over other neighbourhoods, or lacks what is needed to average.
    """
    path = Path(path)
    kind = detect(path)
    if kind == OWN_FORMAT or neighbourhood.radius:
        whole = in_neighbourhood(_read_placed(path, kind), neighbourhood, path)
        features, encoder, context = whole.features, whole.encoder, whole.neighbourhood
    elif path.suffix.lower() in (".pt", ".pth"):
        features, encoder = read_tensor(path), {}
        context = clam.read_context(clam.find_h5(path))
    else:
        foreign = _READERS[kind](path, None, None)
        features, encoder = foreign.features, {"spec": foreign.encoder}
        context = foreign.neighbourhood
    # Rows without features, for example of damaged tiles, are no instances of a bag.
    kept = np.isfinite(features).all(axis=1)
    return Vectors(features if kept.all() else features[kept], encoder, context)


def _read_placed(path: Path, kind: str) -> FeatureSet:
    """Read features with the positions of their patches.

    Raises
    ------
    FeatureError
        If the file does not state what is needed to place them.
    """
    try:
        return read_foreign(path, kind)
    except FeatureError as error:
        if kind == OWN_FORMAT:
            raise
        raise FeatureError(
            f"cannot be averaged over neighbours: {error.what}",
            path,
            "Convert it to a feature file with napari-mcm convert",
        ) from error


def in_neighbourhood(
    features: FeatureSet, wanted: NeighbourhoodConfig, where: Path
) -> FeatureSet:
    """Return features that cover a neighbourhood, averaged where they do not yet.

    Parameters
    ----------
    features : FeatureSet
        Of single patches, or averages.
    wanted : NeighbourhoodConfig
        What each row is to cover. Radius 0 takes the features as they are.
    where : Path
        Their file, for the error.

    Returns
    -------
    FeatureSet
        Its `neighbourhood` says what it covers.

    Raises
    ------
    FeatureError
        If they are averages over another neighbourhood.
    """
    held = features.neighbourhood
    if not wanted.radius or held == wanted:
        return features
    if held.radius:
        raise FeatureError(
            f"holds averages over {held.describe()} patches, not {wanted.describe()}",
            where,
            "Use features of single patches, which can be averaged over any square",
        )
    return average_neighbourhood(features, wanted)
