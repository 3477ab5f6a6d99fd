"""The next slide is opened and its grid laid while features of this one are computed.

Slides that another process is at are put back, to be looked at again later.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from napari_mcm.core.errors import McmError
from napari_mcm.core.features.config import ExtractConfig
from napari_mcm.core.features.lease import LeaseHeldError, held_by
from napari_mcm.core.features.store import feature_path
from napari_mcm.core.grid import GridConfig, PatchGrid, make_grid
from napari_mcm.core.jobs import Event, Progress
from napari_mcm.core.slides import Slide
from napari_mcm.core.tissue import find_tissue

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
        Its feature files, one an encoder.
    """

    slide: Slide
    grid: PatchGrid
    tissue: str
    files: tuple[Path, ...]


class SlidesAhead:
    """Prepares slides in a thread, one ahead of the one that is taken.

    Parameters
    ----------
    paths : sequence of Path
        Slides.
    config : ExtractConfig
        How they are read and searched for tissue.
    grid : GridConfig
        With the resolution settled.
    folders : sequence of Path
        Where feature files go, one an encoder.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        config: ExtractConfig,
        grid: GridConfig,
        folders: Sequence[Path],
    ) -> None:
        self._config, self._grid, self._folders = config, grid, folders
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="slides-ahead")
        self._left = list(paths)
        self._coming: list[tuple[Path, Future[Prepared]]] = []
        self._start()

    @property
    def left(self) -> int:
        """How many slides are not taken yet."""
        return len(self._left) + len(self._coming)

    def take(self) -> Generator[Event, None, tuple[Path, Prepared | McmError]]:
        """Wait for the next slide, with a sign of life ten times a second.

        Returns
        -------
        path : Path
            Which slide it is.
        ready : Prepared or McmError
            What is wrong with it, where it cannot be prepared; a `LeaseHeldError`
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

    def _prepare(self, path: Path) -> Prepared:
        slide = self._config.read.open(path)
        try:
            files = tuple(feature_path(folder, slide) for folder in self._folders)
            for file in files:
                if (who := held_by(file)) is not None:
                    raise LeaseHeldError.by(who, file)
            tissue = find_tissue(slide, self._config.tissue)
            grid = make_grid(slide, tissue, self._grid)
            return Prepared(slide, grid, tissue.source, files)
        except BaseException:
            slide.close()
            raise


def _close(future: Future[Prepared]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().slide.close()
