"""The clusters of an atlas as files that others read: a table, and GeoJSON for QuPath."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_mcm.core.atlas.atlas import Atlas
from napari_mcm.core.atlas.colours import distinct_colours
from napari_mcm.core.runtime.files import atomic_path
from napari_mcm.core.runtime.geojson import (
    make_feature,
    make_polygon,
    rectangle_rings,
    write_features,
)
from napari_mcm.core.runtime.jobs import Job, Progress
from napari_mcm.core.runtime.threads import run_in_thread

TABLE = "clusters.csv"

COLUMNS = (
    "slide",
    "fingerprint",
    "x",
    "y",
    "width",
    "height",
    "cluster",
    "map_x",
    "map_y",
)
"""Columns of the table; places and sizes are in level-0 pixels."""


def write_atlas(atlas: Atlas, folder: Path) -> Job[tuple[Path, ...]]:
    """Write the patches of an atlas with their clusters and places.

    Parameters
    ----------
    atlas : Atlas
        The atlas.
    folder : Path
        Where to write; files of the same names are replaced.

    Yields
    ------
    Progress
        In slides.

    Returns
    -------
    tuple of Path
        ``clusters.csv``, and one ``<slide>.clusters.geojson`` per slide.

    Raises
    ------
    McmError
        If a file cannot be written.
    """
    stage, total = "Writing clusters", len(atlas.slides)
    files = [folder / TABLE]
    yield from run_in_thread(
        Progress(stage, 0, total, "slides"), _table, atlas, files[0]
    )
    for number, name in enumerate(_names(atlas)):
        files.append(folder / f"{name}.clusters.geojson")
        yield from run_in_thread(
            Progress(stage, number, total, "slides"),
            _geojson,
            atlas,
            number,
            files[-1],
        )
    return tuple(files)


def _names(atlas: Atlas) -> Sequence[str]:
    """Return a file name per slide; slides of one name get their fingerprints as well."""
    names = [slide.name for slide in atlas.slides]
    return [
        name if names.count(name) == 1 else f"{name}-{slide.fingerprint}"
        for name, slide in zip(names, atlas.slides, strict=True)
    ]


def _table(atlas: Atlas, file: Path) -> None:
    with (
        atomic_path(file) as part,
        part.open("w", encoding="utf-8", newline="") as out,
    ):
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        for number, slide in enumerate(atlas.slides):
            width, height = slide.grid.patch_size_level0
            for patch in atlas.patches_of(number):
                x, y = atlas.corner_of(int(patch))
                across, up = atlas.map[patch].tolist()
                writer.writerow(
                    (
                        slide.name,
                        slide.fingerprint,
                        x,
                        y,
                        f"{width:g}",
                        f"{height:g}",
                        int(atlas.clusters[patch]) + 1,
                        f"{across:.6g}",
                        f"{up:.6g}",
                    )
                )


def _geojson(atlas: Atlas, number: int, file: Path) -> None:
    write_features(file, _tiles(atlas, number))


def _tiles(atlas: Atlas, number: int) -> Iterator[dict[str, Any]]:
    slide, patches = atlas.slides[number], atlas.patches_of(number)
    grid, rows = slide.grid, atlas.row[patches]
    low = grid.xy[rows]
    high = np.rint(low + np.asarray(grid.patch_size_level0)).astype(np.int64)
    colours = distinct_colours(atlas.cluster_count)
    for patch, ring in zip(patches, rectangle_rings(low, high).tolist(), strict=True):
        cluster = int(atlas.clusters[patch])
        name = f"cluster {cluster + 1}"
        across, up = atlas.map[patch].tolist()
        yield make_feature(
            make_polygon([ring]),
            {
                "objectType": "tile",
                "name": name,
                "classification": {"name": name, "color": colours[cluster].tolist()},
                "measurements": {"map x": round(across, 6), "map y": round(up, 6)},
            },
            f"{slide.fingerprint}/{ring[0][0]},{ring[0][1]}/cluster",
        )
