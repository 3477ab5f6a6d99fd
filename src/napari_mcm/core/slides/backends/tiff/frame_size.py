"""The size that the header of a compressed tile states."""

from __future__ import annotations

import struct

Size = tuple[int, int, int]
"""Width, height and number of channels."""


_JPEG = {6, 7, 34892, 33007}

_JPEG2000 = {33003, 33004, 33005, 34712}

_WEBP = {34927, 50001}

_BOUNDED = {1, 5, 8, 32773, 32946, 34887, 34925, 50000}
"""Compressions whose decoders limit their output: none, LZW, deflate and others."""


READABLE = _JPEG | _JPEG2000 | _WEBP | _BOUNDED


def check_size(data: bytes, compression: int, largest: Size) -> None:
    """Check that a tile does not decode to more than a tile's size, by its header.

    A malicious header could otherwise make a small tile fill the memory.

    Parameters
    ----------
    data : bytes
        The tile as stored.
    compression : int
        TIFF's code of the compression.
    largest : tuple of int
        Width, height and channels of a whole tile.

    Raises
    ------
    ValueError
        If the header is damaged, or states a larger picture.
    """
    if compression in _JPEG:
        stated = _jpeg_size(data)
    elif compression in _JPEG2000:
        stated = _jpeg2000_size(data)
    elif compression in _WEBP:
        stated = _webp_size(data)
    else:
        return
    if any(own > most for own, most in zip(stated, largest, strict=True)):
        raise ValueError(
            f"its header states {stated[0]} x {stated[1]} px of {stated[2]} channels"
        )


def _jpeg_size(data: bytes) -> Size:
    at = 2
    while at + 10 <= len(data):
        if data[at] != 0xFF:
            raise ValueError("broken JPEG header")
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width, channels = struct.unpack_from(">HHB", data, at + 5)
            return width, height, channels
        if marker == 0xFF:
            at += 1
            continue
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    raise ValueError("JPEG without a frame header")


def _jpeg2000_size(data: bytes) -> Size:
    at = data.find(b"\xff\x4f\xff\x51", 0, 4096)
    if at < 0:
        raise ValueError("JPEG 2000 without a codestream")
    right, bottom, left, top = struct.unpack_from(">4I", data, at + 8)
    (channels,) = struct.unpack_from(">H", data, at + 40)
    return right - left, bottom - top, channels


def _webp_size(data: bytes) -> Size:
    kind = data[12:16]
    if kind == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (n & 0x3FFF for n in struct.unpack_from("<2H", data, 26))
    else:
        raise ValueError("broken WebP header")
    return width, height, 3
