"""Feature files of a cohort, of any format, and whether they changed meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.features.format import SUFFIX, attributes_of
from napari_mcm.core.features.mapped import rows_of_file, stamp_of_file
from napari_mcm.core.features.reading import read_features

_FOREIGN = (".h5", ".h5ad")
"""Endings of other tools' files that are looked for in folders without own files."""


@dataclass(frozen=True)
class FoundFile:
    """A feature file, as its attributes describe it.

    Attributes
    ----------
    path : Path
        The file.
    named : bool
        Whether it was named itself, rather than found in a folder.
    fingerprint, encoder : str or None
        Fingerprints of its slide and encoder; None where only reading shows them.
    patches : int or None
        Number of patches; None where only reading shows it.
    """

    path: Path
    named: bool
    fingerprint: str | None
    encoder: str | None
    patches: int | None


def find_feature_files(
    paths: Sequence[Path], encoder: str = ""
) -> tuple[list[FoundFile], list[str]]:
    """Find the feature files of a cohort.

    Parameters
    ----------
    paths : sequence of Path
        Files, and folders that are searched; the folders in them only where there are no
        files beside these.
    encoder : str, optional
        Fingerprint of an encoder: files of others are left out where they were found in
        a folder.

    Returns
    -------
    files : list of FoundFile
        Each once, in their order.
    skipped : list of str
        One line for each file that is left out.

    Raises
    ------
    FeatureError
        If a path does not exist, or a folder holds no feature files of the encoder.
    """
    found: dict[Path, FoundFile] = {}
    skipped: list[str] = []
    for path in paths:
        inside = [path] if _is_file(path) else _in_folder(path)
        files = [_describe(one, named=one == path) for one in inside]
        fitting = [one for one in files if _fits(one, encoder)]
        if not fitting:
            raise FeatureError(
                f"holds {len(files)} feature files, none of the classifier's encoder",
                path,
                "Extract features with the classifier's encoder",
            )
        skipped += [
            f"{one.path.name}: made with another encoder, skipped"
            for one in files
            if not _fits(one, encoder)
        ]
        for one in fitting:
            found.setdefault(one.path.absolute(), one)
    return list(found.values()), skipped


def read_any(path: Path) -> FeatureSet:
    """Read a feature file of this program or another.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    FeatureSet

    Raises
    ------
    FeatureError
        If it is damaged, incomplete, of unknown format, or was replaced while it was
        read.
    """
    before = stamp_of(path)
    if path.name.endswith(SUFFIX):
        features = read_features(path)
    else:
        from napari_mcm.core.features.interchange.formats import detect, read_foreign

        features = read_foreign(path, detect(path))
    if stamp_of(path) != before:
        raise FeatureError(
            "was replaced while it was read", path, "Run the same command again"
        )
    return features


def stamp_of(path: Path) -> str:
    """Return what changes when a feature file is replaced by one of other content.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    str
        Of another tool's file, its time and length.

    Raises
    ------
    FeatureError
        If it cannot be read.
    """
    if path.name.endswith(SUFFIX):
        return stamp_of_file(path)
    try:
        found = path.stat()
    except OSError as error:
        raise FeatureError(f"cannot be read ({error.strerror})", path) from None
    return f"{found.st_mtime_ns} {found.st_size}"


def _is_file(path: Path) -> bool:
    return path.name.endswith(SUFFIX) or path.is_file()


def _in_folder(folder: Path) -> list[Path]:
    """Return the feature files in a folder.

    Raises
    ------
    FeatureError
        If there are none.
    """
    if not folder.is_dir():
        raise FeatureError("no such feature file or folder", folder, "Check the path")
    # An extraction with several encoders has a folder for each.
    own = sorted(folder.glob(f"*{SUFFIX}")) or sorted(folder.glob(f"*/*{SUFFIX}"))
    files = own or sorted(p for p in folder.iterdir() if p.suffix.lower() in _FOREIGN)
    if not files:
        raise FeatureError("holds no feature files", folder, "Run napari-mcm extract")
    return files


def _describe(path: Path, named: bool) -> FoundFile:
    if not path.name.endswith(SUFFIX):
        return FoundFile(path, named, None, None, None)
    identity: Any = attributes_of(path).get("identity")
    known = identity if isinstance(identity, dict) else {}
    slide, encoder = known.get("slide"), known.get("encoder")
    return FoundFile(
        path,
        named,
        str(slide) if slide else None,
        str(encoder) if encoder else None,
        rows_of_file(path),
    )


def _fits(file: FoundFile, encoder: str) -> bool:
    # A file that was named is tried, so that its error is shown.
    return file.named or not encoder or file.encoder in (None, encoder)
