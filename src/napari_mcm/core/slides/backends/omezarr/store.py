"""Location of an OME-Zarr file: a folder, a zip archive or a server."""

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
from napari_mcm.core.slides.backends.omezarr.recognise import root_in_zip
from napari_mcm.core.slides.backends.optional import import_optional, one_line
from napari_mcm.core.slides.paths import shown

if TYPE_CHECKING:
    import zarr


_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class StoreLocation:
    """An open OME-Zarr file.

    Attributes
    ----------
    where : str
        Its path or URL, for messages.
    store : Store
        The store that zarr reads from.
    root : str
        Path of the file's own group in the store.
    read : callable
        Returns a document by its key; None where there is none.
    remote : bool
        Whether a failed read may succeed later.
    """

    where: str
    store: Store
    root: str
    read: Callable[[str], bytes | None]
    remote: bool = False

    def close(self) -> None:
        """Close all handles; a store that was never read is not open."""
        if self.store._is_open:
            self.store.close()

    def attributes(self, path: str = "") -> Mapping[str, Any] | None:
        """Read the attributes of a group.

        Parameters
        ----------
        path : str, optional
            Of the group, relative to the file.

        Returns
        -------
        mapping or None
            None where there is no group.

        Raises
        ------
        SlideError
            If they are damaged, or the location cannot be read.
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
            what = f"the metadata of group {path or '/'} cannot be read"
            raise self._failure(what, error) from error

    def array(self, path: str) -> zarr.Array[Any]:
        """Open an array.

        Parameters
        ----------
        path : str
            Of the array, relative to the file.

        Returns
        -------
        Array
            Reads whole chunks only; see :class:`CheckedStore`.

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
            what = f"array {path} cannot be opened"
            raise self._failure(what, error) from error
        store.blosc = "blosc" in codecs_of(array)
        store.sharded = array.shards is not None
        return array

    def _failure(self, what: str, error: Exception) -> SlideError:
        if self.remote and (failure := _server_failure(error, self.where)):
            return failure
        hint = "Copy the file again from its source"
        if self.remote:
            hint = "Check the network and the address"
        return SlideError(f"{what} ({one_line(error)})", self.where, hint)

    def _full(self, path: str) -> str:
        return "/".join(part for part in (self.root, path) if part)


def codecs_of(array: zarr.Array[Any]) -> list[str]:
    """Return the names of the filters and compressors of an array's chunks.

    Parameters
    ----------
    array : Array
        Open array.

    Returns
    -------
    list of str
        In lower case, for example ``["blosc"]``.
    """
    codecs = [*array.filters, *array.compressors]
    return [type(codec).__name__.lower().removesuffix("codec") for codec in codecs]


def open_location(place: Place) -> StoreLocation:
    """Open an OME-Zarr file for reading.

    Parameters
    ----------
    place : Place
        Folder, zip archive or URL.

    Returns
    -------
    StoreLocation
        Close it after use.

    Raises
    ------
    SlideError
        If it cannot be opened, or a required library is missing.
    """
    if place.url is not None:
        return _remote(place.url, place.path)
    return _folder(place.path) if place.is_dir else _zip(place.path)


def _folder(path: Path) -> StoreLocation:
    from zarr.storage import LocalStore

    def read(key: str) -> bytes | None:
        file = path / key
        try:
            return file.read_bytes() if file.is_file() else None
        except OSError as error:
            raise SlideError(
                f"{key} cannot be read ({error.strerror})", path
            ) from error

    return StoreLocation(str(path), LocalStore(path, read_only=True), "", read)


