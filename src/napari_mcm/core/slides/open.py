"""Opening a slide: which backend reads it, and what its physical resolution is."""

from __future__ import annotations

from pathlib import Path

from napari_mcm.core.errors import SlideError
from napari_mcm.core.slides.slide import Slide
from napari_mcm.core.slides.tiff import open_tiff


def open_slide(path: str | Path, mpp: float | None = None) -> Slide:
    """Open a whole-slide image.

    Parameters
    ----------
    path : str or Path
        A file of the TIFF family: Aperio SVS (JPEG or JPEG 2000), pyramidal TIFF,
        OME-TIFF (pyramids in SubIFDs), BigTIFF.
    mpp : float, optional
        Microns per level-0 pixel, for a file that states none or a wrong one. It
        overrides what the file says.

    Returns
    -------
    Slide
        Open for reading; close it, or use it as a context manager. A file that states
        no resolution opens too (for a look at it), but its :attr:`Slide.mpp` raises.

    Raises
    ------
    SlideError
        If the file is missing, damaged or not a slide.
    """
    path = Path(path)
    if not path.exists():
        raise SlideError("no such file", path, "Check the path")
    if path.is_dir():
        raise SlideError("is a folder, not a slide file", path)
    if mpp is not None and not 0 < mpp < float("inf"):
        raise SlideError(f"mpp must be a positive number of microns, not {mpp}", path)
    return open_tiff(path, mpp)
