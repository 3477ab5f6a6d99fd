"""Which DICOM files in a folder belong to one slide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from napari_mcm.core.errors import SlideError
from napari_mcm.core.slides.backend import Place
from napari_mcm.core.slides.backends.optional import one_line

_MAGIC, _AT = b"DICM", 128
_FEW = 8
_SLIDE_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.6"
# Tags are sorted: reading stops after the width of the whole image, long before the
# positions of a million tiles.
_WIDTH_TAG = 0x00480006
_OPTICS_TAG = 0x00480105


@dataclass(frozen=True, slots=True)
class Header:
    """The fields that assign a DICOM file to a slide.

    Attributes
    ----------
    path : Path
        The file.
    series : str
        UID of its series; a slide is one series.
    width : int
        Width of the whole image in pixels.
    is_level : bool
        False for a label, an overview or a thumbnail.
    """

    path: Path
    series: str
    width: int
    is_level: bool


@dataclass(frozen=True, slots=True)
class Found:
    """The files of one slide.

    Attributes
    ----------
    headers : list of Header
        Levels, label and overview.
    warnings : list of str
        What else lies in the folder.
    """

    headers: list[Header]
    warnings: list[str]

    @property
    def finest(self) -> Path:
        """The file of the finest level.

        Returns
        -------
        Path
        """
        levels = [header for header in self.headers if header.is_level]
        return max(levels, key=lambda header: header.width).path


def looks_like_dicom(place: Place) -> bool:
    """Return whether a place is a DICOM file, or a folder with one among its first files.

    Parameters
    ----------
    place : Place
        The location to check.

    Returns
    -------
    bool
    """
    if place.is_dir:
        try:
            return any(map(_may_be_dicom, islice(_files_in(place.path), _FEW)))
        except OSError:
            return False
    return place.head[_AT : _AT + len(_MAGIC)] == _MAGIC


def files_of(place: Place, pydicom: Any) -> Found:
    """Find the files of the slide at a place.

    A file stands for its whole series; a folder with several slides stands for the
    largest.

    Parameters
    ----------
    place : Place
        A DICOM file or a folder.
    pydicom : module
        The library.

    Returns
    -------
    Found
        Headers of the slide's files.

    Raises
    ------
    SlideError
        If there is no slide.
    """
    folder = place.path if place.is_dir else place.path.parent
    headers, warnings = _headers(folder, pydicom)
    if place.is_dir:
        levels = [header for header in headers if header.is_level]
    else:
        levels = [h for h in headers if h.path.name == place.path.name]
    if not levels:
        what = f" ({warnings[0]})" if warnings else ""
        raise SlideError(
            f"holds no whole-slide image in DICOM{what}",
            place.path,
            "Check that its files are of the VL Whole Slide Microscopy class",
        )
    series = max(levels, key=lambda header: header.width).series
    mine = [header for header in headers if header.series == series]
    if not any(header.is_level for header in mine):
        raise SlideError(
            "is a label or overview, whose slide is not beside it",
            place.path,
            "Put all files of its series into one folder",
        )
    slides = {header.series for header in headers if header.is_level}
    if place.is_dir and len(slides) > 1:
        warnings.append(
            f"its folder holds {len(slides)} slides; the largest one is shown"
        )
    return Found(mine, warnings)


def _headers(folder: Path, pydicom: Any) -> tuple[list[Header], list[str]]:
    found, warnings = [], []
    for file in _files_in(folder):
        try:
            is_dicom = _has_magic(file)
        except OSError as error:
            warnings.append(f"{file.name} cannot be read ({error.strerror})")
            continue
        if not is_dicom:
            if file.suffix.lower() == ".dcm":
                warnings.append(f"{file.name} is not a DICOM file, or damaged")
            continue
        try:
            header = _header(file, pydicom)
        # Each field of a damaged header may raise an error of its own.
        except Exception as error:  # noqa: BLE001
            warnings.append(f"{file.name} cannot be read ({one_line(error)})")
            continue
        if header is not None:
            found.append(header)
    return found, warnings


def _header(file: Path, pydicom: Any) -> Header | None:
    dataset = _read(file, pydicom, _WIDTH_TAG)
    if dataset.file_meta.MediaStorageSOPClassUID != _SLIDE_CLASS:
        return None
    kind = [str(part) for part in dataset.get("ImageType", [])]
    return Header(
        path=file,
        series=str(dataset.SeriesInstanceUID),
        width=int(dataset.TotalPixelMatrixColumns),
        is_level="VOLUME" in kind,
    )


def optics_of(file: Path, pydicom: Any) -> tuple[Any, Any]:
    """Read a level's header and its first optical path, which holds lens and colour profile.

    Parameters
    ----------
    file : Path
        A DICOM file.
    pydicom : module
        The library.

    Returns
    -------
    tuple of Dataset
        The header, and the optical path; the latter is empty where there is none.
    """
    dataset = _read(file, pydicom, _OPTICS_TAG)
    paths = dataset.get("OpticalPathSequence")
    return dataset, paths[0] if paths else {}


def _read(file: Path, pydicom: Any, last: int) -> Any:
    with file.open("rb") as opened:
        return pydicom.filereader.read_partial(
            opened, stop_when=lambda tag, *_: tag > last
        )


def _files_in(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.is_file())


def _may_be_dicom(file: Path) -> bool:
    try:
        return _has_magic(file)
    except OSError:
        # By its ending, where it cannot be read: opening the slide says why.
        return file.suffix.lower() == ".dcm"


def _has_magic(file: Path) -> bool:
    with file.open("rb") as opened:
        opened.seek(_AT)
        return opened.read(len(_MAGIC)) == _MAGIC
