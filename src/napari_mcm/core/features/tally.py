"""What an extraction over slides leaves, counted while it runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from napari_mcm.core.features.request import Counts
from napari_mcm.core.jobs import Job, Note, Progress

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class ExtractResult:
    """What an extraction over slides leaves.

    Attributes
    ----------
    files : tuple of Path
        Complete feature files, those that were there already among them.
    slides, patches : int
        How many have features now.
    failed : tuple of str
        A line for each slide, or number of patches, that could not be read.
    patches_per_s : float
        While patches were extracted; 0 where all features were there already.
    seconds : float
        Time of the whole job.
    """

    files: tuple[Path, ...]
    slides: int
    patches: int
    failed: tuple[str, ...]
    patches_per_s: float
    seconds: float


class Tally:
    """What there is so far: files, patches, and the time that these take."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._files: list[Path] = []
        self._failed: list[str] = []
        self._slides = self._patches = 0
        self._extracted, self._seconds = 0, 0.0

    def fail(self, line: str) -> Job[None]:
        """Note what cannot be read."""
        self._failed.append(line)
        yield Note(line, "warning")

    def count(self, path: Path, files: Sequence[Path], counts: Counts) -> None:
        """Add a slide's files."""
        self._slides += 1
        # Another machine's files may be where they are published only.
        self._files += filter(Path.exists, files)
        self._patches += counts.get("ok", 0)
        damaged = counts.get("decode_error", 0)
        if damaged:
            self._failed.append(f"{path}: {damaged} patches could not be decoded")

    def result(self) -> ExtractResult:
        """Sum up."""
        return ExtractResult(
            tuple(self._files),
            self._slides,
            self._patches,
            tuple(self._failed),
            self._extracted / self._seconds if self._seconds else 0.0,
            time.monotonic() - self._began,
        )

    def follow(self, job: Job[_Result]) -> Job[_Result]:
        """Pass a job's events on, and count by them."""
        marks: list[tuple[int, float]] = []
        try:
            while True:
                event = next(job)
                if isinstance(event, Progress) and event.total is not None:
                    marks = [*marks[:1], (event.done, time.monotonic())]
                yield event
        except StopIteration as end:
            result: _Result = end.value
            return result
        finally:
            job.close()
            if marks:
                self._extracted += marks[-1][0] - marks[0][0]
                self._seconds += marks[-1][1] - marks[0][1]
