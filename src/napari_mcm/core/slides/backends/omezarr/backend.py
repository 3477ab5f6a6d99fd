"""Backend for OME-Zarr 0.1 to 0.5, in a folder, a zip archive or on a server.

Reads through zarr, which is imported when a file is opened. Format:
https://ngff.openmicroscopy.org
"""

from __future__ import annotations

from napari_mcm.core.slides.backend import Backend, Place, SlideFile
from napari_mcm.core.slides.backends.omezarr.recognise import looks_like_zarr


def _open(place: Place) -> SlideFile:
    from napari_mcm.core.slides.backends.omezarr.slide_file import open_omezarr

    return open_omezarr(place)


BACKEND = Backend("OME-Zarr", looks_like_zarr, _open)
