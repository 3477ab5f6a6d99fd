"""The interface of a backend: one module that reads one family of files.

A backend recognises its files by their content (:attr:`Backend.claims`) and opens one as
a :class:`SlideFile`. What all slides share (caches, computed coarser levels, physical
resolution, reading) is done once, above the backends.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from napari_mcm.core.errors import SlideError
from napari_mcm.core.slides.paths import url_of
from napari_mcm.core.slides.tiles import Pixels, TileSource

HEAD_BYTES = 4096
Mpp = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Place:
    """Location and first bytes of a possible slide.

    Attributes
    ----------
    path : Path
        As the user gave it. In a remote slide's path, the slashes of its URL are
        collapsed.
    url : str or None
        The URL of a remote slide.
    is_dir : bool
        Whether it is a local folder.
    head : bytes
        The first :data:`HEAD_BYTES` bytes of a local file; empty for folders and
        URLs.
    """

    path: Path
    url: str | None
    is_dir: bool
    head: bytes

    @classmethod
    def look(cls, path: Path) -> Place:
        """Read the first bytes of a path.

        Parameters
        ----------
        path : Path
            File, folder or URL.

        Returns
        -------
        Place
            The location. URLs are not contacted.

        Raises
        ------
        SlideError
            If there is nothing, or it cannot be read.
        """
        if url := url_of(path):
            return cls(path, url, False, b"")
        try:
            if path.is_dir():
                with os.scandir(path):
                    return cls(path, None, True, b"")
            with path.open("rb") as file:
                return cls(path, None, False, file.read(HEAD_BYTES))
        except FileNotFoundError:
            raise SlideError("no such file", path, "Check the path") from None
        except OSError as error:
            failure = unreadable(error, path)
            raise failure from error


def unreadable(error: OSError, path: Path) -> SlideError:
    """Return the error for a file or folder that the system does not let us read.

    Parameters
    ----------
    error : OSError
        The system's error.
    path : Path
        The file or folder.

    Returns
    -------
    SlideError
        One line with what to do next.
    """
    if isinstance(error, PermissionError):
        hint = "Ask for permission to read it, or copy it to a folder of your own"
    else:
        hint = "Check the disk or network drive that it lies on, and try again"
    return SlideError(f"cannot be read ({error.strerror or error})", path, hint)


@dataclass(frozen=True, slots=True)
class SlideFile:
    """What a backend reads from a file.

    Attributes
    ----------
    levels : sequence of TileSource
        Stored levels, the finest first. Their `decode` is thread-safe, not cached,
        and raises :class:`TileError` for a tile that is damaged or missing.
    mpp : tuple of float or None
        Microns per pixel of the finest level along x and y; None where the file
        does not state it. Never a guess.
    downsamples : sequence of tuple of float or None
        Level-0 pixels per pixel of each level, x and y; None uses the ratio of
        sizes.
    properties : mapping of str to str
        ``vendor``, ``objective``, ``compression`` and other scan properties, as
        text. Nothing that identifies a patient, an accession or a date of birth.
    images : mapping of str to callable
        Label, macro, thumbnail: functions that read them on demand.
    icc_profile : callable
        Reads the colour profile of the pixels; returns None where there is none.
    files : sequence of Path
        Files whose content identifies the slide; empty means the path itself.
    identity : callable or None
        Returns bytes that identify the slide, where no local file does.
    warnings : sequence of str
        What the user should know: one clause each, in plain words.
    close : callable
        Closes all handles.
    truncation : str
        A clause that says how much is missing where the file ends before its pixels;
        "" for a whole file.
    """

    levels: Sequence[TileSource]
    mpp: Mpp | None = None
    downsamples: Sequence[tuple[float, float]] | None = None
    properties: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, Callable[[], Pixels]] = field(default_factory=dict)
    icc_profile: Callable[[], bytes | None] = lambda: None
    files: Sequence[Path] = ()
    identity: Callable[[], bytes] | None = None
    warnings: Sequence[str] = ()
    close: Callable[[], None] = lambda: None
    truncation: str = ""


@dataclass(frozen=True, slots=True)
class Backend:
    """One way to read slides.

    Attributes
    ----------
    name : str
        Used by `info`, in messages and in provenance.
    claims : callable
        Returns whether a place looks like one of its own, by content. It is quick,
        imports nothing heavy and never raises.
    open : callable
        Opens it. Raises :class:`SlideError` with one line where it cannot.
    extra : str
        The extra of this package that installs its library; "" where none is
        needed.
    last_resort : bool
        Whether it is also tried on files that it does not claim, after all backends
        that do.
    """

    name: str
    claims: Callable[[Place], bool]
    open: Callable[[Place], SlideFile]
    extra: str = ""
    last_resort: bool = False
