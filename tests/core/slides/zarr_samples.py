"""OME-Zarr files as different writers leave them."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray

TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}


def write_ome_zarr(
    path: Path,
    image: NDArray[np.uint8],
    axes: str = "tczyx",
    version: str = "0.5",
    mpp: float | None = 0.5,
    unit: str = "micrometer",
    levels: int = 2,
    chunk: int = 128,
    shard: int | None = None,
    dtype: type = np.uint8,
    name: str = "",
    **options: object,
) -> Path:
    """Write an image, shape (height, width, 3), and its halves as OME-Zarr."""
    group = zarr.open_group(path, mode="w", zarr_format=2 if version < "0.5" else 3)
    datasets = []
    for level in range(levels):
        block = _in_order(image[:: 2**level, :: 2**level].astype(dtype), axes)
        sizes = {"y": chunk, "x": chunk}
        chunks = tuple(sizes.get(a, 1) for a in axes)
        shards = tuple(shard if a in "yx" else 1 for a in axes) if shard else None
        array = group.create_array(
            str(level), shape=block.shape, dtype=dtype, chunks=chunks, shards=shards,
            fill_value=255, **options,
        )  # fmt: skip
        array[...] = block
        scale = [(mpp or 1.0) * 2**level if a in "yx" else 1.0 for a in axes]
        datasets.append(
            {
                "path": str(level),
                "coordinateTransformations": [{"type": "scale", "scale": scale}],
            }
        )
    multiscale = {
        "name": name,
        "axes": [
            {"name": a, "type": TYPES[a]}
            | ({"unit": unit} if a in "yx" and mpp else {})
            for a in axes
        ],
        "datasets": datasets,
    }
    if version < "0.5":
        group.attrs["multiscales"] = [multiscale | {"version": version}]
    else:
        group.attrs["ome"] = {"version": version, "multiscales": [multiscale]}
    return path


def _in_order(image: NDArray[np.uint8], axes: str) -> NDArray[np.uint8]:
    """Arrange (y, x, c) in the order of `axes`; without c, keep the first channel."""
    left = "yxc"
    if "c" not in axes:
        image, left = image[..., 0], "yx"
    for axis in axes:
        if axis not in left:
            image, left = image[None], axis + left
    return image.transpose([left.index(axis) for axis in axes])


def zip_of(folder: Path, path: Path, inside: str = "") -> Path:
    """Pack a folder, without compression as zarr does it."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, Path(inside) / file.relative_to(folder))
    return path


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine; gives its URL."""
    handler = partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
