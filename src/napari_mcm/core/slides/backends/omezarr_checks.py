"""Chunks are checked for completeness before they are decoded."""

from __future__ import annotations

from typing import Any

from zarr.abc.store import ByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

_METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
_BLOSC_HEADER = 16


class CheckedStore(WrapperStore[Any]):
    """A store that hands out whole chunks only.

    Blosc, which most writers of OME-Zarr use, does not look at how long a chunk is: one
    that was cut short decodes, without an error, to whatever lies in memory behind it.

    Attributes
    ----------
    blosc : bool
        Whether chunks are compressed with Blosc.
    sharded : bool
        Whether chunks are parts of larger objects.
    """

    blosc = False
    sharded = False

    def __init__(self, store: Store) -> None:
        super().__init__(store)

    async def get(
        self,
        key: str,
        prototype: BufferPrototype,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Give an object, or a range of it.

        Raises
        ------
        ValueError
            If a chunk has not the length that it should have.
        """
        found: Buffer | None = await self._store.get(key, prototype, byte_range)
        if found is None or key.rpartition("/")[2] in _METADATA:
            return found
        asked = _length(byte_range)
        if asked is not None and len(found) > asked:
            raise ValueError("its server sends whole files where parts are asked for")
        if asked is not None:
            _expect(asked, len(found), key)
        inner = isinstance(byte_range, RangeByteRequest)
        if self.blosc and (inner if self.sharded else byte_range is None):
            # Its header says how long it is, little-endian, in the last four bytes.
            header = found[:_BLOSC_HEADER].to_bytes()
            stated = int.from_bytes(header[12:], "little")
            _expect(max(stated, _BLOSC_HEADER), len(found), key)
        return found


def _length(asked: ByteRequest | None) -> int | None:
    """Give how many bytes are asked for; None where it is all that there are."""
    if isinstance(asked, RangeByteRequest):
        return asked.end - asked.start
    return asked.suffix if isinstance(asked, SuffixByteRequest) else None


def _expect(wanted: int, got: int, key: str) -> None:
    if wanted != got:
        raise ValueError(f"chunk {key} is {got} bytes long, not {wanted}")
