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
from napari_mcm.core.features.feature_set import (
    NeighbourhoodConfig,
    known_fingerprint,
)
from napari_mcm.core.features.format import SUFFIX, slide_of
from napari_mcm.core.features.interchange import read_vectors
from napari_mcm.core.mil.cohort import slide_key
from napari_mcm.core.mil.config import BagsConfig

Vectors = NDArray[np.floating[Any]]

_ENDINGS = (".features.zarr", ".h5ad", ".hdf5", ".h5", ".pt", ".pth", ".zarr")
_INNER = ("h5_files", "pt_files")
GIB = 2**30


class Bags(Protocol):
    """Source of the features of slides."""

    def __contains__(self, slide: object) -> bool:
        """Return whether a slide has features."""

    def read(self, slide: str) -> Vectors:
        """Return the features of a slide.

        Parameters
        ----------
        slide : str
            Name of the slide.

        Returns
        -------
        ndarray of floating, shape (N, D)
            Features of its N patches.
        """


@dataclass(frozen=True)
class FeatureSource:
    """Where the features of a folder come from.

    Attributes
    ----------
    dim : int
        Length of a feature vector.
    encoder, fingerprint : str
        Name of the encoder, and a hash of its weights; empty where the files do not record
        them.
    neighbourhood : NeighbourhoodConfig
        What each vector was averaged over; by default the patch alone.
    """

    dim: int
    encoder: str = ""
    fingerprint: str = ""
    neighbourhood: NeighbourhoodConfig = NeighbourhoodConfig()

    def describe(self) -> dict[str, Any]:
        """Describe the source for the files of a run.

        Returns
        -------
        dict
            Ready for JSON. The neighbourhood is left out for single patches, as in runs of
            earlier versions.
        """
        known: dict[str, Any] = {
            "dim": self.dim,
            "encoder": self.encoder,
            "fingerprint": self.fingerprint,
        }
        if self.neighbourhood.radius:
            known["neighbourhood"] = self.neighbourhood.model_dump()
        return known

    @classmethod
    def from_description(cls, known: Mapping[str, Any]) -> FeatureSource:
        """Read the source back from what :meth:`describe` returned.

        Parameters
        ----------
        known : mapping
            Content of a file.

        Returns
        -------
        FeatureSource
            Of single patches where it states no neighbourhood.

        Raises
        ------
        KeyError, TypeError, ValueError
            If the content is damaged.
        """
        return cls(
            int(known["dim"]),
            str(known["encoder"]),
            str(known["fingerprint"]),
            NeighbourhoodConfig.model_validate(known.get("neighbourhood", {})),
        )


