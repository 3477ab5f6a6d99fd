"""A slide of 100,000 × 100,000 px in a file of a few megabytes.

A BigTIFF pyramid whose tiles are a handful of JPEGs that many places share: as many
directory entries, levels and decodes as a real one, without its bytes. Two round pieces
of tissue lie on white glass.

    python benchmarks/sparse_slide.py PATH [--size 100000]
"""

from __future__ import annotations

import argparse
import struct
from pathlib import Path

import imagecodecs
import numpy as np

MPP = 0.25
STEP = 4
_SHORT, _LONG, _LONG8, _RATIONAL = 3, 4, 16, 5


def write_sparse_slide(path: Path, size: int = 100_000, tile: int = 256) -> Path:
    """Write the slide; each level is 4 times coarser than the one before it."""
    glass, tissue = _tiles(tile)
    with path.open("wb") as file:
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
        places = []
        for jpeg in [glass, *tissue]:
            places.append((file.tell(), len(jpeg)))
            file.write(jpeg)
        link, downsample = 8, 1
        while size // downsample >= 512 or downsample == 1:
            link = _write_level(file, link, size, downsample, tile, places)
            downsample *= STEP
    return path


def _tiles(side: int) -> tuple[bytes, list[bytes]]:
    """Encode one tile of glass and eight of something like tissue."""
    rng = np.random.default_rng(0)
    glass = np.full((side, side, 3), 244, np.uint8)
    tissue = []
    for _ in range(8):
        coarse = rng.normal(0, 1, (side // 8, side // 8)).repeat(8, 0).repeat(8, 1)
        fine = rng.normal(0, 6, (side, side, 1))
        pink, purple = np.array([222, 150, 190]), np.array([92, 58, 140])
        image = np.where(coarse[..., None] > 1.0, purple, pink) + fine
        tissue.append(np.clip(image, 0, 255).astype(np.uint8))
    encoded = [imagecodecs.jpeg8_encode(image, level=80) for image in (glass, *tissue)]
    return encoded[0], encoded[1:]


def _write_level(file, link, size, downsample, tile, places) -> int:
    """Write tile tables and directory; return where the next one's offset goes."""
    pixels = size // downsample
    count = -(-pixels // tile)
    which = _layout(count, len(places) - 1)
    offsets, lengths = np.array(places, "<u8").T[:, which]
    at_offsets = _append(file, offsets.tobytes())
    at_lengths = _append(file, lengths.astype("<u4").tobytes())
    at_bits = struct.unpack("<Q", struct.pack("<4H", 8, 8, 8, 0))[0]
    density = struct.unpack(
        "<Q", struct.pack("<2I", round(1e7 / MPP / downsample), 1000)
    )[0]
    entries = [
        (254, _LONG, 1, int(downsample > 1)),
        (256, _LONG, 1, pixels),
        (257, _LONG, 1, pixels),
        (258, _SHORT, 3, at_bits),
        (259, _SHORT, 1, 7),
        (262, _SHORT, 1, 6),
        (277, _SHORT, 1, 3),
        (282, _RATIONAL, 1, density),
        (283, _RATIONAL, 1, density),
        (284, _SHORT, 1, 1),
        (296, _SHORT, 1, 3),
        (322, _LONG, 1, tile),
        (323, _LONG, 1, tile),
        (324, _LONG8, len(which), at_offsets),
        (325, _LONG, len(which), at_lengths),
        (530, _SHORT, 2, struct.unpack("<I", struct.pack("<2H", 2, 2))[0]),
    ]
    body = b"".join(struct.pack("<HHQQ", *entry) for entry in entries)
    directory = _append(file, struct.pack("<Q", len(entries)) + body + bytes(8))
    file.seek(link)
    file.write(struct.pack("<Q", directory))
    return directory + 8 + len(body)


def _layout(count: int, kinds: int) -> np.ndarray:
    """Choose a tile for each place: 0 is glass."""
    y, x = (np.indices((count, count)) + 0.5) / count
    tissue = ((x - 0.3) ** 2 + (y - 0.35) ** 2 < 0.04) | (
        (x - 0.7) ** 2 + (y - 0.65) ** 2 < 0.03
    )
    kind = np.random.default_rng(1).integers(1, kinds + 1, (count, count))
    return np.where(tissue, kind, 0).ravel()


def _append(file, data: bytes) -> int:
    file.seek(0, 2)
    file.write(bytes(-file.tell() % 16))
    place = file.tell()
    file.write(data)
    return place


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", nargs="?", type=Path, default=Path("/tmp/sparse.tif"))
    parser.add_argument("--size", type=int, default=100_000)
    options = parser.parse_args()
    print(write_sparse_slide(options.path, options.size))
