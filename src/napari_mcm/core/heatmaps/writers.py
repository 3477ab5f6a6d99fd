"""Writing heatmaps as figures, and as rasters and polygons for other programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.heatmaps.heatmap import Heatmap
from napari_mcm.core.lattice import cell_place_um, cell_rings
from napari_mcm.core.runtime.geojson import (
    make_feature,
    make_polygon,
    write_features,
)
from napari_mcm.core.runtime.ome_raster import write_ome_raster
from napari_mcm.core.slides import Slide


def write_heatmap(heatmap: Heatmap, path: Path, slide: Slide | None = None) -> Path:
    """Write a heatmap in the format that the file's ending names.

    Parameters
    ----------
    heatmap : Heatmap
        The heatmap.
    path : Path
        ``.png``: a figure with colour bar and scale bar. ``.ome.tif``, ``.ome.tiff``:
        one float32 pixel per patch, NaN without a value, with its size and the position
        of the upper left corner in µm. ``.geojson``: one polygon per patch in level-0
        pixels, as QuPath imports it.
    slide : Slide, optional
        Shown underneath in a figure.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ConfigError
        If the ending is another one.
    """
    path = Path(path)
    for ending, write in _WRITERS.items():
        if path.name.lower().endswith(ending):
            write(heatmap, path, slide)
            return path
    raise ConfigError(
        "has an ending that is not a heatmap format",
        path,
        f"Use one of {', '.join(_WRITERS)}",
    )


def _write_png(heatmap: Heatmap, path: Path, slide: Slide | None) -> None:
    # matplotlib is slow to import, and only figures need it.
    from napari_mcm.core.heatmaps.figures import draw_heatmap, save_figure

    save_figure(draw_heatmap(heatmap, slide), path)


def _write_ome_tiff(heatmap: Heatmap, path: Path, slide: Slide | None) -> None:
    grid = heatmap.grid
    write_ome_raster(path, heatmap.raster, *cell_place_um(grid), heatmap.title)


def _write_geojson(heatmap: Heatmap, path: Path, slide: Slide | None) -> None:
    # JSON has no NaN: patches without a value are left out.
    shown = np.flatnonzero(np.isfinite(heatmap.values))
    colours = _colours(heatmap)
    corners = cell_rings(heatmap.grid)
    tiles = (
        make_feature(
            make_polygon([corners[i].tolist()]),
            {
                "objectType": "tile",
                "name": "query" if i == heatmap.query else f"patch {i}",
                "color": colours[i].tolist(),
                "measurements": {heatmap.title: round(float(heatmap.values[i]), 6)},
            },
            _key(heatmap, int(i)),
        )
        for i in shown
    )
    write_features(path, tiles)


def _colours(heatmap: Heatmap) -> NDArray[np.uint8]:
    from matplotlib import colormaps

    low, high = heatmap.limits
    scaled = (np.nan_to_num(heatmap.values, nan=low) - low) / (high - low)
    colours: NDArray[Any] = colormaps[heatmap.colormap](scaled.clip(0, 1), bytes=True)
    return np.asarray(colours[:, :3], np.uint8)


def _key(heatmap: Heatmap, index: int) -> str:
    slide = heatmap.grid.slide["fingerprint"]
    # Slide, place and map: the same id whenever this map is written again.
    x, y = heatmap.grid.xy[index]
    return f"{slide}/{x},{y}/{heatmap.title}"


_WRITERS: dict[str, Callable[[Heatmap, Path, Slide | None], None]] = {
    ".png": _write_png,
    ".ome.tif": _write_ome_tiff,
    ".ome.tiff": _write_ome_tiff,
    ".geojson": _write_geojson,
}
