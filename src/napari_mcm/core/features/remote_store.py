"""Publication of finished feature files in an object store.

Object stores write files whole and never change them. So a feature file is made on a
local disk and copied once it is complete. The group's own metadata, which marks it as
complete, is copied last: a reader sees a complete file or none.
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
    """A folder of feature files in an object store, or anywhere that fsspec can write.

    Parameters
    ----------
    url : str
        URL of the folder, such as ``s3://bucket/features``.

    Raises
    ------
    ConfigError
        If the library for the URL is missing, or the store cannot be reached.
    """

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs

        self._shown = shown(url)
        try:
            self._fs, self._root = url_to_fs(url)
            # Fail now, and not after the first slide is done.
            self._fs.exists(self._root)
        # Each store's library raises its own errors.
        except Exception as error:  # noqa: BLE001
            raise ConfigError(
                f"cannot be reached ({_first_line(error)})",
                self._shown,
                'pip install "napari-mcm[remote]" for s3, and check your credentials',
            ) from error

    def find(self, name: str) -> dict[str, Any] | None:
        """Read the attributes of a published feature file.

        Parameters
        ----------
        name : str
            Path of the file within the folder.

        Returns
        -------
        dict or None
            None where there is no such file.

        Raises
        ------
        OutputError
            If the store does not answer.
        """
        marker = f"{self._root}/{name}/{_MARKER}"
        try:
            if not self._fs.exists(marker):
                return None
            attributes = json.loads(self._fs.cat_file(marker)).get("attributes", {})
        except Exception as error:  # noqa: BLE001
            failure = self._failed(name, error)
            raise failure from error
        return attributes if isinstance(attributes, dict) else None

    def put_once(self, file: Path, name: str) -> Job[None]:
        """Copy a complete feature file as a job, unless it is published already.

        Parameters
        ----------
        file : Path
            The local feature file.
        name : str
            Path of the copy within the folder.

        Yields
        ------
        Progress
            In files.

        Raises
        ------
        OutputError
            If it cannot be written; the local file is kept.
        """
        local = json.loads((file / _MARKER).read_text(encoding="utf-8"))["attributes"]
        remote = self.find(name) or {}
        same = remote.get("identity") == local["identity"]
        if not (same and remote.get("complete") is True):
            yield from self.put(file, name)

    def put(self, file: Path, name: str) -> Job[None]:
        """Copy a complete feature file as a job, its marker last.

        Parameters
        ----------
        file : Path
            The local feature file.
        name : str
            Path of the copy within the folder; a file of that name is replaced.

        Yields
        ------
        Progress
            In files.

        Raises
        ------
        OutputError
            If it cannot be written; the local file is kept.
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
                # Marker first: what is left of an interrupted removal is no feature
                # file. One by one, as `rm` takes the brackets of a name for a pattern.
                self._fs.rm_file(marker)
                for part in self._fs.find(target):
                    self._fs.rm_file(part)
            for start in range(0, len(parts), _AT_ONCE):
                yield Progress(f"Publishing {name}", start, len(parts), "files")
                some = parts[start : start + _AT_ONCE]
                self._fs.put(
                    [str(file / part) for part in some],
                    [f"{target}/{part}" for part in some],
                )
            self._fs.put_file(str(file / _MARKER), marker)
        except Exception as error:  # noqa: BLE001
            failure = self._failed(name, error)
            raise failure from error

    def _failed(self, name: str, error: Exception) -> OutputError:
        return OutputError(
            f"cannot be published ({_first_line(error)})",
            f"{self._shown}/{name}",
            "Run the same again: finished files are kept",
        )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
