"""Preparation of the next slide while features of the current one are computed.

Preparing a slide opens it, finds its tissue and lays its grid. Slides that another
process is writing are put back and tried again later.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mcm.core.errors import McmError, TruncatedError
from napari_mcm.core.features.config import (
    Counts,
    ExtractConfig,
    find_finished,
    find_matching_file,
    in_precision_of_file,
    matching_counts,
    request_of,
)
from napari_mcm.core.features.format import feature_path, place_of
from napari_mcm.core.features.lookup import find_known_grid
from napari_mcm.core.features.remote_store import RemoteFeatureStore
from napari_mcm.core.features.write_lock import WriteLockHeldError, held_by
from napari_mcm.core.grid import GridConfig, PatchGrid, make_grid
from napari_mcm.core.runtime.jobs import Event, Progress
from napari_mcm.core.runtime.threads import Prefetcher
from napari_mcm.core.slides import Slide
from napari_mcm.core.tissue import find_tissue
from napari_mcm.core.tissue.mask import FOUND

if TYPE_CHECKING:
    from napari_mcm.core.encoders import Encoder

_POLL_S = 0.1


@dataclass(frozen=True)
class Prepared:
    """A slide that is ready to be extracted.

    Attributes
    ----------
    slide : Slide
        Open; the receiver closes it.
    grid : PatchGrid
        Patches on its tissue.
    tissue : str
        Source of its tissue mask.
    files : tuple of Path
        Its feature files, one per encoder.
    encoders : tuple of Encoder
        Each in the precision of its file.
    request : str
        Hash of the options, see :func:`~napari_mcm.core.features.config.request_of`.
    """

    slide: Slide
    grid: PatchGrid
    tissue: str
    files: tuple[Path, ...]
    encoders: tuple[Encoder, ...]
    request: str


@dataclass(frozen=True)
class Finished:
    """A slide whose features were extracted earlier with the same options.

    Attributes
    ----------
    files : tuple of Path
        Its feature files, one per encoder.
    counts : dict of str to int
        Number of patches by status.
    """

    files: tuple[Path, ...]
    counts: Counts


@dataclass(frozen=True)
class Plan:
    """The options that apply to each slide.

    Attributes
    ----------
    config : ExtractConfig
        Options of reading and of the tissue search.
    grid : GridConfig
        With the resolution resolved to a number.
    folders : tuple of Path
        Folders of feature files, one per encoder.
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
        """Return a feature file's path within the output folder.

        Parameters
        ----------
        file : Path
            The feature file.

        Returns
        -------
        str
            With forward slashes.
        """
        assert self.config.out is not None
        return file.relative_to(self.config.out).as_posix()

    def described(self, files: tuple[Path, ...]) -> list[Mapping[str, Any]]:
        """Describe the encoders, each in the precision of its file.

        Parameters
        ----------
        files : tuple of Path
            One per encoder.

        Returns
        -------
        list of mapping
            As :meth:`Encoder.describe` returns them.
        """
        return [encoder.describe() for encoder in self.encoders_of(files)]

    def encoders_of(self, files: tuple[Path, ...]) -> tuple[Encoder, ...]:
        """Return the encoders, each in the precision of its file.

        Parameters
        ----------
        files : tuple of Path
            One per encoder.

        Returns
        -------
        tuple of Encoder
            One per file.
        """
        pairs = zip(self.encoders, files, strict=True)
        return tuple(in_precision_of_file(encoder, file) for encoder, file in pairs)

    def matching_files(self, files: tuple[Path, ...], request: str) -> tuple[Path, ...]:
        """Return the files that match the request, which may lie beside the given ones.

        Parameters
        ----------
        files : tuple of Path
            One per encoder.
        request : str
            Hash of the options.

        Returns
        -------
        tuple of Path
            One per encoder; the given file where none matches.
        """
        if not self.config.beside:
            return files
        pairs = zip(files, self.described(files), strict=True)
        return tuple(
            find_matching_file(file, encoder, request) for file, encoder in pairs
        )

    def target_files(
        self, files: tuple[Path, ...], grid: PatchGrid
    ) -> tuple[Path, ...]:
        """Return the files to write, which lie beside others if that is configured.

        Parameters
        ----------
        files : tuple of Path
            One per encoder.
        grid : PatchGrid
            The patches to write.

        Returns
        -------
        tuple of Path
            One per encoder.
        """
        if not self.config.beside:
            return files
        pairs = zip(files, self.described(files), strict=True)
        return tuple(place_of(file, grid, encoder) for file, encoder in pairs)

    def finished(self, files: tuple[Path, ...], request: str) -> Counts | None:
        """Return the patch counts of finished files, local or published.

        Parameters
        ----------
        files : tuple of Path
            One per encoder.
        request : str
            Hash of the options.

        Returns
        -------
        dict of str to int or None
            Number of patches by status; None unless all files match.
        """
        described = self.described(files)
        counts = find_finished(files, described, request)
        if counts is None and self.remote is not None:
            for file, encoder in zip(files, described, strict=True):
                published = self.remote.find(self.name(file)) or {}
                counts = matching_counts(published, encoder, request)
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
        The options.
    """

    def __init__(self, paths: Sequence[Path], plan: Plan) -> None:
        self._plan = plan
        self._coming = Prefetcher(self._prepare, 1, "napari-mcm: next slide")
        self._left = list(paths)
        self._start()

    @property
    def left(self) -> int:
        """Return the number of slides that are not taken yet.

        Returns
        -------
        int
            Including slides that were put back.
        """
        return len(self._left) + len(self._coming)

    def take(self) -> Generator[Event, None, tuple[Path, Ready | McmError]]:
        """Wait for the next slide, with an event ten times per second.

        Yields
        ------
        Event
            Progress.

        Returns
        -------
        path : Path
            The slide.
        ready : Prepared, Finished or McmError
            An error where it cannot be prepared; a `WriteLockHeldError` where another
            process is writing its features.
        """
        path, future = self._coming.take()
        self._start()
        while not wait([future], timeout=_POLL_S).done:
            yield Progress(f"Finding tissue on {path.name}", 0, None)
        try:
            return path, future.result()
        except McmError as error:
            return path, error

    def put_back(self, path: Path) -> None:
        """Queue a slide again, after all others.

        Parameters
        ----------
        path : Path
            The slide.
        """
        self._left.append(path)
        if not len(self._coming):
            self._start()

    def close(self) -> None:
        """Drop the slides that were not taken, and close them once they are open."""
        self._coming.close(wait=False, discard=_close)

    def _start(self) -> None:
        if self._left:
            self._coming.add(self._left.pop(0))

    def _prepare(self, path: Path) -> Ready:
        plan, config = self._plan, self._plan.config
        slide = config.read.open(path)
        try:
            if slide.truncation:
                raise TruncatedError(slide.truncation, path, "Copy the file again")
            files = tuple(feature_path(folder, slide) for folder in plan.folders)
            for file in files:
                # Checked before the slow search for tissue, which would be in vain.
                if (who := held_by(file)) is not None:
                    raise WriteLockHeldError.by(who, file)
            request = request_of(slide, plan.grid, config.tissue)
            matching = plan.matching_files(files, request)
            counts = plan.finished(matching, request)
            if counts is not None:
                slide.close()
                return Finished(matching, counts)
            grid, source = self._grid(slide, files[0], request)
            files = plan.target_files(files, grid)
            encoders = plan.encoders_of(files)
            return Prepared(slide, grid, source, files, encoders, request)
        # Also a cancel: nobody else knows of the open slide.
        except BaseException:
            slide.close()
            raise

    def _grid(self, slide: Slide, file: Path, request: str) -> tuple[PatchGrid, str]:
        """Return the grid of a slide, and the source of its tissue mask."""
        config = self._plan.config
        if config.tissue.masks is None:
            known = find_known_grid(file, request)
            if known is not None:
                return known, FOUND
        tissue = find_tissue(slide, config.tissue)
        return make_grid(slide, tissue, self._plan.grid), tissue.source


def _close(future: Future[Ready]) -> None:
    if future.cancelled() or future.exception() is not None:
        return
    ready = future.result()
    if isinstance(ready, Prepared):
        ready.slide.close()
