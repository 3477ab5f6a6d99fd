"""How long a job is going to take, said before it starts.

A form asks with what it would start, and is called back with the answer::

    estimates = session.part(Estimates)
    estimates.ask("features", lambda areas: extraction_work(config, areas), show)
    ...
    def show(answer: Answer | None) -> None:
        label.setText(answer.text if answer else "")       # "about 4 min"

    session.jobs.start(title, make_job, take, timing=answer and answer.timing())

The answer comes from rates that earlier jobs had on this machine; without them, it is
guessed from multiply-adds and a probe of the processor; else there is none. Slides are
opened in the background, and no PyTorch is imported for it.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_mcm.core.errors import McmError
from napari_mcm.core.grid import DEFAULT_MPP, GridConfig
from napari_mcm.viewer.app.rates import Estimate, JobTiming, Work, estimate, read_rates
from napari_mcm.viewer.layers.metadata import SlideMetadata

if TYPE_CHECKING:
    from napari_mcm.viewer.app.session import Session

LONG_S = 12 * 3600.0
"""Duration on a CPU from which a form warns before it starts, in seconds."""
_TISSUE = 0.3
"""Fraction of a slide that holds tissue, where it has not been found."""
_OPENED = 12
"""Slides that are opened for an estimate; others are taken to be like them."""


@dataclass(frozen=True)
class SlideArea:
    """What is known of the size of a slide.

    Attributes
    ----------
    tissue_um2 : float
        Area of the tissue in square microns.
    mpp : float
        Microns per level-0 pixel.
    exact : bool
        Whether its tissue has been found or drawn; otherwise guessed from its size.
    """

    tissue_um2: float
    mpp: float
    exact: bool = False


class Areas:
    """Areas of slides: of the open ones as the viewer knows them, else of their files.

    Parameters
    ----------
    known : mapping of Path to SlideArea
        The open slides.
    opened : dict of Path to SlideArea
        Files that were opened earlier; more are added.
    """

    def __init__(
        self, known: Mapping[Path, SlideArea], opened: dict[Path, SlideArea]
    ) -> None:
        self._known, self._opened = known, opened

    def of(self, paths: Iterable[Path]) -> list[SlideArea]:
        """Return the areas of slides; those after the first dozen are like their mean.

        Parameters
        ----------
        paths : iterable of Path
            Files and folders of slides.

        Raises
        ------
        McmError
            If there are no slides, or none of the first can be opened.
        """
        from napari_mcm.core.slides.find import find_slides

        slides = find_slides(paths)
        found = [area for path in slides[:_OPENED] if (area := self._of(path))]
        if not found or len(slides) <= _OPENED:
            return found
        mean = SlideArea(
            float(np.mean([area.tissue_um2 for area in found])),
            max(area.mpp for area in found),
        )
        return [*found, *[mean] * (len(slides) - len(found))]

    def _of(self, path: Path) -> SlideArea | None:
        from napari_mcm.core.slides import open_slide

        path = path.absolute()
        if path in self._known:
            return self._known[path]
        if path not in self._opened:
            try:
                with open_slide(path) as slide:
                    if slide.stated_mpp is None:
                        return None
                    metadata = SlideMetadata.of_slide(slide)
            except McmError:
                return None
            self._opened[path] = _whole(metadata)
        return self._opened[path]


@dataclass(frozen=True)
class Answer:
    """How long a job is going to take.

    Attributes
    ----------
    work : Work
        What it does.
    estimate : Estimate or None
        None where nothing is known.
    """

    work: Work
    estimate: Estimate | None

    @property
    def text(self) -> str:
        """The estimate in words, such as ``about 4 min``; empty without one."""
        return self.estimate.text if self.estimate is not None else ""

    @property
    def is_long(self) -> bool:
        """Whether it would take more than 12 hours on a CPU."""
        long = self.estimate is not None and self.estimate.seconds > LONG_S
        return long and runs_on_cpu(self.work.device)

    def timing(self) -> JobTiming:
        """Return what measures the job while it runs, for ``jobs.start(timing=…)``."""
        seconds = self.estimate.seconds if self.estimate is not None else None
        return JobTiming(self.work, seconds)


class Estimates:
    """Estimate the jobs of one viewer; one per session, ``session.part(Estimates)``.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._opened: dict[Path, SlideArea] = {}

    def ask(
        self,
        key: str,
        work: Callable[[Areas], Work],
        then: Callable[[Answer | None], None],
    ) -> None:
        """Estimate a job in the background; only the newest question of a key counts.

        Parameters
        ----------
        key : str
            Who asks.
        work : callable
            Describes the job, given the areas of slides; called in a thread.
        then : callable
            Called in the GUI thread with the answer; None where the job cannot be
            described.
        """
        areas = Areas(_known_areas(self._session), self._opened)
        self._session.disk.submit(
            f"estimate {key}",
            lambda: _answer(work, areas),
            then,
            lambda _problem: then(None),
        )


