"""Writing a raster with one pixel per patch as OME-TIFF, at its place on the slide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tifffile
from numpy.typing import NDArray

from napari_mcm.core.runtime.files import atomic_path


def write_ome_raster(
    path: Path,
    raster: NDArray[Any],
    pixel_um: tuple[float, float],
    corner_um: tuple[float, float],
    name: str,
    description: str = "",
) -> None:
    """Write a raster atomically.

    Parameters
    ----------
    path : Path
        The file, ``.ome.tif``.
    raster : ndarray, shape (rows, columns)
        One value per patch.
    pixel_um : tuple of float
        Width and height of a pixel in microns.
    corner_um : tuple of float
        Position (x, y) of the upper left corner on the slide, in microns.
    name : str
        What it shows.
    description : str, optional
        What the values mean.

    Raises
    ------
    McmError
        If it cannot be written.
    """
    x, y = pixel_um
    metadata: dict[str, Any] = {
        "axes": "YX",
        "Name": name,
        "PhysicalSizeX": x,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": y,
        "PhysicalSizeYUnit": "µm",
        "Plane": {
            "PositionX": corner_um[0],
            "PositionXUnit": "µm",
            "PositionY": corner_um[1],
            "PositionYUnit": "µm",
        },
    }
    if description:
        metadata["Description"] = description
    with atomic_path(path) as part:
        tifffile.imwrite(
            part,
            raster,
            ome=True,
            photometric="minisblack",
            compression="zlib",
            # Readers that ignore OME take the resolution from TIFF's own tags.
            resolution=(1e4 / x, 1e4 / y),
            resolutionunit="CENTIMETER",
            metadata=metadata,
        )
