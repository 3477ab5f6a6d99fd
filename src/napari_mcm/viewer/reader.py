"""Slides as napari layers: multiscale, lazy, in microns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari_mcm.viewer.slide_facts import SlideFacts

LayerData = tuple[Any, dict[str, Any], str]
ReaderFunction = Callable[[str | Path], list[LayerData]]

_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def get_reader(path: str | Path | list[str]) -> ReaderFunction | None:
    """Say whether this plugin reads a file, by its first bytes.

    Parameters
    ----------
    path : str, Path or list of str
        A file. A list asks for a stack, which slides do not make.

    Returns
    -------
    callable or None
        :func:`read_slide` for a TIFF of any kind.
    """
    if not isinstance(path, str | Path):
        return None
    try:
        with Path(path).open("rb") as file:
            return read_slide if file.read(4) in _TIFF_MAGIC else None
    except OSError:
        return None


def read_slide(path: str | Path, mpp: float | None = None) -> list[LayerData]:
    """Open a slide as one multiscale layer.

    Parameters
    ----------
    path : str or Path
        The file.
    mpp : float, optional
        Microns per level-0 pixel, where the file states none or a wrong one.

    Returns
    -------
    list of tuple
        One image layer of lazy RGB levels. Its world is in microns; where nobody states
        the resolution it is in pixels, and the *Similarity* widget asks for it.

    Raises
    ------
    SlideError
        If the file cannot be read: one line that says why.
    """
    from napari_mcm.core.slides import open_slide

    slide = open_slide(path, mpp)
    facts = SlideFacts.of_slide(slide)
    kwargs: dict[str, Any] = {
        "name": slide.name,
        "rgb": True,
        "multiscale": True,
        "contrast_limits": (0, 255),
        "blending": "opaque",
        "axis_labels": ("y", "x"),
        "metadata": facts.to_metadata(),
    }
    if facts.mpp is not None:
        kwargs |= {"scale": facts.mpp[::-1], "units": ("um", "um")}
    levels = [slide.as_dask(level) for level in range(len(slide.levels))]
    return [(levels, kwargs, "image")]
