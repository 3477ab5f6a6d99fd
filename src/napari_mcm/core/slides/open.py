"""Opening a slide: the backend is chosen by the file's content."""

from __future__ import annotations

import errno
from importlib import import_module
from pathlib import Path

from napari_mcm.core.errors import SlideError, TruncatedError
from napari_mcm.core.slides.backend import Backend, Place, SlideFile, unreadable
from napari_mcm.core.slides.colour import ManagedTiles
from napari_mcm.core.slides.levels import Opening
from napari_mcm.core.slides.paths import shown
from napari_mcm.core.slides.pyramid import pyramid
from napari_mcm.core.slides.slide import Slide
from napari_mcm.core.slides.tiles import TileCache

_BACKENDS = "napari_mcm.core.slides.backends"
_MODULES = (
    "tiff.backend",
    "omezarr.backend",
    "dicom.backend",
    "openslide.backend",
    "image",
)
"""Backends in the order in which they are tried; OpenSlide reads files of any vendor."""

_NOT_DAMAGE = (
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
)
"""Errors of rights, disks and network drives, which say nothing about the file."""


def open_slide(
    path: str | Path,
    mpp: float | None = None,
    backend: str | None = None,
    icc: bool = False,
) -> Slide:
    """Open a whole-slide image.

    Parameters
    ----------
    path : str or Path
        A file, a folder (OME-Zarr, DICOM) or a URL (OME-Zarr). Its format is
        recognised by its content, never by its ending.
    mpp : float, optional
        Microns per level-0 pixel, for a file that states none or a wrong one. It
        overrides what the file states.
    backend : str, optional
        Try this backend only; see :func:`backend_names`.
    icc : bool, optional
        Convert colours to sRGB with the slide's own ICC profile. By default pixels
        are as stored.

    Returns
    -------
    Slide
        Open for reading; close it, or use it as a context manager. A file that
        states no resolution opens too (for viewing), but its :attr:`Slide.mpp`
        raises.

    Raises
    ------
    SlideError
        If the file is missing, damaged or not a slide (the message names what was
        tried), if `mpp` is not positive, or if no backend has that name.
    """
    path = Path(path)
    if mpp is not None and not 0 < mpp < float("inf"):
        raise SlideError(f"mpp must be a positive number of microns, not {mpp}", path)
    used, file = _open(Place.look(path), _wanted(backend, path))
    try:
        if icc:
            file = ManagedTiles.of(file, shown(path))
        cache = TileCache()
        levels = pyramid(file, cache)
    except BaseException:
        file.close()
        raise
    return Slide(path, used, file, levels, Opening(mpp, backend, icc), cache)


def backend_names() -> tuple[str, ...]:
    """Return the names of all backends, in the order in which they are tried.

    Returns
    -------
    tuple of str
    """
    return tuple(backend.name for backend in _backends())


def backend_for(path: str | Path) -> str | None:
    """Return the name of the backend that recognises a path, reading its first bytes only.

    Parameters
    ----------
    path : str or Path
        File, folder or URL.

    Returns
    -------
    str or None
        None where there is nothing, or nothing that looks like a slide. A backend
        of last resort may still read it.
    """
    try:
        place = Place.look(Path(path))
    except SlideError:
        return None
    return next((b.name for b in _backends() if _claims(b, place, [])), None)


def _backends() -> list[Backend]:
    return [import_module(f"{_BACKENDS}.{module}").BACKEND for module in _MODULES]


def _wanted(name: str | None, path: Path) -> list[Backend]:
    backends = _backends()
    if name is None:
        return backends
    chosen = [b for b in backends if b.name.lower() == name.lower()]
    if not chosen:
        known = ", ".join(backend.name for backend in backends)
        raise SlideError(f"no backend is called {name!r}", path, f"Use one of {known}")
    return chosen


def _open(place: Place, backends: list[Backend]) -> tuple[str, SlideFile]:
    """Try the backends that claim the file, then those of last resort.

    Raises
    ------
    SlideError
        If none can open it.
    TruncatedError
        If a backend finds that the file ends before all of its pixels.
    """
    alone = len(backends) == 1
    errors: list[OSError] = []
    claiming = [b for b in backends if alone or _claims(b, place, errors)]
    local = place.url is None and not place.is_dir
    spare = [b for b in backends if local and b.last_resort and b not in claiming]
    tried: list[tuple[str, SlideError]] = []
    for backend in claiming + spare:
        try:
            return backend.name, backend.open(place)
        except TruncatedError:
            # Another backend would open it, and show none of its pixels.
            raise
        except SlideError as error:
            tried.append((backend.name, error))
    if place.url is None:
        errors += filter(None, (_unreadable(error) for _, error in tried))
    # What cannot be read is neither damaged nor of an unknown format.
    failure = (
        unreadable(errors[-1], place.path)
        if errors
        else _failure(place, claiming, tried)
    )
    raise failure


def _claims(backend: Backend, place: Place, errors: list[OSError]) -> bool:
    try:
        return backend.claims(place)
    except OSError as error:
        errors.append(error)
        return False


def _unreadable(error: BaseException | None) -> OSError | None:
    """Find the error of the file system or disk behind an error of a backend."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NOT_DAMAGE:
            return error
        error = error.__cause__
    return None


def _failure(
    place: Place, claiming: list[Backend], tried: list[tuple[str, SlideError]]
) -> SlideError:
    where = shown(place.path)
    if claiming and len(tried) == 1:
        return tried[0][1]
    reasons = "; ".join(f"{name}: {error.what}" for name, error in tried)
    if not claiming:
        known = ", ".join(b.name for b in _backends() if not b.last_resort)
        return SlideError(
            f"does not look like a slide of a known format (looked for {known}; "
            f"{reasons or 'nothing else was tried'})",
            where,
            tried[-1][1].hint if tried else "",
        )
    # The backend that recognised the file gives the most useful advice.
    return SlideError(f"cannot be opened ({reasons})", where, tried[0][1].hint)
