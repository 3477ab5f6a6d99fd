"""Resolve the paths that a user names to slides: files, slide folders, folders of slides."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from napari_mcm.core.errors import SlideError
from napari_mcm.core.slides.backend import unreadable
from napari_mcm.core.slides.open import backend_for
from napari_mcm.core.slides.paths import url_of

_PICTURES = "picture"
# A slide whose first bytes are damaged must be reported, not vanish from the list.
_ENDINGS = (
    ".svs",
    ".tif",
    ".tiff",
    ".btf",
    ".ndpi",
    ".scn",
    ".bif",
    ".qptiff",
    ".mrxs",
)


def find_slides(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Replace each folder of slides by the slides in it, in the order of their names.

    Slides are recognised by their content. Ordinary pictures count as slides only where
    they are named themselves: in a folder they are mostly thumbnails.

    Parameters
    ----------
    paths : iterable of Path
        Files, slide folders (DICOM, OME-Zarr), folders of slides, or URLs.

    Returns
    -------
    tuple of Path
        Slides without duplicates.

    Raises
    ------
    SlideError
        If a path does not exist or a folder holds no slide.
    """
    found: list[Path] = []
    for path in paths:
        if url_of(path) is None and not path.exists():
            raise SlideError("no such file", path, "Check the path")
        # DICOM and OME-Zarr slides are folders themselves.
        if not path.is_dir() or backend_for(path) is not None:
            found.append(path)
            continue
        try:
            inside = sorted(child for child in path.iterdir() if _is_slide(child))
        except OSError as error:
            failure = unreadable(error, path)
            raise failure from error
        if not inside:
            raise SlideError("holds no slides of a known format", path)
        found += inside
    # The same slide may be named twice, on its own and through its folder.
    return tuple(dict.fromkeys(found))


def _is_slide(path: Path) -> bool:
    # Hidden files are another program's or half-written; features lie beside slides.
    if path.name.startswith(".") or path.name.endswith(".features.zarr"):
        return False
    if path.is_file() and path.name.lower().endswith(_ENDINGS):
        return True
    return backend_for(path) not in (None, _PICTURES)