def _answer(work: Callable[[Areas], Work], areas: Areas) -> Answer | None:
    try:
        described = work(areas)
    # A form that is half filled in cannot be estimated, and says itself what is wrong.
    except (McmError, ValueError, OSError):
        return None
    speed = processor_speed() if runs_on_cpu(described.device) else None
    return Answer(described, estimate(described, read_rates(), speed))


def _known_areas(session: Session) -> dict[Path, SlideArea]:
    known = {}
    for layer in session.layers.slides():
        metadata = SlideMetadata.of_layer(layer)
        if metadata is None or metadata.mpp is None:
            continue
        editable = session.tissue.mask_of(layer)
        area = _whole(metadata)
        if editable is not None:
            mask = editable.mask
            pixel_um2 = np.prod(mask.downsample) * np.prod(metadata.mpp)
            tissue = float(np.count_nonzero(mask.mask) * pixel_um2)
            area = SlideArea(tissue, area.mpp, exact=True)
        known[Path(metadata.path)] = area
    return known


def _whole(metadata: SlideMetadata) -> SlideArea:
    assert metadata.mpp is not None
    (width, height), (x, y) = metadata.size, metadata.mpp
    return SlideArea(_TISSUE * width * x * height * y, max(x, y))


def count_patches(areas: list[SlideArea], grid: GridConfig) -> float:
    """Return about how many patches cover the tissue of slides.

    Parameters
    ----------
    areas : list of SlideArea
        The slides.
    grid : GridConfig
        Size and resolution of patches.
    """
    coarsest = max([DEFAULT_MPP, *(area.mpp for area in areas)])
    mpp = grid.mpp if isinstance(grid.mpp, float) else coarsest
    patch_um2 = (grid.patch_size * mpp) ** 2
    return sum(area.tissue_um2 for area in areas) / patch_um2


def runs_on_cpu(device: str) -> bool:
    """Return whether a device is the CPU; ``auto`` is, where there is no GPU.

    Parameters
    ----------
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    """
    return device == "cpu" or (device == "auto" and not _has_gpu())


@cache
def _has_gpu() -> bool:
    """Look for a GPU's driver; PyTorch, which would know, takes seconds to import."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    if sys.platform == "win32":
        root = os.environ.get("SYSTEMROOT", r"C:\Windows")
        return (Path(root) / "System32" / "nvcuda.dll").exists()
    return any(Path(f"/dev/{name}").exists() for name in ("nvidiactl", "kfd"))


_SIDE, _PROBE_S = 64, 0.15
"""Matrices so small that each is multiplied in one thread: several threads that wait for
each other on a busy computer would seem many times too slow."""
_EFFICIENCY = 0.4
"""What networks reach of the speed of such products, on all cores."""
_IDLE = 0.3
"""Share of a core that the probe must get, or the speed says nothing of the next hour."""


def processor_speed(
    clock: Callable[[], float] = time.perf_counter, cores: int | None = None
) -> float | None:
    """Measure the multiply-adds per second of this CPU, for a first guess; takes 0.15 s.

    Parameters
    ----------
    clock : callable, optional
        Returns the time in seconds.
    cores : int, optional
        Cores that networks use; by default those of this process.

    Returns
    -------
    float or None
        None where other programs leave too little of the CPU to tell.
    """
    matrix = np.ones((_SIDE, _SIDE), np.float32)
    result = np.empty_like(matrix)
    # The first product loads the library.
    np.dot(matrix, matrix, result)
    began = before = clock()
    best, done = float("inf"), 0
    while before - began < _PROBE_S:
        for _ in range(20):
            np.dot(matrix, matrix, result)
        now = clock()
        best, before, done = min(best, (now - before) / 20), now, done + 20
    each = (before - began) / done
    if best < _IDLE * each:
        return None
    cores = cores or len(_affinity())
    return float(_EFFICIENCY * cores * _SIDE**3 / max(each, 1e-9))


def _affinity() -> Collection[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return range(os.cpu_count() or 1)