class FeatureFolder:
    """The feature files of a folder, with a bounded cache of what was read.

    Parameters
    ----------
    path : Path
        Folder with one file per slide. For CLAM's directory tree, the folder above its
        files works too.
    config : BagsConfig, optional
        Size and number format of the cache.
    neighbourhood : NeighbourhoodConfig, optional
        What each vector is to cover: features of single patches are averaged while they
        are read. By default vectors are as in the files.

    Attributes
    ----------
    files : dict of str to Path
        Feature file of each slide.
    origin : FeatureSource or None
        Of the first file read; all others must have the same.

    Raises
    ------
    FeatureError
        If there is no feature file, or two of the same slide.
    """

    def __init__(
        self,
        path: Path,
        config: BagsConfig | None = None,
        neighbourhood: NeighbourhoodConfig | None = None,
    ) -> None:
        self.path = Path(path)
        self.config = config or BagsConfig()
        self.neighbourhood = neighbourhood or NeighbourhoodConfig()
        self.files = find_files(self.path)
        self.origin: FeatureSource | None = None
        self._kept: OrderedDict[str, Vectors] = OrderedDict()
        self._bytes = 0

    def __contains__(self, slide: object) -> bool:
        return slide in self.files

    def read(self, slide: str) -> Vectors:
        """Return a slide's features, those of the patches that have any.

        Parameters
        ----------
        slide : str
            Name of the slide.

        Returns
        -------
        ndarray of floating, shape (N, D)
            Features in the cache's number format.

        Raises
        ------
        FeatureError
            If there are none, or they are of another encoder or another neighbourhood than
            those read earlier.
        """
        if slide in self._kept:
            self._kept.move_to_end(slide)
            return self._kept[slide]
        if slide not in self.files:
            raise FeatureError(f"has no features of slide {slide}", self.path)
        file = self.files[slide]
        found = read_vectors(file, self.neighbourhood)
        vectors = found.features  # (N, D)
        if not len(vectors):
            raise FeatureError("holds no patch with features", file)
        dim = vectors.shape[1]
        self._check_same(source_of(dim, found.encoder, found.neighbourhood), file)
        # float16 halves the cache; `pad` makes float32 of a bag when it is used.
        kept: Vectors = vectors.astype(self.config.kept_as, copy=False)
        self._keep(slide, kept)
        return kept

    @property
    def kept_gib(self) -> float:
        """Return the memory that cached features take.

        Returns
        -------
        float
            In GiB.
        """
        return self._bytes / GIB

    def _check_same(self, origin: FeatureSource, file: Path) -> None:
        if self.origin is None:
            self.origin = origin
            return
        held, other = self.origin.neighbourhood, origin.neighbourhood
        if held != other:
            raise FeatureError(
                f"has features over {covered(other)}, others of this folder those over "
                f"{covered(held)}",
                file,
                "Keep features of single patches and averages in folders of their own",
            )
        if origin != self.origin:
            raise FeatureError(
                f"has features of {origin.encoder or 'another encoder'} "
                f"({origin.dim} long), others of this folder those of "
                f"{self.origin.encoder or 'an encoder'} ({self.origin.dim})",
                file,
                "Keep the features of one encoder per folder",
            )

    def _keep(self, slide: str, vectors: Vectors) -> None:
        # A slide larger than the cache would empty it and still not fit.
        limit = self.config.cache_gib * GIB
        if vectors.nbytes > limit:
            return
        self._kept[slide] = vectors
        self._bytes += vectors.nbytes
        while self._bytes > limit:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= dropped.nbytes


def find_files(path: Path) -> dict[str, Path]:
    """Return the feature files of a folder, by slide.

    Parameters
    ----------
    path : Path
        The folder, or CLAM's folder above ``h5_files`` or ``pt_files``.

    Returns
    -------
    dict of str to Path
        File by the slide's name.

    Raises
    ------
    FeatureError
        If there are none, or two of the same slide.
    """
    if not path.is_dir():
        raise FeatureError("is not a folder of feature files", path)
    # CLAM writes into two subfolders; the first that holds files is read.
    for folder in (path, *(path / name for name in _INNER)):
        found = _in_folder(folder)
        if found:
            return found
    raise FeatureError(
        "holds no feature files",
        path,
        "Run napari-mcm extract, or name the folder that holds the files",
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
    """Return the slides without features.

    Parameters
    ----------
    bags : Bags
        Source of features.
    slides : iterable of str
        Names of the slides of a table.
    folder : Path
        Folder of the features, for the error.

    Returns
    -------
    list of str
        Names of the slides without features.

    Raises
    ------
    ConfigError
        If no slide has features.
    """
    missing = [slide for slide in slides if slide not in bags]
    if missing and not any(slide in bags for slide in slides):
        raise ConfigError(
            f"has features of none of the slides, such as {missing[0]}",
            folder,
            "Slides in the table must be named like the feature files",
        )
    return missing


def covered(neighbourhood: NeighbourhoodConfig) -> str:
    """Describe what one feature vector covers.

    Parameters
    ----------
    neighbourhood : NeighbourhoodConfig
        What it was averaged over.

    Returns
    -------
    str
        ``"single patches"`` or such as ``"3 × 3 patches"``.
    """
    if not neighbourhood.radius:
        return "single patches"
    return f"{neighbourhood.describe()} patches"


def source_of(
    dim: int,
    encoder: Mapping[str, Any],
    neighbourhood: NeighbourhoodConfig | None = None,
) -> FeatureSource:
    """Return the source of features from what their file records of the encoder.

    Parameters
    ----------
    dim : int
        Length of a feature vector.
    encoder : mapping
        The file's description of the encoder; may be empty.
    neighbourhood : NeighbourhoodConfig, optional
        What each vector was averaged over; by default the patch alone.

    Returns
    -------
    FeatureSource
        Without a fingerprint where the encoder's weights are unknown.
    """
    spec = str(encoder.get("spec") or encoder.get("architecture") or "")
    fingerprint = known_fingerprint(encoder)
    return FeatureSource(dim, spec, fingerprint, neighbourhood or NeighbourhoodConfig())
