"""Slides as napari layers: multiscale, lazy, in microns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari_mcm.viewer.app.persistence import known_mpp
from napari_mcm.viewer.app.settings import preferences
from napari_mcm.viewer.layers.level_array import LevelArray
from napari_mcm.viewer.layers.metadata import LayerData, metadata_of, with_mpp

ReaderFunction = Callable[[str | Path], list[LayerData]]


_ONLY_OPENSLIDE = (".mrxs", ".vms", ".vmu", ".svslide")


def get_reader(path: str | Path | list[str]) -> ReaderFunction | None:
    """Say whether this plugin reads a file or folder, by a quick look into it.

    Parameters
    ----------
    path : str, Path or list of str
        A file or folder. A list asks for a stack, which slides do not make.

    Returns
    -------
    callable or None
        :func:`read_slide` for what looks like a slide.
    """
    from napari_mcm.core.slides import backend_for

    if not isinstance(path, str | Path):
        return None
    return read_slide if backend_for(path) or _named_like_one(path) else None


def _named_like_one(path: str | Path) -> bool:
    """Tell whether only OpenSlide can say what a file is; it tells why it cannot."""
    path = Path(path)
    return path.suffix.lower() in _ONLY_OPENSLIDE and path.is_file()


def read_slide(path: str | Path, mpp: float | None = None) -> list[LayerData]:
    """Open a slide as one multiscale layer.

    Parameters
    ----------
    path : str or Path
        The file or folder.
    mpp : float, optional
        Microns per level-0 pixel, where the file states none or a wrong one. What was
        given before for a file that states none is remembered.

    Returns
    -------
    list of tuple
        One image layer of lazy RGB levels. Its world is in microns; where nobody states
        the resolution it is in pixels, and the *Slide* widget asks for it.

    Raises
    ------
    SlideError
        If the file cannot be read: one line that says why.
    """
    from napari_mcm.core.slides import open_slide

    slide = open_slide(path, mpp)
    slide.cache.capacity = preferences().tile_cache_mib * 2**20
    if slide.stated_mpp is None and (known := known_mpp(slide.fingerprint)):
        slide = with_mpp(slide, known)
    kwargs: dict[str, Any] = {
        "name": slide.name,
        "rgb": True,
        "multiscale": True,
        "contrast_limits": (0, 255),
        "blending": "opaque",
        "axis_labels": ("y", "x"),
        "metadata": metadata_of(slide),
    }
    if slide.stated_mpp is not None:
        kwargs |= {"scale": slide.stated_mpp[::-1], "units": ("um", "um")}
    levels = [LevelArray(slide, level) for level in range(len(slide.levels))]
    return [(levels, kwargs, "image")]
