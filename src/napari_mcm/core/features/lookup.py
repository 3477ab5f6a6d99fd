"""Feature files that exist: those of a slide, by what their attributes say.

Nothing but the attributes is read, so that a search takes milliseconds and needs no
encoder. Whoever uses a file reads it with all its checks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from napari_mcm.core.errors import McmError
from napari_mcm.core.features.config import ExtractConfig, request_of
from napari_mcm.core.features.format import (
    SCHEMA,
    VERSION,
    attributes_of,
    feature_path,
    files_of,
    open_group,
)
from napari_mcm.core.grid import PatchGrid, with_common_mpp
from napari_mcm.core.slides import Slide
from napari_mcm.core.slides.slide import SAME_RESOLUTION

_MOST_FOLDERS = 500
"""Most folders that are looked into beside each other."""


@dataclass(frozen=True)
class KnownFile:
    """A complete feature file, as its attributes describe it.

    Attributes
    ----------
    path : Path
        The file.
    encoder : str
        Fingerprint of the encoder.
    spec : str
        The encoder as the user named it.
    patches : int
        Number of patches.
    patch_um : float
        Side of a patch in microns.
    changed : float
        When it was completed, in seconds since 1970.
    """

    path: Path
    encoder: str
    spec: str
    patches: int
    patch_um: float
    changed: float

    def describe(self) -> str:
        """Describe the file in one line: ``resnet18, 315 patches of 154 µm``.

        Returns
        -------
        str
            Encoder, number and size of patches.
        """
        return f"{self.spec}, {self.patches:,} patches of {self.patch_um:.3g}\u00a0µm"


def find_feature_files(
    slide: Slide, folders: Iterable[Path], files: Iterable[Path] = ()
) -> tuple[KnownFile, ...]:
    """Find the complete feature files of a slide.

    Parameters
    ----------
    slide : Slide
        Its name selects files, its fingerprint, size and resolution decide.
    folders : iterable of Path
        Folders of feature files, and folders of such folders; they need not exist.
    files : iterable of Path
        Further files, which may have any name.

    Returns
    -------
    tuple of KnownFile
        The newest first.
    """
    paths = [*files]
    for folder in folders:
        for each in (folder, *_subfolders(folder)):
            paths += files_of(feature_path(each, slide))
    found = {path.absolute(): _known(path, slide) for path in dict.fromkeys(paths)}
    fitting = [one for one in found.values() if one is not None]
    return tuple(sorted(fitting, key=lambda one: one.changed, reverse=True))


def newest_per_encoder(files: Iterable[KnownFile]) -> tuple[KnownFile, ...]:
    """Keep the newest file of each encoder, in their order.

    Parameters
    ----------
    files : iterable of KnownFile
        The newest first.

    Returns
    -------
    tuple of KnownFile
        One file per encoder.
    """
    newest: dict[str, KnownFile] = {}
    for file in files:
        newest.setdefault(file.encoder, file)
    return tuple(newest.values())


def find_finished_file(config: ExtractConfig) -> Path | None:
    """Find the file that an extraction of one slide would reuse, without the encoder.

    Parameters
    ----------
    config : ExtractConfig
        Options of one slide and one encoder, with an output folder.

    Returns
    -------
    Path or None
        None where there is none, or the weights may have changed since.

    Raises
    ------
    SlideError
        If the slide cannot be read.
    GridError
        If its tissue mask cannot be read.
    """
    (path,), (spec,) = config.slides, config.encoder
    assert config.out is not None
    with config.read.open(path) as slide:
        grid = with_common_mpp(config.grid, [max(slide.mpp)])
        request = request_of(slide, grid, config.tissue)
        file = feature_path(config.out, slide)
        candidates = files_of(file) if config.beside else [file]
        for each in candidates:
            attributes = attributes_of(each)
            known = _known(each, slide)
            if (
                known is not None
                and known.spec == spec
                and attributes.get("provenance", {}).get("request") == request
                and _has_precision(attributes, config.compute.precision)
                and not _changed_since(Path(spec), known.changed)
            ):
                return each
    return None


def find_known_grid(file: Path, request: str) -> PatchGrid | None:
    """Find the grid of a request in another encoder's file of the same slide.

    With it, tissue is searched once per slide, not per encoder.

    Parameters
    ----------
    file : Path
        Feature file that will be written; files of its name are looked for in the
        folders beside its own.
    request : str
        As :func:`~napari_mcm.core.features.config.request_of` returns it.

    Returns
    -------
    PatchGrid or None
        None where no file has it.
    """
    for folder in _subfolders(file.parent.parent):
        for other in files_of(folder / file.name):
            attributes = attributes_of(other)
            with suppress(KeyError, TypeError, ValueError, McmError):
                if attributes["provenance"]["request"] == request:
                    return _read_grid(other, attributes)
    return None


def _read_grid(path: Path, attributes: Mapping[str, Any]) -> PatchGrid:
    """Read the grid of a complete file.

    Raises
    ------
    ValueError
        If its content is not what the attributes say.
    """
    if not _is_complete(attributes):
        raise ValueError("is not complete")
    group = open_group(path, "r")
    try:
        coords, lattice = (np.asarray(group[name]) for name in ("coords", "lattice"))
    # zarr and codecs raise many kinds of errors for damaged files.
    except Exception as error:  # noqa: BLE001
        raise ValueError(str(error)) from error
    grid = PatchGrid.from_description(dict(attributes["grid"]), coords, lattice)
    if grid.fingerprint != attributes["identity"]["grid"]:
        raise ValueError("its grid is damaged")
    return grid


def _known(path: Path, slide: Slide) -> KnownFile | None:
    """Describe a file; None where it is not complete, or not of this slide."""
    attributes = attributes_of(path)
    try:
        identity, grid = attributes["identity"], attributes["grid"]
        encoder = attributes["encoder"]
        same = (
            _is_complete(attributes)
            and identity["slide"] == slide.fingerprint
            and grid["slide"]["fingerprint"] == slide.fingerprint
            and tuple(grid["slide"]["size"]) == tuple(slide.size)
            and _same_mpp(grid["slide"].get("mpp"), slide.stated_mpp)
        )
        if not same:
            return None
        return KnownFile(
            path,
            str(identity["encoder"]),
            str(encoder.get("spec") or encoder.get("architecture") or path.parent.name),
            _rows(path),
            float(grid["patch_size"]) * float(grid["mpp"]),
            (path / "zarr.json").stat().st_mtime,
        )
    except (KeyError, TypeError, ValueError, AttributeError, OSError):
        return None


def _rows(path: Path) -> int:
    described = json.loads((path / "coords" / "zarr.json").read_text(encoding="utf-8"))
    return int(described["shape"][0])


def _is_complete(attributes: Mapping[str, Any]) -> bool:
    return (
        attributes.get("schema") == SCHEMA
        and attributes.get("version") == VERSION
        and attributes.get("complete") is True
    )


def _same_mpp(stored: Any, stated: tuple[float, float] | None) -> bool:
    if stored is None or stated is None:
        return False
    pairs = zip(stored, stated, strict=True)
    return all(abs(a - b) <= SAME_RESOLUTION * b for a, b in pairs)


def _has_precision(attributes: Mapping[str, Any], precision: str) -> bool:
    return precision in ("auto", attributes["identity"]["precision"])


def _changed_since(weights: Path, moment: float) -> bool:
    """Return whether a file or folder of weights changed after a moment."""
    with suppress(OSError):
        if not weights.exists():
            return False
        files = weights.rglob("*") if weights.is_dir() else [weights]
        return any(one.stat().st_mtime > moment for one in files)
    return True


def _subfolders(folder: Path) -> Iterator[Path]:
    """Yield the folders in a folder, unless it is where a system's disks are mounted."""
    if folder in (Path(folder.anchor), Path.home().parent):
        return
    with suppress(OSError):
        found = (each for each in folder.iterdir() if each.is_dir())
        # A feature file is a folder, too.
        named = (each for each in found if each.suffix != ".zarr")
        yield from islice(named, _MOST_FOLDERS)
