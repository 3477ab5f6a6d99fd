"""The generated cohort as a job: slides, annotations and a table of labels."""

from __future__ import annotations

import csv
import io
import os
import queue
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from napari_mcm.core.runtime.files import write_text
from napari_mcm.core.runtime.geojson import write_features
from napari_mcm.core.runtime.jobs import Job, Meter
from napari_mcm.core.synthetic.cells import Palette, mix_palette
from napari_mcm.core.synthetic.chart import Chart
from napari_mcm.core.synthetic.layout import Layout, plan_slide
from napari_mcm.core.synthetic.outlines import outline_regions
from napari_mcm.core.synthetic.pyramid import write_pyramid
from napari_mcm.core.synthetic.render import BLOCK, draw_block, set_scene

TUMOUR_SHARES = (0.42, 0.14, 0.28, 0.10, 0.20)
"""Share of the tissue taken by tumour on successive tumour slides: large to small."""


class SampleConfig(BaseModel):
    """What to generate."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slides: int = Field(
        default=8,
        ge=1,
        le=1000,
        description="Number of slides; two belong to one patient",
    )
    size: int = Field(
        default=4000, ge=512, le=20_000, description="Side of a slide in level-0 pixels"
    )
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**63,
        description="Seed; the same seed gives the same pixels",
    )
    mpp: float = Field(
        default=0.5, ge=0.2, le=1.0, description="Resolution of level 0 in µm per pixel"
    )
    tumour_share: float | None = Field(
        default=None,
        gt=0,
        le=0.6,
        description="Part of the tissue that is tumour on slides that have one; by "
        "default from 0.1 to 0.42 in turn",
    )
    workers: int = Field(
        default_factory=lambda: min(8, os.cpu_count() or 1),
        ge=1,
        le=64,
        description="Slides drawn at a time; the result does not depend on it",
    )


@dataclass(frozen=True)
class Cohort:
    """What was generated.

    Attributes
    ----------
    slides : tuple of Path
        The slides, in order; each has a ``.geojson`` of the same name beside it.
    cohort : Path
        The table: ``slide_id,label,patient_id,path``.
    """

    slides: tuple[Path, ...]
    cohort: Path


def generate_cohort(out: Path, config: SampleConfig | None = None) -> Job[Cohort]:
    """Generate slides with a known ground truth.

    Slides look like sections of breast stained with haematoxylin and eosin. Every
    second patient has an invasive tumour on both slides (label ``tumour``), the others
    have none (``normal``); tumours take from a tenth to two fifths of the tissue.

    Two classes of region can be told apart by their surroundings only. ``Tumour`` and
    ``Ductal hyperplasia`` are sheets of the same nuclei, equally dense, in the same
    cytoplasm, with the same septa and lumens. But a duct is a round island about 370 µm
    across, alone in stroma, and the tumour is broad connected sheets: a patch of 112 µm
    inside either looks alike, a window of 448 µm around it does not. Slides of both
    labels have ducts, so that nothing can tell a tumour by its cells.

    Started again in the same folder with the same options, it keeps the slides that are
    finished; with others, it draws them anew.

    Parameters
    ----------
    out : Path
        Folder for the files; made if need be.
    config : SampleConfig, optional
        What to generate.

    Yields
    ------
    Progress
        Squares of slides drawn, several times a second.

    Returns
    -------
    Cohort
        The files.
    """
    config = config or SampleConfig()
    out = Path(out)
    _keep_or_begin(out, config)
    done: queue.SimpleQueue[None] = queue.SimpleQueue()
    stop = threading.Event()
    squares = config.slides * (-(-config.size // BLOCK)) ** 2
    meter = Meter("Generating slides", squares, "squares")
    yield meter.progress()
    palette = mix_palette(config.mpp, np.random.default_rng([config.seed, 0]))
    pool = ThreadPoolExecutor(config.workers, thread_name_prefix="samples")
    try:
        jobs = [
            pool.submit(_make_slide, out, index, config, palette, done, stop)
            for index in range(config.slides)
        ]
        while not all(job.done() for job in jobs) or not done.empty():
            _raise_first(jobs)
            yield meter.advance(_drain(done))
        slides = tuple(job.result() for job in jobs)
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
    table = out / "cohort.csv"
    write_text(table, _table(slides))
    return Cohort(slides, table)


def _files(out: Path, index: int) -> tuple[Path, Path]:
    """Name a slide and its regions, which are written last."""
    return out / f"slide_{index:02d}.ome.tif", out / f"slide_{index:02d}.geojson"


def _is_drawn(path: Path, regions: Path, size: int) -> bool:
    """Tell whether a slide is finished, and still the one that was written."""
    if not regions.exists():
        return False
    try:
        with tifffile.TiffFile(path) as slide:
            # All levels: they lie behind one another, whichever was written last.
            levels = [slide.pages.first, *(slide.pages.first.pages or ())]
            ends = [p.dataoffsets[-1] + p.databytecounts[-1] for p in levels]
            whole = max(ends) <= slide.filehandle.size
            return whole and slide.pages.first.shape == (size, size, 3)
    except (OSError, ValueError, IndexError, struct.error):
        # Gone, or cut short by a copy or a full disk.
        return False


def _keep_or_begin(out: Path, config: SampleConfig) -> None:
    """Leave what was drawn with these options; see that nothing else counts as drawn."""
    marker = out / "sample.json"
    asked = config.model_dump_json(exclude={"slides", "workers"})
    if marker.exists() and marker.read_text(encoding="utf-8") == asked:
        return
    # All of an earlier sample, not only as many as are asked for now: more may be later.
    for regions in out.glob("slide_*.geojson"):
        if regions.with_suffix(".ome.tif").exists():
            regions.unlink()
    write_text(marker, asked)


def plan_sample(
    config: SampleConfig, index: int, check: Callable[[], None] = lambda: None
) -> Layout:
    """Plan one slide of a cohort: the ground truth that its pixels are drawn from.

    Parameters
    ----------
    config : SampleConfig
        The cohort.
    index : int
        Which slide, from 0.
    check : callable, optional
        Called now and then; what it raises stops the planning.

    Returns
    -------
    Layout
        The plan.
    """
    # Its own stream per slide: who draws it, and when, makes no difference.
    rng = np.random.default_rng([config.seed, 1, index])
    share = _tumour_share(index, rng, config.tumour_share)
    # Every third slide bears a pen mark, of whatever label.
    marked = index % 3 == 1
    return plan_slide(Chart(config.size, config.mpp, rng, check), share, marked)


def _make_slide(
    out: Path,
    index: int,
    config: SampleConfig,
    palette: Palette,
    done: queue.SimpleQueue[None],
    stop: threading.Event,
) -> Path:
    """Plan, draw and write one slide; runs in a worker thread."""

    def check() -> None:
        if stop.is_set():
            raise _Stopped

    check()
    path, regions = _files(out, index)
    if _is_drawn(path, regions, config.size):
        for _ in range((-(-config.size // BLOCK)) ** 2):
            done.put(None)
        return path
    layout = plan_sample(config, index, check)
    scene = set_scene(layout, palette)

    def draw(y: int, x: int) -> NDArray[np.uint8]:
        check()
        done.put(None)
        return draw_block(scene, y, x)

    write_pyramid(path, config.size, config.mpp, draw)
    outlines = outline_regions(layout, f"{config.seed}/{index}")
    write_features(regions, outlines, one_per_line=False)
    return path


def _has_tumour(index: int) -> bool:
    return index // 2 % 2 == 0


def _tumour_share(
    index: int, rng: np.random.Generator, given: float | None = None
) -> float:
    if not _has_tumour(index):
        return 0.0
    turn = index // 4 * 2 + index % 2
    share = TUMOUR_SHARES[turn % len(TUMOUR_SHARES)] if given is None else given
    return share * float(rng.uniform(0.85, 1.15))


def _table(slides: tuple[Path, ...]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["slide_id", "label", "patient_id", "path"])
    for index, path in enumerate(slides):
        label = "tumour" if _has_tumour(index) else "normal"
        patient = f"patient_{index // 2:02d}"
        writer.writerow([f"slide_{index:02d}", label, patient, path.name])
    return text.getvalue()


def _drain(done: queue.SimpleQueue[None]) -> int:
    """Wait a moment for squares, then count those that are there."""
    try:
        done.get(timeout=0.2)
    except queue.Empty:
        return 0
    count = 1
    while not done.empty():
        done.get()
        count += 1
    return count


def _raise_first(jobs: list[Future[Path]]) -> None:
    for job in jobs:
        if job.done():
            job.result()


class _Stopped(Exception):
    """The job was closed while a slide was being drawn."""
