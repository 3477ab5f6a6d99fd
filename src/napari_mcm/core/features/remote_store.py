"""Finished feature files, copied to an object store.

Files there are written whole and never changed, so a feature file is made on a disk of
its own and copied once it is complete; the group's own metadata, which says so, comes
last. Whoever reads there sees a complete file or none.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from napari_mcm.core.errors import ConfigError, OutputError
from napari_mcm.core.runtime.jobs import Job, Progress
from napari_mcm.core.slides.paths import shown

_MARKER = "zarr.json"
_AT_ONCE = 16


class RemoteFeatureStore:
    """A folder of an object store, or of any place that fsspec knows.

    Parameters
    ----------
    url : str
        Such as ``s3://bucket/features``.

    Raises
    ------
    ConfigError
        If the place is of a kind whose library is missing, or cannot be reached.
    """

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs

        self._shown = shown(url)
        try:
            self._fs, self._root = url_to_fs(url)
            # Asked for once now: not after hours, when the first slide is done.
            self._fs.exists(self._root)
        # Each store's library has errors of its own.
        except Exception as error:  # noqa: BLE001
            raise ConfigError(
                f"cannot be reached ({_said(error)})",
                self._shown,
                'pip install "napari-mcm[remote]" for s3, and check your credentials',
            ) from error

    def find(self, name: str) -> dict[str, Any] | None:
        """Give the attributes of a feature file that is there, None if none is."""
        marker = f"{self._root}/{name}/{_MARKER}"
        try:
            if not self._fs.exists(marker):
                return None
            attributes = json.loads(self._fs.cat_file(marker)).get("attributes", {})
        except Exception as error:  # noqa: BLE001
            raise self._failed(name, error) from error
        return attributes if isinstance(attributes, dict) else None

    def put_once(self, file: Path, name: str) -> Job[None]:
        """Copy a complete feature file, unless it is there."""
        here = json.loads((file / _MARKER).read_text(encoding="utf-8"))["attributes"]
        there = self.find(name) or {}
        same = there.get("identity") == here["identity"]
        if not (same and there.get("complete") is True):
            yield from self.put(file, name)

    def put(self, file: Path, name: str) -> Job[None]:
        """Copy a complete feature file, its marker last.

        Raises
        ------
        OutputError
            If it cannot be written there; the local file stays.
        """
        parts = [
            str(part.relative_to(file).as_posix())
            for part in sorted(file.rglob("*"))
            if part.is_file() and part != file / _MARKER
        ]
        target = f"{self._root}/{name}"
        try:
            marker = f"{target}/{_MARKER}"
            if self._fs.exists(marker):  # of another identity
                self._fs.rm(target, recursive=True)
            for start in range(0, len(parts), _AT_ONCE):
                yield Progress(f"Publishing {name}", start, len(parts), "files")
                some = parts[start : start + _AT_ONCE]
                self._fs.put(
                    [str(file / part) for part in some],
                    [f"{target}/{part}" for part in some],
                )
            self._fs.put_file(str(file / _MARKER), marker)
        except Exception as error:  # noqa: BLE001
            raise self._failed(name, error) from error

    def _failed(self, name: str, error: Exception) -> OutputError:
        return OutputError(
            f"cannot be published ({_said(error)})",
            f"{self._shown}/{name}",
            "Run the same again: what is done is kept",
        )


def _said(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
