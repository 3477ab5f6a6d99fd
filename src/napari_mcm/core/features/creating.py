"""A new feature file: its arrays, with a checksum a chunk, and its attributes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from napari_mcm.core.features.layout import (
    ARRAYS,
    OPTIONAL,
    SCHEMA,
    VERSION,
    identity_of,
)
from napari_mcm.core.grid import PatchGrid


def create_group(
    path: Path, grid: PatchGrid, encoder: Mapping[str, Any], block: int
) -> tuple[zarr.Group, int]:
    """Start a feature file in which all rows are pending.

    Parameters
    ----------
    path : Path
        Where nothing is yet.
    grid : PatchGrid
        Its patches.
    encoder : mapping
        Described.
    block : int
        Rows of a block, at most.

    Returns
    -------
    group : zarr.Group
        Open for writing. Its attributes were written last.
    block : int
        Rows of a block.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, dim = len(grid), int(encoder["dim"])
    block = max(min(block, rows), 1)
    group = zarr.create_group(path, zarr_format=3)
    for name, values in (("coords", grid.xy), ("lattice", grid.lattice)):
        _create(group, name, (rows, 2), max(rows, 1))[:] = values
    _create(group, "features", (rows, dim), block)
    # The status last: a file that has it has the others.
    for name in (*OPTIONAL, "status"):
        _create(group, name, (rows,), block)
    # In one write: `attrs.update` would make one of each.
    group.update_attributes(
        {
            "schema": SCHEMA,
            "version": VERSION,
            "identity": identity_of(grid, encoder),
            "grid": grid.describe(),
            "encoder": dict(encoder),
            "complete": False,
        }
    )
    return group, block


def _create(
    group: zarr.Group, name: str, shape: tuple[int, ...], block: int
) -> zarr.Array[Any]:
    kind = (ARRAYS | OPTIONAL)[name]
    # Floats of networks hardly shrink. The checksum is over what lies on the disk.
    pack = () if name == "features" else (ZstdCodec(level=0),)
    return group.create_array(
        name,
        shape=shape,
        chunks=(block, *shape[1:]),
        dtype=kind.dtype,
        fill_value=kind.fill,
        compressors=(*pack, Crc32cCodec()),
        dimension_names=kind.dims,
        # Empty chunks are written too, so that a missing one is known to be lost.
        config={"write_empty_chunks": True},
    )
