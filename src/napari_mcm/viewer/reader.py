"""The plugin's reader: slides as multiscale, lazy napari layers, scaled in microns."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

from napari_mcm.core.errors import McmError
from napari_mcm.viewer.app.first_dock import bring_dock
from napari_mcm.viewer.app.persistence import known_mpp
from napari_mcm.viewer.app.settings import preferences
from napari_mcm.viewer.layers.early_slicing import slice_before_drawing
from napari_mcm.viewer.layers.level_array import LevelArray
from napari_mcm.viewer.layers.metadata import (
    LayerData,
    kind_of,
    metadata_of,
    truncated,
    with_mpp,
)

ReaderFunction = Callable[[str | Path], list[LayerData]]


_ONLY_OPENSLIDE = (".mrxs", ".vms", ".vmu", ".svslide")
_ONLY_SLIDES = (".svs", ".ndpi", ".scn", ".bif", ".qptiff", *_ONLY_OPENSLIDE)
"""Suffixes of slides only: what has one and is no slide is damaged, and is said so."""


def get_reader(path: str | Path | list[str]) -> ReaderFunction | None:
    """Return the reader function for a slide, or None for any other file or folder.

    Only the first bytes are checked, so the call is fast.

    Parameters
    ----------
    path : str, Path or list of str
        A file or folder. A list stands for a stack of images, which is not supported.

    Returns
    -------
    callable or None
        :func:`read_or_explain` if a slide format is recognised, or if opening the file
        says why it cannot be read.
    """
    from napari_mcm.core.slides import backend_for

    if not isinstance(path, str | Path):
        return None
    known = backend_for(path) or _is_named_slide(path) or _is_unreadable(Path(path))
    return read_or_explain if known else None


def read_or_explain(path: str | Path) -> list[LayerData]:
    """Open a slide for napari; where it is refused, show why in a notification.

    napari's own message, and its choice among other readers, do not give the reason.

    Parameters
    ----------
    path : str or Path
        The file or folder.

    Returns
    -------
    list of tuple
        As :func:`read_slide` returns them.

    Raises
    ------
    SlideError
        If the file cannot be read.
    """
    try:
        return read_slide(path)
    except McmError as error:
        from napari.utils.notifications import show_error

        show_error(str(error))
        raise


def _is_named_slide(path: str | Path) -> bool:
    """Return whether a file has the suffix of a format that only slides have.

    The reader takes it even if it is damaged, or OpenSlide is missing: opening then
    explains why it fails.
    """
    path = Path(path)
    return path.suffix.lower() in _ONLY_SLIDES and path.is_file()


def _is_unreadable(path: Path) -> bool:
    """Return whether a file may not be read: opening it then explains why."""
    try:
        return path.exists() and not os.access(path, os.R_OK)
    except OSError:
        return True


def read_slide(path: str | Path, mpp: float | None = None) -> list[LayerData]:
    """Open a slide as one multiscale layer.

    Parameters
    ----------
    path : str or Path
        The file or folder.
    mpp : float, optional
        Microns per level-0 pixel, if the file states none or a wrong one. Without it, the
        value that was entered earlier for a file that states none is used.

    Returns
    -------
    list of tuple
        One image layer of lazy RGB levels. World coordinates are microns; without a known
        resolution they are pixels, and the *Slide* widget asks for it.

    Raises
    ------
    SlideError
        If the file cannot be read; the message is one line with the reason.
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
    if slide.truncation:
        from napari.utils.notifications import show_warning

        show_warning(truncated(slide))
    bring_dock(slide)
    kwargs |= _shared_units()
    levels = [LevelArray(slide, level) for level in range(len(slide.levels))]
    for level in levels:
        # While napari makes the layer.
        level.decode_ahead()
    _prepare_viewer()
    return [(levels, kwargs, "image")]


def _prepare_viewer() -> None:
    """Prepare the viewer that opens the slide, where no dock has done it yet."""
    from napari import current_viewer

    # The session reads slides in a thread, and has prepared its viewer itself.
    if current_thread() is main_thread() and (viewer := current_viewer()) is not None:
        slice_before_drawing(viewer)


def _shared_units() -> dict[str, Any]:
    """Return the units that the plugin's layers in the viewer have; none without any.

    napari draws a layer as soon as it is added, and warns if its units are of another
    kind. The session gives all layers those of the slide that is shown.
    """
    from napari import current_viewer

    viewer = current_viewer()
    for layer in viewer.layers if viewer is not None else ():
        if kind_of(layer) == "slide":
            return {"units": tuple(str(unit) for unit in layer.units)}
    return {}
