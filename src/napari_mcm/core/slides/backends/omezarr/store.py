"""Where an OME-Zarr file lies: a folder, a zip archive or a server."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zarr.abc.store import ByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

from napari_mcm.core.errors import SlideError
from napari_mcm.core.slides.backend import Place
from napari_mcm.core.slides.backends.optional import import_optional, said
from napari_mcm.core.slides.paths import shown

if TYPE_CHECKING:
    import zarr


MARKERS = (".zattrs", ".zgroup", "zarr.json")
"""One of them lies in every group."""


_ZIP = b"PK\x03\x04"

_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class StoreLocation:
    """An open place.

    Attributes
    ----------
    where : str
        For messages.
    store : Store
        What zarr reads through.
    root : str
        The group in the store that is the file's own.
    read : callable
        Gives a document by its key, None where there is none.
    remote : bool
        Whether a read may fail today and work tomorrow.
    """

    where: str
    store: Store
    root: str
    read: Callable[[str], bytes | None]
    remote: bool = False

    def close(self) -> None:
        """Close all handles; one that was never read through is not open."""
        if self.store._is_open:
            self.store.close()

    def attributes(self, path: str = "") -> Mapping[str, Any] | None:
        """Give the attributes of a group; None where there is no group.

        Raises
        ------
        SlideError
            If they are damaged, or the place cannot be read.
        """
        import zarr

        try:
            group = zarr.open_group(
                self.store, path=self._full(path), mode="r", use_consolidated=False
            )
            return dict(group.attrs)
        except FileNotFoundError:
            return None
        # Damaged JSON, an array in its place, a server that is down: no common base.
        except Exception as error:  # noqa: BLE001
            raise SlideError(
                f"the metadata of group {path or '/'} cannot be read ({said(error)})",
                self.where,
                "Check the network and the address"
                if self.remote
                else "Copy the file again from its source",
            ) from error

    def array(self, path: str) -> zarr.Array[Any]:
        """Open an array.

        Raises
        ------
        SlideError
            If it is missing or damaged.
        """
        import zarr

        store = CheckedStore(self.store)
        try:
            array = zarr.open_array(store, path=self._full(path), mode="r")
        except Exception as error:  # noqa: BLE001
            raise SlideError(
                f"array {path} cannot be opened ({said(error)})",
                self.where,
                "Copy the file again from its source",
            ) from error
        store.blosc = "blosc" in codecs_of(array)
        store.sharded = array.shards is not None
        return array

    def _full(self, path: str) -> str:
        return "/".join(part for part in (self.root, path) if part)


def codecs_of(array: zarr.Array[Any]) -> list[str]:
    """Name what an array's chunks went through when they were written."""
    codecs = [*array.filters, *array.compressors]
    return [type(codec).__name__.lower().removesuffix("codec") for codec in codecs]


def looks_like_zarr(place: Place) -> bool:
    """Whether there is a group at a place, by a quick look. Every URL may be one."""
    if place.url is not None:
        return True
    if place.is_dir:
        return any((place.path / marker).is_file() for marker in MARKERS)
    return place.head.startswith(_ZIP) and _root_in_zip(place.path) is not None


def open_location(place: Place) -> StoreLocation:
    """Open a place.

    Raises
    ------
    SlideError
        If it cannot be opened, or a library for it is missing.
    """
    if place.url is not None:
        return _remote(place.url, place.path)
    return _folder(place.path) if place.is_dir else _zip(place.path)


def _folder(path: Path) -> StoreLocation:
    from zarr.storage import LocalStore

    def read(key: str) -> bytes | None:
        file = path / key
        return file.read_bytes() if file.is_file() else None

    return StoreLocation(str(path), LocalStore(path, read_only=True), "", read)


def _zip(path: Path) -> StoreLocation:
    from zarr.storage import ZipStore

    root = _root_in_zip(path)
    if root is None:
        raise SlideError("is no zip archive that holds OME-Zarr", path)

    def read(key: str) -> bytes | None:
        with zipfile.ZipFile(path) as archive:
            try:
                return archive.read(f"{root}/{key}" if root else key)
            except KeyError:
                return None

    return StoreLocation(str(path), ZipStore(path, mode="r"), root, read)


def _root_in_zip(path: Path) -> str | None:
    """Find the outermost group: people zip a folder's content, or the folder itself."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return None
    groups = [name for name in names if name.rpartition("/")[2] in MARKERS]
    outermost = min(groups, key=lambda name: name.count("/"), default=None)
    return None if outermost is None else outermost.rpartition("/")[0]


def _remote(url: str, path: Path) -> StoreLocation:
    from zarr.storage import FsspecStore

    fsspec = import_optional("fsspec", "remote", path)
    scheme = url.partition(":")[0]
    try:
        options = _options(scheme, path)
        store = FsspecStore.from_url(url, storage_options=options, read_only=True)
        files = fsspec.filesystem(scheme, **options)
    except SlideError:
        raise
    except Exception as error:  # noqa: BLE001
        raise SlideError(f"cannot be reached ({said(error)})", shown(path)) from error

    def read(key: str) -> bytes | None:
        try:
            found: bytes = files.cat_file(f"{url.rstrip('/')}/{key}")
        # Nothing depends on these documents: a server may not show them.
        except Exception:  # noqa: BLE001
            return None
        return found

    return StoreLocation(shown(path), store, "", read, remote=True)


def _options(scheme: str, path: Path) -> dict[str, Any]:
    """Say how to talk to a kind of server."""
    if scheme == "s3":
        import_optional("s3fs", "remote", path)
        session = import_optional("botocore.session", "remote", path).get_session()
        # Public buckets take no signature, least of all an empty one.
        return {"anon": session.get_credentials() is None}
    if scheme == "gs":
        import_optional("gcsfs", "", path)
        return {}
    aiohttp = import_optional("aiohttp", "remote", path)
    return {"client_kwargs": {"timeout": aiohttp.ClientTimeout(total=_TIMEOUT)}}


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
