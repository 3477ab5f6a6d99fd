"""The next slide is opened and its grid laid while features of this one are computed."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from napari_mcm.core.errors import McmError
from napari_mcm.core.features.config import ExtractConfig
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
    """

    slide: Slide
    grid: PatchGrid
    tissue: str


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
    """

    def __init__(
        self, paths: Sequence[Path], config: ExtractConfig, grid: GridConfig
    ) -> None:
        self._config, self._grid = config, grid
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="slides-ahead")
        self._left = list(paths)
        self._coming: list[tuple[Path, Future[Prepared]]] = []
        self._start()

    def take(self, path: Path) -> Generator[Event, None, Prepared | McmError]:
        """Wait for the next slide, with a sign of life ten times a second.

        Parameters
        ----------
        path : Path
            The next of the slides.

        Returns
        -------
        Prepared or McmError
            What is wrong with it, where it cannot be prepared.
        """
        due, future = self._coming.pop(0)
        assert due == path
        self._start()
        while not wait([future], timeout=_POLL_S).done:
            yield Progress(f"Finding tissue on {path.name}", 0, None)
        try:
            return future.result()
        except McmError as error:
            return error

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
            tissue = find_tissue(slide, self._config.tissue)
            return Prepared(slide, make_grid(slide, tissue, self._grid), tissue.source)
        except BaseException:
            slide.close()
            raise


def _close(future: Future[Prepared]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().slide.close()