def _zip(path: Path) -> StoreLocation:
    """Open a zip archive.

    Raises
    ------
    SlideError
        If it holds no zarr group.
    """
    from zarr.storage import ZipStore

    try:
        root = root_in_zip(path)
    except OSError as error:
        raise SlideError(f"cannot be read ({error.strerror})", path) from error
    if root is None:
        raise SlideError("is not a zip archive that holds OME-Zarr", path)

    def read(key: str) -> bytes | None:
        with zipfile.ZipFile(path) as archive:
            try:
                return archive.read(f"{root}/{key}" if root else key)
            except KeyError:
                return None

    return StoreLocation(str(path), ZipStore(path, mode="r"), root, read)


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
        raise SlideError(
            f"cannot be reached ({one_line(error)})", shown(path)
        ) from error

    def read(key: str) -> bytes | None:
        try:
            found: bytes = files.cat_file(f"{url.rstrip('/')}/{key}")
        except Exception as error:  # noqa: BLE001
            # These documents are optional, and a server may not serve them.
            if _is_refusal(error):
                return None
            failure = _server_failure(error, shown(path)) or SlideError(
                f"{key} cannot be read ({one_line(error)})", shown(path)
            )
            raise failure from error
        return found

    return StoreLocation(shown(path), store, "", read, remote=True)


def _is_refusal(error: Exception) -> bool:
    """Return whether a server answered that there is no such file, or none for us."""
    missing = FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError
    return isinstance(error, missing) or 400 <= getattr(error, "status", 0) < 500


def _server_failure(error: Exception, where: str) -> SlideError | None:
    """Return the error of a server that refuses or does not answer; else None."""
    status = getattr(error, "status", 0)
    if isinstance(error, PermissionError) or status in (401, 403):
        return SlideError(
            f"its server refuses access ({one_line(error)})",
            where,
            "Check the address, and that your login may read it",
        )
    if status >= 500:
        return SlideError(
            f"its server answers with an error ({one_line(error)})",
            where,
            "Try again later",
        )
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        return SlideError(
            f"its server cannot be reached ({one_line(error)})",
            where,
            "Check the network and the address",
        )
    return None


def _options(scheme: str, path: Path) -> dict[str, Any]:
    """Return the connection options for a kind of server."""
    if scheme == "s3":
        import_optional("s3fs", "remote", path)
        session = import_optional("botocore.session", "remote", path).get_session()
        # Public buckets reject requests with an empty signature.
        return {"anon": session.get_credentials() is None}
    if scheme == "gs":
        import_optional("gcsfs", "", path)
        return {}
    aiohttp = import_optional("aiohttp", "remote", path)
    return {"client_kwargs": {"timeout": aiohttp.ClientTimeout(total=_TIMEOUT)}}


_METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")

_BLOSC_HEADER = 16


class CheckedStore(WrapperStore[Any]):
    """A store that rejects incomplete chunks.

    Blosc, which most writers of OME-Zarr use, does not check the length of a chunk: a
    truncated one decodes, without an error, to whatever lies in memory behind it.

    Parameters
    ----------
    store : Store
        The store to read from.

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
        """Read an object, or a range of it.

        Parameters
        ----------
        key : str
            Of the object.
        prototype : BufferPrototype
            Kind of buffer to return.
        byte_range : ByteRequest, optional
            The range; by default the whole object.

        Returns
        -------
        Buffer or None
            None where there is no such object.

        Raises
        ------
        ValueError
            If a chunk does not have the length that it should have.
        """
        found: Buffer | None = await self._store.get(key, prototype, byte_range)
        if found is None or key.rpartition("/")[2] in _METADATA:
            return found
        requested = _length(byte_range)
        if requested is not None and len(found) > requested:
            raise ValueError("its server sends whole files instead of byte ranges")
        if requested is not None:
            _expect(requested, len(found), key)
        inner = isinstance(byte_range, RangeByteRequest)
        if self.blosc and (inner if self.sharded else byte_range is None):
            # The last four bytes of its header state its length, little-endian.
            header = found[:_BLOSC_HEADER].to_bytes()
            stated = int.from_bytes(header[12:], "little")
            _expect(max(stated, _BLOSC_HEADER), len(found), key)
        return found


def _length(request: ByteRequest | None) -> int | None:
    """Return the number of requested bytes; None for a whole object or its end."""
    if isinstance(request, RangeByteRequest):
        return request.end - request.start
    return request.suffix if isinstance(request, SuffixByteRequest) else None


def _expect(expected: int, actual: int, key: str) -> None:
    if expected != actual:
        raise ValueError(f"chunk {key} is {actual} bytes long, not {expected}")
