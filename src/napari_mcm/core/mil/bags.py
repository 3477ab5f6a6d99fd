"""Bags: the features of a slide's patches, read when they are needed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import ConfigError, FeatureError
from napari_mcm.core.features.format import SUFFIX, slide_of
from napari_mcm.core.features.interchange import read_vectors
from napari_mcm.core.mil.cohort import slide_key
from napari_mcm.core.mil.config import BagsConfig

Vectors = NDArray[np.floating[Any]]

_ENDINGS = (".features.zarr", ".h5ad", ".hdf5", ".h5", ".pt", ".pth", ".zarr")
_INNER = ("h5_files", "pt_files")
GIB = 2**30


class Bags(Protocol):
    """Where the features of slides come from."""

    def __contains__(self, slide: object) -> bool:
        """Tell whether a slide has features."""

    def read(self, slide: str) -> Vectors:
        """Give the features (N, D) of a slide."""


@dataclass(frozen=True)
class FeatureSource:
    """What the features of a folder are.

    Attributes
    ----------
    dim : int
        Length of a vector.
    encoder, fingerprint : str
        Its name, and a hash of its weights; empty where files do not say.
    """

    dim: int
    encoder: str = ""
    fingerprint: str = ""


class FeatureFolder:
    """The feature files of a folder, and a bounded memory of what was read.

    Parameters
    ----------
    path : Path
        Holds a file a slide; of CLAM's own tree the folder above its files will do.
    config : BagsConfig, optional
        Memory for what is kept.

    Attributes
    ----------
    files : dict of str to Path
        By slide.
    origin : Origin or None
        Of the first file read; all others must have the same.

    Raises
    ------
    FeatureError
        If there is no feature file, or two of the same slide.
    """

    def __init__(self, path: Path, config: BagsConfig | None = None) -> None:
        self.path = Path(path)
        self.config = config or BagsConfig()
        self.files = find_files(self.path)
        self.origin: FeatureSource | None = None
        self._kept: OrderedDict[str, Vectors] = OrderedDict()
        self._bytes = 0

    def __contains__(self, slide: object) -> bool:
        return slide in self.files

    def read(self, slide: str) -> Vectors:
        """Give a slide's features (N, D), those of patches that have any.

        Raises
        ------
        FeatureError
            If there are none, or they are of another encoder than those before.
        """
        if slide in self._kept:
            self._kept.move_to_end(slide)
            return self._kept[slide]
        if slide not in self.files:
            raise FeatureError(f"has no features of slide {slide}", self.path)
        vectors, encoder = read_vectors(self.files[slide])
        if not len(vectors):
            raise FeatureError("holds no patch with features", self.files[slide])
        self._check_same(source_of(vectors.shape[1], encoder), self.files[slide])
        kept: Vectors = vectors.astype(self.config.kept_as, copy=False)
        self._keep(slide, kept)
        return kept

    @property
    def kept_gib(self) -> float:
        """Memory that features take, in GiB."""
        return self._bytes / GIB

    def _check_same(self, origin: FeatureSource, file: Path) -> None:
        if self.origin is None:
            self.origin = origin
        elif origin != self.origin:
            raise FeatureError(
                f"has features of {origin.encoder or 'another encoder'} "
                f"({origin.dim} long), others of this folder those of "
                f"{self.origin.encoder or 'an encoder'} ({self.origin.dim})",
                file,
                "Put the features of one encoder into a folder",
            )

    def _keep(self, slide: str, vectors: Vectors) -> None:
        limit = self.config.cache_gib * GIB
        if vectors.nbytes > limit:
            return
        self._kept[slide] = vectors
        self._bytes += vectors.nbytes
        while self._bytes > limit:
            _, gone = self._kept.popitem(last=False)
            self._bytes -= gone.nbytes


class WithoutPatches:
    """Bags in which some patches of a slide are left out.

    Parameters
    ----------
    vectors : ndarray, shape (N, D)
        Of the slide.
    left_out : iterable of int
        Rows.
    """

    def __init__(self, vectors: Vectors, left_out: Iterable[int]) -> None:
        self._vectors = np.delete(vectors, list(left_out), axis=0)

    def __contains__(self, slide: object) -> bool:
        return True

    def read(self, slide: str) -> Vectors:
        """Give what is left."""
        return self._vectors


def find_files(path: Path) -> dict[str, Path]:
    """Find the feature files of a folder, by slide.

    Raises
    ------
    FeatureError
        If there are none, or two of the same slide.
    """
    if not path.is_dir():
        raise FeatureError("is no folder of feature files", path)
    for folder in (path, *(path / name for name in _INNER)):
        found = _in_folder(folder)
        if found:
            return found
    raise FeatureError(
        "holds no feature files",
        path,
        "Make some with napari-mcm extract, or name the folder that they lie in",
    )


def _in_folder(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    if not folder.is_dir():
        return found
    for file in sorted(folder.iterdir()):
        ending = next((e for e in _ENDINGS if file.name.lower().endswith(e)), None)
        if ending is None or file.name.startswith("."):
            continue
        name = file.name[: -len(ending)]
        slide = slide_key(slide_of(file) if file.name.endswith(SUFFIX) else name)
        if file.with_suffix(".h5") in found.values() and ending == ".pt":
            continue  # CLAM's two files of a slide hold the same
        if slide in found:
            raise FeatureError(
                f"and {found[slide].name} are both of slide {slide}",
                file,
                "Leave one of them in the folder",
            )
        found[slide] = file
    return found


def check_there(bags: Bags, slides: Iterable[str], folder: Path) -> list[str]:
    """List the slides without features."""
    missing = [slide for slide in slides if slide not in bags]
    if missing and not any(slide in bags for slide in slides):
        raise ConfigError(
            f"has features of none of the slides, such as {missing[0]}",
            folder,
            "The table's slides must be called as the files are",
        )
    return missing


def source_of(dim: int, encoder: Mapping[str, Any]) -> FeatureSource:
    """Say what features are, from what their file says of the encoder."""
    spec = str(encoder.get("spec") or encoder.get("architecture") or "")
    fingerprint = str(encoder.get("fingerprint") or "")
    # Of an encoder whose weights nobody knows, each file has a hash of its own vectors.
    known = "" if fingerprint.startswith("features-") else fingerprint
    return FeatureSource(dim, spec, known)
