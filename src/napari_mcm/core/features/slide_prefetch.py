"""The next slide is opened and its grid laid while features of this one are computed.

Slides that another process is at are put back, to be looked at again later.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mcm.core.errors import McmError
from napari_mcm.core.features.config import (
    Counts,
    ExtractConfig,
    answers,
    as_begun,
    find_finished,
    find_matching_file,
    request_of,
)
from napari_mcm.core.features.format import feature_path, place_of
from napari_mcm.core.features.remote_store import RemoteFeatureStore
from napari_mcm.core.features.write_lock import WriteLockHeldError, held_by
from napari_mcm.core.grid import GridConfig, PatchGrid, make_grid
from napari_mcm.core.runtime.jobs import Event, Progress
from napari_mcm.core.slides import Slide
from napari_mcm.core.tissue import find_tissue

if TYPE_CHECKING:
    from napari_mcm.core.encoders import Encoder

_POLL_S = 0.1


@dataclass(frozen=True)
class Prepared:
    """A slide that is ready to be extracted.

    Attributes
    ----------
    slide : Slide
        Open; whoever takes it closes it.
    grid : PatchGrid
        Over its tissue.
    tissue : str
        Where its tissue mask comes from.
    files : tuple of Path
        Its feature files, one per encoder.
    encoders : tuple of Encoder
        Each in the precision of its file.
    request : str
        What is asked, see :mod:`napari_mcm.core.features.config`.
    """

    slide: Slide
    grid: PatchGrid
    tissue: str
    files: tuple[Path, ...]
    encoders: tuple[Encoder, ...]
    request: str


@dataclass(frozen=True)
class Finished:
    """A slide that was extracted before, as it is asked for now.

    Attributes
    ----------
    files : tuple of Path
        Its feature files, one an encoder.
    counts : dict of str to int
        Patches by the name of their status.
    """

    files: tuple[Path, ...]
    counts: Counts


@dataclass(frozen=True)
class Plan:
    """What is done to each slide.

    Attributes
    ----------
    config : ExtractConfig
        How slides are read and searched for tissue.
    grid : GridConfig
        With the resolution settled.
    folders : tuple of Path
        Where feature files go, one an encoder.
    encoders : tuple of Encoder
        One per folder.
    remote : RemoteFeatureStore or None
        Where files are published.
    """

    config: ExtractConfig
    grid: GridConfig
    folders: tuple[Path, ...]
    encoders: tuple[Encoder, ...]
    remote: RemoteFeatureStore | None = None

    def name(self, file: Path) -> str:
        """Name a feature file within the output folder."""
        assert self.config.out is not None
        return file.relative_to(self.config.out).as_posix()

    def described(self, files: tuple[Path, ...]) -> list[Mapping[str, Any]]:
        """Describe the encoders, each in the precision of its file."""
        return [encoder.describe() for encoder in self.encoders_of(files)]

    def encoders_of(self, files: tuple[Path, ...]) -> tuple[Encoder, ...]:
        """Give the encoders, each in the precision of its file."""
        pairs = zip(self.encoders, files, strict=True)
        return tuple(as_begun(encoder, file) for encoder, file in pairs)

    def answering(self, files: tuple[Path, ...], request: str) -> tuple[Path, ...]:
        """Take those beside in place of files, where they answer the request."""
        if not self.config.beside:
            return files
        pairs = zip(files, self.described(files), strict=True)
        return tuple(
            find_matching_file(file, encoder, request) for file, encoder in pairs
        )

    def places(self, files: tuple[Path, ...], grid: PatchGrid) -> tuple[Path, ...]:
        """Name the files to write, beside those made differently where that is asked."""
        if not self.config.beside:
            return files
        pairs = zip(files, self.described(files), strict=True)
        return tuple(place_of(file, grid, encoder) for file, encoder in pairs)

    def finished(self, files: tuple[Path, ...], request: str) -> Counts | None:
        """Look for finished files, here or where they are published."""
        described = self.described(files)
        counts = find_finished(files, described, request)
        if counts is None and self.remote is not None:
            for file, encoder in zip(files, described, strict=True):
                found = self.remote.find(self.name(file)) or {}
                counts = answers(found, encoder, request)
                if counts is None:
                    return None
        return counts


Ready = Prepared | Finished


class SlidePrefetcher:
    """Prepares slides in a thread, one ahead of the one that is taken.

    Parameters
    ----------
    paths : sequence of Path
        Slides.
    plan : Plan
        What is done to each.
    """

    def __init__(self, paths: Sequence[Path], plan: Plan) -> None:
        self._plan = plan
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="slides-ahead")
        self._left = list(paths)
        self._coming: list[tuple[Path, Future[Ready]]] = []
        self._start()

    @property
    def left(self) -> int:
        """How many slides are not taken yet."""
        return len(self._left) + len(self._coming)

    def take(self) -> Generator[Event, None, tuple[Path, Ready | McmError]]:
        """Wait for the next slide, with a sign of life ten times a second.

        Returns
        -------
        path : Path
            Which slide it is.
        ready : Prepared, Finished or McmError
            What is wrong with it, where it cannot be prepared; a `WriteLockHeldError`
            where another process is at it.
        """
        path, future = self._coming.pop(0)
        self._start()
        while not wait([future], timeout=_POLL_S).done:
            yield Progress(f"Finding tissue on {path.name}", 0, None)
        try:
            return path, future.result()
        except McmError as error:
            return path, error

    def put_back(self, path: Path) -> None:
        """Have a slide come again, after all others."""
        self._left.append(path)
        if not self._coming:
            self._start()

    def close(self) -> None:
        """Drop what was not taken; a slide that is being opened is closed when it is."""
        for _, future in self._coming:
            if not future.cancel():
                future.add_done_callback(_close)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> None:
        if self._left:
            path = self._left.pop(0)
            self._coming.append((path, self._pool.submit(self._prepare, path)))

    def _prepare(self, path: Path) -> Ready:
        plan, config = self._plan, self._plan.config
        slide = config.read.open(path)
        try:
            files = tuple(feature_path(folder, slide) for folder in plan.folders)
            for file in files:
                if (who := held_by(file)) is not None:
                    raise WriteLockHeldError.by(who, file)
            request = request_of(slide, plan.grid, config.tissue)
            answering = plan.answering(files, request)
            counts = plan.finished(answering, request)
            if counts is not None:
                slide.close()
                return Finished(answering, counts)
            tissue = find_tissue(slide, config.tissue)
            grid = make_grid(slide, tissue, plan.grid)
            files = plan.places(files, grid)
            encoders = plan.encoders_of(files)
            return Prepared(slide, grid, tissue.source, files, encoders, request)
        except BaseException:
            slide.close()
            raise


def _close(future: Future[Ready]) -> None:
    if future.cancelled() or future.exception() is not None:
        return
    ready = future.result()
    if isinstance(ready, Prepared):
        ready.slide.close()
