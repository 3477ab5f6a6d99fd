"""What a search has found so far, in a file, so that a cancelled search resumes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from hashlib import blake2b
from pathlib import Path
from typing import Any

from napari_mcm.core.errors import McmError
from napari_mcm.core.features.mapped import stamp_of_file
from napari_mcm.core.search.result import PatchMatch, SlideMatch


class SearchRecord:
    """A line for each file that was searched, with a hash of query and content.

    Parameters
    ----------
    path : Path
        The file; it is created with the first line.
    query : str
        What the result depends on besides the file: query and options.
    """

    def __init__(self, path: Path, query: str) -> None:
        self.path, self._query = path, query
        self._known: dict[str, Mapping[str, Any]] = {}
        with suppress(OSError):
            for line in path.read_text(encoding="utf-8").splitlines():
                # A killed process may have left half of the last line.
                with suppress(ValueError, KeyError, TypeError):
                    one = json.loads(line)
                    self._known[one["key"]] = one

    def find(self, file: Path) -> tuple[SlideMatch, tuple[PatchMatch, ...]] | None:
        """Return what an earlier run found of a file with the same content.

        Parameters
        ----------
        file : Path
            A feature file.

        Returns
        -------
        tuple or None
            The slide and its patches; None where it was not searched.
        """
        with suppress(McmError, KeyError, TypeError, ValueError):
            if (known := self._known.get(self._key(file))) is not None:
                patches = (_built(PatchMatch, one) for one in known["patches"])
                return _built(SlideMatch, known["slide"]), tuple(patches)
        return None

    def add(self, file: Path, slide: SlideMatch, patches: Sequence[PatchMatch]) -> None:
        """Note what was found of a file.

        Parameters
        ----------
        file : Path
            The feature file.
        slide : SlideMatch
            Its slide.
        patches : sequence of PatchMatch
            Its most similar patches.

        Raises
        ------
        McmError
            If the file cannot be written.
        """
        key = self._key(file)
        if key in self._known:
            return
        line = json.dumps(
            {
                "key": key,
                "slide": _plain(slide),
                "patches": [_plain(patch) for patch in patches],
            }
        )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as opened:
                opened.write(f"{line}\n")
        except OSError as error:
            raise McmError(
                f"cannot be written ({error.strerror or error})",
                self.path,
                "Check the folder's permissions and the free space on the disk",
            ) from error

    def remove(self) -> None:
        """Remove the file, once the whole result is written."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _key(self, file: Path) -> str:
        made = f"{self._query} {file} {stamp_of_file(file)}"
        return blake2b(made.encode(), digest_size=12).hexdigest()


def _plain(found: SlideMatch | PatchMatch) -> dict[str, Any]:
    return {**asdict(found), "features": str(found.features)}


def _built(kind: type[Any], content: Mapping[str, Any]) -> Any:
    names = {one.name for one in fields(kind)}
    if set(content) != names:
        raise ValueError("written by another version")
    return kind(**{**content, "features": Path(content["features"])})
